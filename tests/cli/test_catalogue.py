"""The lists and what `show` says of one entry."""

import json

import pytest

from towtank.hardware_profiles.load import list_devices, list_machines
from towtank.simulator.models.load import list_models
from towtank.simulator.stacks.load import list_stacks


@pytest.mark.parametrize(
    ("command", "names"),
    [("machines", list_machines()), ("devices", list_devices()), ("stacks", list_stacks())],
)
def test_list_has_every_name(towtank, command, names) -> None:
    rows = json.loads(towtank(command, "--json").out)[command]
    assert [row["name"] for row in rows] == names
    out = towtank(command).out
    assert max(map(len, out.splitlines())) <= 100
    for name in names:
        assert name in out
        assert towtank(command, "show", name).code == 0
        assert json.loads(towtank(command, "show", name, "--json").out)


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (("machines",), "machines"), (("devices",), "devices"), (("stacks",), "stacks"), (("models",), "models"),
        (("machines", "show", "selene"), "figures"), (("devices", "show", "h100-80gb-sxm"), "figures"),
    ],
)  # fmt: skip
def test_a_list_is_an_object_that_names_its_schema(towtank, command, named) -> None:
    found = json.loads(towtank(*command, "--json").out)
    assert list(found) == ["schema", named]
    assert found["schema"] == 1
    assert found[named]


def test_models_list_has_every_name_and_alias_once(towtank) -> None:
    rows = json.loads(towtank("models", "--json").out)["models"]
    assert sorted(name for row in rows for name in (row["name"], *row["aliases"])) == list_models()
    assert towtank("models").out.count("llama3-8b") == 1


def test_show_of_a_model_is_exact(towtank) -> None:
    out = towtank("models", "show", "llama3-8b").out
    assert "8,030,261,248" in out  # as the authors' checkpoint has it
    document = json.loads(towtank("models", "show", "llama3-8b", "--json").out)
    assert document["parameters"]["total"] == 8030261248
    # 6 FLOP a weight of every matrix, and 12 l h s for attention in full (PaLM, appendix B); a look-up is none
    weights = 8030261248 - 128256 * 4096 - 65 * 4096
    assert document["flop_per_token"] == 6 * weights + 12 * 32 * 4096 * 8192


def test_show_of_a_machine_names_sources_and_what_is_unknown(towtank) -> None:
    out = towtank("machines", "show", "selene").out
    row = next(line for line in out.splitlines() if "node.pair_bandwidth_max" in line)
    number = row.split("[")[1].split("]")[0]
    assert "300 GB/s" in row and "specification" in row
    assert f"[{number}] stas00/ml-engineering" in out
    assert next(line for line in out.splitlines() if "power_usage" in line).split() == [
        "power_usage_effectiveness", "unknown",
    ]  # fmt: skip
    assert "device.peak_flop_per_s.bf16" in out


def test_private_profiles_are_listed(towtank, tmp_path) -> None:
    (tmp_path / "machines").mkdir()
    (tmp_path / "machines" / "mine.yaml").write_text("name: mine\nfrom: selene\ndescription: a copy\n")
    found = json.loads(towtank("machines", "--json", "--profiles", str(tmp_path)).out)
    names = {row["name"] for row in found["machines"]}
    assert {"mine", "selene"} <= names
    assert "a copy" in towtank("machines", "show", "mine", "--profiles", str(tmp_path)).out
