import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from towtank.hardware_profiles.errors import InvalidProfile, ProfileError, UnknownFigure, UnknownProfile
from towtank.hardware_profiles.load import list_devices, list_machines, load_device, load_machine
from towtank.hardware_profiles.records import known

Write = Callable[[str, str], Path]

CHANGED = """\
name: x100
from: a100-80gb-sxm
description: A faster A100
sources:
  test: {text: made up, provenance: recalled}
tdp: {value: 500 W, source: test}
"""


def test_figures_of_a_device_by_hand() -> None:
    a100 = load_device("a100-80gb-sxm")
    assert a100.peak_flop_per_s == {"fp32": 19.5e12, "tf32": 156e12, "fp16": 312e12, "bf16": 312e12}
    assert a100.memory_capacity_bytes == 80 * 1024**3
    assert a100.memory_bandwidth_bytes_per_s == 2039e9
    assert a100.multiprocessors == 108
    assert isinstance(a100.multiprocessors, int)
    assert a100.tdp_w == 400
    assert a100.sustained_fraction == pytest.approx(271.2 / 290, rel=1e-3)
    assert a100.achievable_flop_per_s == {"bf16": 271.2e12}
    assert a100.sources["peak_flop_per_s.bf16"].provenance == "specification"
    assert a100.sources["achievable_flop_per_s.bf16"].provenance == "measurement"


def test_figures_of_a_machine_by_hand() -> None:
    machine = load_machine("perlmutter")
    assert (machine.num_nodes, machine.node.devices, machine.num_devices) == (1536, 4, 6144)
    assert machine.device == load_device("a100-40gb-sxm")
    assert machine.node.fabric == "mesh"
    assert machine.node.device_bandwidth_bytes_per_s == 3 * 100e9
    assert machine.node.injection_bytes_per_s == 4 * 25e9
    assert machine.node.latency_s == 3.4e-6
    assert (machine.network.topology, machine.network.technology) == ("dragonfly", "Slingshot 11")
    assert machine.network.group_nodes == 128
    assert machine.network.efficiency == 0.8
    assert machine.power_usage_effectiveness == 1.08
    assert machine.sources["power_usage_effectiveness"].provenance == "recalled"
    assert machine.sources["node.latency_s"].text.startswith("NVIDIA/nccl:src/graph/tuning.cc")


@pytest.mark.parametrize(
    ("machine", "inner", "own", "gigabytes_per_s"),
    [
        ("perlmutter", 1, 2, 76),
        ("perlmutter", 1, 4, 225),
        ("perlmutter", 1, 8, 80),
        ("perlmutter", 1, 4096, 80),
        ("perlmutter", 2, 2, 76),
        ("perlmutter", 2, 4, 40),
        ("perlmutter", 2, 2048, 40),
        ("perlmutter", 4, 2, 20),
        ("perlmutter", 4, 1024, 20),
        ("perlmutter", 2048, 2, 20),
        ("frontier", 1, 2, 129),
        ("frontier", 1, 4, 52),
        ("frontier", 1, 8, 135),
        ("frontier", 1, 16, 40),
        ("frontier", 1, 65536, 40),
        ("frontier", 2, 2, 50),
        ("frontier", 2, 4, 72),
        ("frontier", 2, 8, 20),
        ("frontier", 4, 2, 36),
        ("frontier", 4, 4, 10),
        ("frontier", 8, 2, 5),
        ("frontier", 512, 16, 5),
    ],
)
def test_bus_bandwidth_published_by_axonn(machine: str, inner: int, own: int, gigabytes_per_s: float) -> None:
    assert load_machine(machine).measured_bus_bandwidth_bytes_per_s[inner, own] == gigabytes_per_s * 1e9


def test_bus_bandwidth_stops_at_the_size_of_the_machine() -> None:
    table = load_machine("perlmutter").measured_bus_bandwidth_bytes_per_s
    assert max(inner * own for inner, own in table) == 4096
    assert (4096, 2) not in table
    # Pairs of powers of two with own from 2 and a product up to 2^12: 12 + 11 + ... + 1.
    assert len(table) == 78


def test_size_by_nodes_and_by_devices() -> None:
    assert load_machine("dgx-h100").num_nodes is None
    assert load_machine("dgx-h100").num_devices is None
    assert load_machine("dgx-h100:nodes=64").num_devices == 512
    assert load_machine("dgx-h100:devices=512").num_nodes == 64
    assert load_machine("gb200-nvl72:devices=144").num_nodes == 2
    assert "dgx-h100:nodes=64" in load_machine("dgx-h100:nodes=64").sources["num_nodes"].text


def test_part_of_a_machine_has_no_power_of_the_whole() -> None:
    assert load_machine("frontier").system_power_w == 21e6
    assert load_machine("frontier:nodes=9856").system_power_w == 21e6
    part = load_machine("frontier:nodes=128")
    assert part.system_power_w is None
    assert "system_power_w" not in part.sources
    # The table of measured bandwidths is that of the whole.
    whole = load_machine("frontier").measured_bus_bandwidth_bytes_per_s
    assert part.measured_bus_bandwidth_bytes_per_s == whole


def test_device_can_be_replaced() -> None:
    machine = load_machine("Selene : device = A100-40GB-SXM : nodes = 2")
    assert machine.device == load_device("a100-40gb-sxm")
    assert machine.num_devices == 16


def test_machine_states_its_own_power_limit() -> None:
    assert load_device("gh200-96gb").tdp_w is None
    jupiter = load_machine("jupiter-booster").device
    assert jupiter.tdp_w == 680
    assert jupiter.name == "gh200-96gb"
    assert jupiter.sources["tdp_w"].provenance == "specification"
    assert load_machine("alps").device.sources["tdp_w"].provenance == "recalled"


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("Perlmutter-A100-40", "perlmutter"),
        ("LUMI", "lumi-g"),
        ("leonardo", "leonardo-booster"),
        ("jupiter", "jupiter-booster"),
        ("marenostrum5", "marenostrum5-acc"),
        ("EOS", "eos"),
    ],
)
def test_aliases_in_any_case(alias: str, name: str) -> None:
    assert load_machine(alias).name == name


def test_gh200_120gb_is_the_part_with_96_gb() -> None:
    # 120 GB are the memory of its processor, by which the driver names it.
    assert load_device("gh200-120gb").name == "gh200-96gb"


@pytest.mark.parametrize(
    ("reference", "part"),
    [
        ("perlmuter", "did you mean 'perlmutter'"),
        ("nowhere", "no machine is named 'nowhere'"),
        ("", "no machine is named ''"),
        ("selene:device=a100-80gb-sxn", "did you mean 'a100-80gb-sxm'"),
    ],
)
def test_unknown_name_gives_the_nearest(reference: str, part: str) -> None:
    with pytest.raises(UnknownProfile) as caught:
        load_machine(reference)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "part"),
    [
        ("selene:nodes=0", "nodes= must be a whole number from 1, got '0'"),
        ("selene:nodes=-3", "got '-3'"),
        ("selene:nodes=1.5", "got '1.5'"),
        ("selene:nodes=561", "561 nodes are asked for, but the machine has 560"),
        ("selene:devices=4488", "561 nodes are asked for"),
        ("selene:devices=12", "must be a multiple of the 8 devices of a node; take 8 or 16"),
        ("selene:devices=4", "take 8"),
        ("selene:devices=0", "devices= must be a whole number from 1"),
        ("selene:node=3", "did you mean 'nodes'"),
        ("selene:64", "'64' is no option"),
        ("selene:nodes=", "is no option"),
        ("selene:nodes=2:nodes=3", "nodes is given twice"),
        ("selene:nodes=2:devices=16", "nodes and devices both set the size"),
    ],
)
def test_wrong_option_of_a_reference(reference: str, part: str) -> None:
    with pytest.raises(ProfileError) as caught:
        load_machine(reference)
    assert part in str(caught.value)


def test_unknown_figure_names_field_and_use() -> None:
    device = load_device("tpu-v5p")
    with pytest.raises(UnknownFigure, match="tpu-v5p: tdp_w is unknown and energy needs it"):
        known(device, "tdp_w", device.tdp_w, needed_for="energy")


def test_private_device_inherits_from_a_shipped_one(folder: Path, write: Write) -> None:
    write("devices/x100", CHANGED)
    device = load_device("X100", [folder])
    assert device.tdp_w == 500
    assert device.description == "A faster A100"
    assert device.peak_flop_per_s == load_device("a100-80gb-sxm").peak_flop_per_s
    assert "x100" in list_devices([folder])
    assert "x100" not in list_devices()
    assert load_machine("selene:device=x100", [folder]).device == device


def test_private_file_of_the_same_name_extends_the_shipped_one(
    folder: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("devices/a100-80gb-sxm", CHANGED.replace("x100", "a100-80gb-sxm"))
    monkeypatch.setenv("TOWTANK_PROFILES", str(folder))
    assert load_device("a100-80gb-sxm").tdp_w == 500
    # Whoever inherits from the shipped one, and every machine with it, sees the private one.
    assert load_device("a100-40gb-sxm").tdp_w == 500
    assert load_machine("selene").device.tdp_w == 500
    monkeypatch.delenv("TOWTANK_PROFILES")
    assert load_machine("selene").device.tdp_w == 400


def test_argument_wins_over_environment(
    folder: Path, write: Write, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("devices/x100", CHANGED)
    other = tmp_path_factory.mktemp("other")
    (other / "devices").mkdir()
    (other / "devices" / "x100.yaml").write_text(CHANGED.replace("500 W", "600 W"))
    monkeypatch.setenv("TOWTANK_PROFILES", str(other))
    assert load_device("x100").tdp_w == 600
    assert load_device("x100", [folder]).tdp_w == 500


def test_edited_file_is_read_again(folder: Path, write: Write) -> None:
    write("devices/x100", CHANGED)
    assert load_device("x100", [folder]).tdp_w == 500
    write("devices/x100", CHANGED.replace("500 W", "1500 W"))
    assert load_device("x100", [folder]).tdp_w == 1500


def test_private_machine_changes_one_figure_of_a_section(folder: Path, write: Write) -> None:
    write(
        "machines/mine",
        "name: mine\nfrom: selene\ndescription: Selene with EDR\nnodes: unknown\n"
        "sources: {here: {text: counted, provenance: measurement}}\n"
        "network: {from: infiniband-edr, taper: {value: 0.5, source: here}}\n"
        "node: {nics: {value: 4, source: here}}\n",
    )
    mine, selene = load_machine("mine", [folder]), load_machine("selene")
    assert mine.num_nodes is None
    assert (mine.network.technology, mine.network.taper) == ("InfiniBand EDR", 0.5)
    assert mine.network.group_nodes == selene.network.group_nodes
    assert (mine.node.nics, mine.node.devices) == (4, 8)
    assert mine.sources["network.taper"].provenance == "measurement"
    assert "mine" in list_machines([folder])


def test_unknown_empties_an_inherited_figure(folder: Path, write: Write) -> None:
    write("devices/x100", CHANGED + "idle: unknown\nachievable_flop_per_s: unknown\n")
    device = load_device("x100", [folder])
    assert device.idle_w is None
    assert "idle_w" not in device.sources
    assert device.achievable_flop_per_s == {}


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="does not exist"):
        load_device("a100-80gb-sxm", [tmp_path / "nothing"])


def test_errors_travel_between_processes(folder: Path, write: Write) -> None:
    write("devices/x100", CHANGED.replace("500 W", "500"))
    with pytest.raises(InvalidProfile) as caught:
        load_device("x100", [folder])
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
    assert copy.faults == caught.value.faults


def test_records_travel_between_processes() -> None:
    machine = load_machine("frontier")
    assert pickle.loads(pickle.dumps(machine)) == machine
