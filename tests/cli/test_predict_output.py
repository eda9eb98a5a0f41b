"""What `predict` prints: the JSON document against its schema and against itself, and the text for people."""

import json
import re

import jsonschema
import pytest

import towtank as package
from towtank.simulator.report.mapping import layer_of, prediction_to_mapping, schema

TOO_LARGE = ["predict", "--model", "gpt-40b", "--machine", "selene", "--stack", "megatron-2021",
             "--set", "tensor_x=4,data=2,global_batch=16,precision=fp16"]  # fmt: skip


@pytest.fixture(scope="module")
def prediction():
    settings = {
        "tensor_x": 2,
        "pipeline": 2,
        "data": 2,
        "global_batch": 16,
        "recompute": "full",
        "precision": "fp16",
    }
    plan = package.Plan(**settings)
    return package.predict("gpt-5b", "selene", plan, stack="megatron-2021")


def _document(towtank, *arguments: str) -> dict:
    outcome = towtank(*arguments, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    document = json.loads(outcome.out)  # nothing but JSON on the standard output
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(document, schema())
    return document


@pytest.mark.parametrize("detail", [None, "layers", "operations"])
def test_document_follows_the_schema_and_adds_up(towtank, small_job, detail) -> None:
    document = _document(towtank, *small_job, *(["--breakdown", detail] if detail else []))
    assert sum(document["breakdown_s"].values()) == pytest.approx(document["step_time_s"], rel=1e-9)
    assert sum(document["memory_bytes"].values()) == pytest.approx(document["peak_memory_bytes"], rel=1e-12)
    assert max(document["memory_per_stage_bytes"]) == document["peak_memory_bytes"]
    assert len(document["memory_per_stage_bytes"]) == 2
    assert document["devices"] == 8
    assert document["bound_s"] <= document["step_time_s"]
    # 16 sequences of 2,048 tokens
    assert document["tokens_per_step"] == 32768
    assert document["tokens_per_s"] == pytest.approx(32768 / document["step_time_s"])
    assert document["mfu"] == pytest.approx(document["flop_per_s_per_device"] / 312e12)
    assert document["hfu"] > document["mfu"]
    assert {"layers", "operations"} & document.keys() == ({detail} if detail else set())
    low, high = document["interval_90_s"]
    assert low < document["step_time_s"] < high
    assert document["interval_runs"] >= 19  # fewer cannot tell 90 %
    assert document["extrapolated"] == []


def test_beyond_what_was_validated_the_prediction_says_so(towtank) -> None:
    job = [
        "predict",
        "--model",
        "llama3-8b",
        "--machine",
        "frontier",
        "--set",
        "tensor_x=8,data=8,global_batch=8",
    ]
    assert _document(towtank, *job)["extrapolated"] == ["no validated run on mi250x-gcd"]
    text = towtank(*job).out
    assert "extrapolated: no validated run on mi250x-gcd" in text
    assert re.search(r"step time +\S+ m?s \(90 %: \S+ m?s to \S+ m?s; closed-form lower bound", text)


def test_schema_refuses_what_it_does_not_know(prediction) -> None:
    document = prediction_to_mapping(prediction, package.__version__)
    jsonschema.validate(document, schema())
    for broken in (document | {"step_time": 1.0}, document | {"step_time_s": "1 s"}, {"schema": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema())


def test_every_property_of_the_schema_is_printed_or_optional(prediction) -> None:
    stated = schema()
    # by the command line
    added = {"interval_90_s", "interval_regime", "interval_runs", "extrapolated", "step_time_quantiles_s"}
    assert set(stated["required"]) == set(stated["properties"]) - {"layers", "operations"} - added
    assert list(prediction_to_mapping(prediction, "1")) == stated["required"]


def test_plan_of_the_document_predicts_the_same(towtank, small_job, tmp_path) -> None:
    document = _document(towtank, *small_job)
    path = tmp_path / "plan.yaml"
    path.write_text(json.dumps(document["plan"]))
    again = _document(towtank, *small_job[:7], "--plan", str(path))
    assert again == document


def test_settings_override_the_plan_file(towtank, small_job, tmp_path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("tensor_x: 2\nglobal_batch: 8\nprecision: fp16\noverlap: {backward_all_reduce: false}\n")
    document = _document(
        towtank, *small_job[:7], "--plan", str(path), "--set", "global_batch=4", "--set", "recompute=full"
    )
    assert document["plan"] == {
        "schema": 1, "tensor_x": 2, "global_batch": 4, "recompute": "full", "precision": "fp16",
        "overlap": {"backward_all_reduce": False},
    }  # fmt: skip


def test_layers_add_up_to_their_operations(towtank, small_job) -> None:
    layers = _document(towtank, *small_job, "--breakdown", "layers")["layers"]
    operations = _document(towtank, *small_job, "--breakdown", "operations")["operations"]
    assert {row["name"] for row in layers} == {*(f"layer.{n}" for n in range(24)), "model"}
    for row in layers:
        mine = [
            one for one in operations if (layer_of(one["name"]), one["phase"]) == (row["name"], row["phase"])
        ]
        assert sum(one["seconds"] for one in mine) == pytest.approx(row["seconds"])
        assert sum(one["exposed_s"] for one in mine) == pytest.approx(row["exposed_s"])


def test_engines_agree(towtank, small_job) -> None:
    compiled, reference = (
        _document(towtank, *small_job, "--engine", engine) for engine in ("compiled", "simpy")
    )
    assert reference.pop("engine") == "simpy"
    assert compiled.pop("engine") == "compiled"
    assert compiled["step_time_s"] == pytest.approx(reference["step_time_s"], rel=1e-9)


def test_plan_that_does_not_fit(towtank) -> None:
    document = _document(towtank, *TOO_LARGE)
    assert document["fits"] is False
    assert document["missing_bytes"] == document["peak_memory_bytes"] - document["memory_capacity_bytes"] > 0
    outcome = towtank(*TOO_LARGE)
    assert outcome.code == 0
    second_line = outcome.out.splitlines()[1]
    assert second_line.startswith("DOES NOT FIT")
    assert f"{document['missing_bytes']:,.0f} bytes" in second_line
    assert f"{document['peak_memory_stage']}" in second_line


def test_text_says_what_matters_first_and_keeps_to_100_columns(towtank, small_job) -> None:
    outcome = towtank(*small_job)
    document = _document(towtank, *small_job)
    lines = outcome.out.splitlines()
    assert lines[0].startswith("gpt-5b on 8 GPUs of selene: ")
    assert max(map(len, lines)) <= 100
    assert not any(line != line.rstrip() for line in lines)
    for words in (
        f"{document['tokens_per_s']:,.0f} tokens/s",
        f"MFU {100 * document['mfu']:.1f} %, HFU {100 * document['hfu']:.1f} %",
        "tensor_x 2 x pipeline 2 x data 2",
        "16 sequences of 2,048 tokens; 8 micro-batches of 1 a replica",
        "schedule 1f1b",
        f"{document['peak_memory_bytes'] / 2**30:.1f} GiB of 80.0 GiB",
        "Stands on",
    ):
        assert words in outcome.out, words


def test_parts_are_sorted_and_their_shares_add_up(towtank, small_job) -> None:
    out = towtank(*small_job).out
    for head in ("Where the step goes", "Memory of stage"):
        section = out[out.index(head) :].split("\n\n")[0]
        shares = [float(found) for found in re.findall(r"([\d.]+) %", section)]
        assert sum(shares) == pytest.approx(100, abs=0.06 * len(shares))
        assert shares[:-1] == sorted(shares[:-1], reverse=True)


@pytest.mark.parametrize("detail", ["layers", "operations"])
def test_text_of_details(towtank, small_job, detail) -> None:
    out = towtank(*small_job, "--breakdown", detail).out
    assert "layer.0 to 23, each" in out if detail == "layers" else "layer.*.attention.qkv.forward" in out
    assert max(map(len, out.splitlines())) <= 100


def test_quantiles_of_steps(towtank, small_job) -> None:
    frontier = [*small_job, "--quantiles", "3"]
    frontier[frontier.index("--machine") + 1] = "frontier"
    document = _document(towtank, *frontier)
    low, middle, high = (document["step_time_quantiles_s"][share] for share in ("0.05", "0.5", "0.95"))
    assert low < middle < high
    assert low < document["step_time_s"] < high
    assert "Steps differ: 5 % below" in towtank(*frontier).out
    refused = towtank(*small_job, "--quantiles", "3")
    assert (refused.code, refused.out) == (2, "")
    assert "selene: speed_spread is unknown" in refused.err


def test_what_is_recalled_is_said(towtank, small_job) -> None:
    several_nodes = [*small_job, "--set", "data=8"]
    several_nodes[8:] = ["tensor_x=2,pipeline=2,data=8,global_batch=16,recompute=full,precision=fp16"]
    caveats = _document(towtank, *several_nodes)["caveats"]
    assert any("selene: node.injection_bytes_per_s recalled" in line for line in caveats)
    assert not any("recalled" in line for line in _document(towtank, *small_job)["caveats"])


AROUND = ["predict", "--model", "gpt-5b", "--machine", "frontier", "--stack", "axonn",
          "--set", "tensor_y=8,data=16,global_batch=16,recompute=full"]  # fmt: skip


def test_placement_and_other_jobs_are_told(towtank) -> None:
    assert _document(towtank, *AROUND)["surroundings"] == {
        "placement": "contiguous", "fill": None, "seed": None, "groups": 1,
        "background": {"global": 0.0, "local": 0.0, "interface": 0.0}, "variability": None,
    }  # fmt: skip
    options = ["--placement", "scattered:0.8", "--seed", "3", "--background", "0.3,interface=0.5"]
    found = _document(towtank, *AROUND, *options)
    around = found["surroundings"]
    assert (around["placement"], around["fill"], around["seed"]) == ("scattered", 0.8, 3)
    assert around["background"] == {"global": 0.3, "local": 0.0, "interface": 0.5}
    assert found["step_time_s"] > _document(towtank, *AROUND)["step_time_s"]
    assert any(line.startswith("placement: 16 of 9,856 nodes, scattered") for line in found["provenance"])
    assert any("never validated" in line for line in found["caveats"])
    text = re.sub(r"\s+", " ", towtank(*AROUND, *options).out)
    assert "placement 16 of 9,856 nodes, scattered where other jobs hold 80 % of the machine (seed 3)" in text
    assert "other jobs take 30 % of the links between groups of the network, 50 % of the interfaces" in text
    assert "other jobs" not in towtank(*AROUND).out
