"""`towtank network`: values by hand, tables, files of nccl-tests, and whatever a user gets wrong."""

import json
import xml.etree.ElementTree as ET
from math import sqrt
from pathlib import Path

import pytest

from towtank.hardware_profiles.load import load_machine

CAPTURES = Path(__file__).parent.parent / "captures" / "nccl_tests"
A100 = CAPTURES / "all_reduce_8xA100.txt"
B200 = CAPTURES / "all_reduce_4x8xB200.txt"


def _answers(towtank, *arguments: str) -> dict:
    outcome = towtank("network", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def _one(towtank, *arguments: str) -> dict:
    (answer,) = _answers(towtank, *arguments)["collectives"]
    return answer


def test_a_ring_over_two_nodes_by_hand(towtank) -> None:
    found = _one(
        towtank, "--machine", "dgx-h100", "--nodes", "2", "--collective", "all_gather", "--bytes", "1GiB"
    )
    # 16 devices: 14 steps inside, one between nodes; NVLink 450 GB/s x 0.842 is below 8 x 50 GB/s x 0.95
    moved = 15 / 16 * 2**30
    flow_s = moved / (450e9 * 0.842)
    time_s = 4.91e-6 + 14 * 1.33e-6 + 14e-6 + flow_s + 2 * sqrt(20.5e-6 * flow_s)
    assert found["time_s"] == pytest.approx(time_s, rel=1e-6)
    assert found["bus_bytes_per_s"] == pytest.approx(moved / time_s, rel=1e-6)
    assert found["algorithm_bytes_per_s"] == pytest.approx(2**30 / time_s, rel=1e-6)
    assert (found["algorithm"], found["protocol"]) == ("ring", "simple")
    assert found["limit"] == "links inside the node" and found["contention_factor"] == 1


def test_sibling_groups_share_the_interfaces_of_frontier(towtank) -> None:
    # one group of all: four interfaces of 25 GB/s, of which RCCL reaches 40 %
    job = ["--machine", "frontier", "--nodes", "64", "--collective", "all_reduce", "--bytes", "64GiB"]
    whole = _one(towtank, *job)
    assert whole["bus_bytes_per_s"] == pytest.approx(40e9, rel=0.01)
    assert whole["limit"] == "interface" and whole["contention_factor"] == 1
    # eight groups, one member a node: two of them share an interface
    data = _answers(towtank, *job, "--group", "data=64,tensor_x=8")
    assert data["group"] == {"groups": 8, "size": 64, "stride": 8, "nodes": 64, "members_a_node": 1}
    (answer,) = data["collectives"]
    assert answer["bus_bytes_per_s"] == pytest.approx(5e9, rel=0.01)
    assert answer["contention_factor"] == pytest.approx(2, rel=0.01)
    assert _answers(towtank, *job, "--group", "64@8")["collectives"] == [answer]


def test_measured_bandwidth_of_a_machine_comes_first(towtank) -> None:
    # AxoNN measured 225 GB/s among the four devices of a node of Perlmutter
    found = _one(
        towtank,
        "--machine", "perlmutter", "--nodes", "1", "--collective", "all-reduce", "--bytes", "1TiB",
    )  # fmt: skip
    assert found["limiting_links_bytes_per_s"] == pytest.approx(225e9)
    assert found["bus_bytes_per_s"] == pytest.approx(225e9, rel=0.01)


PUBLISHED = {
    # network_curves.csv: nccl-tests of ml-engineering on p5en, and NVIDIA/nccl issue 1218
    "p5en": (["aws-p5en-h200", "4", "4GiB"], 364.87e9),
    "32 nodes of H100": (["dgx-h100", "32", "2GiB"], 340e9),
    # profile of Frontier, AxoNN: groups of 16 nodes with 1, 2 and 4 inner devices
    "Frontier, 1 inner": (["frontier", "16", "1GiB", "--group", "64"], 34.0e9),
    "Frontier, 2 inner": (["frontier", "16", "1GiB", "--group", "64@2"], 20.6e9),
    "Frontier, 4 inner": (["frontier", "16", "1GiB", "--group", "32@4"], 10.2e9),
}


@pytest.mark.parametrize(("job", "measured"), PUBLISHED.values(), ids=list(PUBLISHED))
def test_published_all_reduces(towtank, job, measured) -> None:
    machine, nodes, size, *group = job
    found = _one(
        towtank, "--machine", machine, "--nodes", nodes, "--collective", "all_reduce", "--bytes", size, *group
    )
    assert found["bus_bytes_per_s"] == pytest.approx(measured, rel=0.15)


def test_small_messages_are_latency(towtank) -> None:
    job = ["--machine", "dgx-h100", "--nodes", "16", "--collective", "all_reduce"]
    small, large = _one(towtank, *job, "--bytes", "8 B"), _one(towtank, *job, "--bytes", "4GiB")
    assert small["limit"] == "latency" and small["latency_share"] > 0.95
    # a tree of depth 4, up and down, over chains of 8: start 4.91, 7 steps of 0.896 and 4 of 2.7 us, twice; LL
    assert small["time_s"] == pytest.approx(4.91e-6 + 2 * (7 * 0.896e-6 + 4 * 2.7e-6), rel=1e-3)
    assert (small["algorithm"], small["protocol"]) == ("tree", "ll")
    assert large["limit"] == "interface" and large["latency_share"] < 0.01


def test_narrow_cables_between_groups_are_named(towtank) -> None:
    job = ["--machine", "perlmutter", "--nodes", "256", "--collective", "all_reduce", "--bytes", "1GiB"]
    wide, narrow = (_one(towtank, *job, "--taper", taper) for taper in ("0.5", "0.002"))
    assert wide["limit"] == "interface" and narrow["limit"] == "global links"
    assert narrow["time_s"] > 2 * wide["time_s"]


def test_placement_is_drawn_with_a_seed(towtank) -> None:
    job = ["--machine", "lumi-g", "--nodes", "64", "--collective", "all_gather", "--bytes", "1GiB",
           "--group", "64@8"]  # fmt: skip
    near = _answers(towtank, *job)
    far = [_answers(towtank, *job, "--placement", "scattered:0.7", "--seed", seed) for seed in "112"]
    assert far[0] == far[1] and far[0]["placement"] == {"kind": "scattered", "fill": 0.7, "seed": 1}
    assert far[0]["collectives"][0]["time_s"] >= near["collectives"][0]["time_s"]
    assert "64 nodes, random, seed 3" in towtank("network", *job, "--placement", "random", "--seed", "3").out


def test_other_libraries_take_other_algorithms(towtank) -> None:
    job = ["--machine", "frontier", "--nodes", "256", "--collective", "all_gather", "--bytes", "1MiB"]
    rings = _answers(towtank, *job)
    levels = _answers(towtank, *job, "--library", "pccl")
    assert rings["library"] == "rccl" and rings["collectives"][0]["algorithm"] == "ring"
    assert levels["collectives"][0]["algorithm"] == "hierarchical"
    # PCCL, arXiv 2504.18658, abstract: up to 33 times faster at 2,048 GCDs
    assert 5 < rings["collectives"][0]["time_s"] / levels["collectives"][0]["time_s"] < 66


def test_text_of_one_collective(towtank) -> None:
    outcome = towtank(
        "network", "--machine", "frontier", "--nodes", "1024", "--collective", "all_reduce",
        "--bytes", "64MiB", "--group", "data=1024,tensor_x=8",
    )  # fmt: skip
    for phrase in (
        "all_reduce of 64 MiB over 1,024 devices of frontier: ",
        "with 8 groups at once",
        "contention factor 1.9",
        "(as nccl-tests count them)",
        "rccl: tree, protocol simple",
        "8 groups of 1,024 devices, 8 devices apart; each on 1,024 nodes, 1 a node",
        "interface: at most 5.000 GB/s of bus bandwidth a group",
    ):
        assert phrase in outcome.out


def test_sweep_is_a_table_and_a_plot(towtank, tmp_path) -> None:
    plot = tmp_path / "curve.svg"
    job = ["--machine", "dgx-h100", "--nodes", "8", "--collective", "reduce_scatter", "--group", "8@8"]
    outcome = towtank("network", *job, "--sweep", "1KiB..100KiB", "--plot", str(plot))
    assert outcome.code == 0 and f"plot: {plot}" in outcome.out
    rows = [line for line in outcome.out.splitlines() if " ring " in line]
    assert [" ".join(row.split()[:2]) for row in rows] == [
        "1 KiB", "2 KiB", "4 KiB", "8 KiB", "16 KiB", "32 KiB", "64 KiB", "100 KiB",
    ]  # fmt: skip
    drawn = ET.fromstring(plot.read_text())
    text = "".join(drawn.itertext())
    assert drawn.tag.endswith("svg") and "one group alone" in text and "bus bandwidth in GB/s" in text
    assert "href" not in plot.read_text()  # self-contained
    times = [each["time_s"] for each in _answers(towtank, *job, "--sweep", "1KiB..1GiB")["collectives"]]
    assert len(times) == 21 and times == sorted(times)


def test_nccl_tests_beside_predictions(towtank, tmp_path) -> None:
    plot = tmp_path / "compared.svg"
    outcome = towtank("network", "import", str(A100), "--machine", "dgx-a100", "--plot", str(plot))
    assert outcome.code == 0, outcome.err
    assert "all_reduce, out-of-place, over 8 devices of dgx-a100 (1 node, nccl)" in outcome.out
    assert "20 rows" in outcome.out
    assert "measured" in "".join(ET.fromstring(plot.read_text()).itertext())
    document = _answers(towtank, "import", str(B200), "--machine", "aws-p6-b200")
    assert (document["devices"], document["nodes"], document["library"]) == (32, 4, "nccl-efa")
    assert document["rows"][0]["measured_s"] == pytest.approx(564.34e-6)
    errors = sorted(abs(row["predicted_s"] / row["measured_s"] - 1) for row in document["rows"])
    assert document["median_error"] == pytest.approx((errors[8] + errors[9]) / 2)
    assert document["median_error"] < 0.15


@pytest.mark.parametrize(("capture", "machine"), [(A100, "dgx-a100"), (B200, "aws-p6-b200")])
def test_a_calibrated_profile_predicts_what_was_fitted(towtank, tmp_path, capture, machine) -> None:
    path = tmp_path / "machines" / "ours.yaml"
    path.parent.mkdir()
    command = ["import", str(capture), "--machine", machine]
    document = _answers(towtank, *command, "--calibrate", str(path))
    fit = document["fit"]
    assert fit["median_error"] < document["median_error"] < 0.15
    assert 0.9 < fit["bandwidth_factor"] < 1.1
    profiles = ["--profiles", str(tmp_path)]
    again = _answers(towtank, "import", str(capture), "--machine", "ours", *profiles)
    for row, fitted in zip(again["rows"], fit["rows"], strict=True):
        assert row["predicted_s"] == pytest.approx(fitted["predicted_s"], rel=2e-3)
    machine_profile = load_machine("ours:nodes=2", [tmp_path])
    assert {"calibration"} <= {source.provenance for source in machine_profile.sources.values()}
    text = towtank("network", *command, "--calibrate", str(path)).out
    assert "fitted: latency x " in text and f"--machine ours --profiles {tmp_path}" in text


def test_other_measurements_of_a_machine_survive_a_calibration(towtank, tmp_path) -> None:
    path = tmp_path / "machines" / "perlmutter.yaml"
    path.parent.mkdir()
    text = A100.read_text().replace("Rank  4", "Rnk").replace("Rank  5", "Rnk")
    four = tmp_path / "four.txt"
    four.write_text(text.replace("Rank  6", "Rnk").replace("Rank  7", "Rnk"))
    job = ["import", str(four), "--machine", "perlmutter", "--collective", "all_reduce"]
    outcome = towtank("network", *job, "--calibrate", str(path))
    assert outcome.code == 0, outcome.err
    before, after = (
        load_machine("perlmutter", dirs).measured_bus_bandwidth_bytes_per_s for dirs in ((), (tmp_path,))
    )
    assert {group: value for group, value in after.items() if group != (1, 4)} == {
        group: value for group, value in before.items() if group != (1, 4)
    }
    assert after[1, 4] != before[1, 4]


JOB = {"machine": "frontier", "nodes": "16", "collective": "all_reduce", "bytes": "1MiB"}


def _job(**changes: str | None) -> list[str]:
    options = {**JOB, **changes}
    return ["network", *(word for key, value in options.items() if value for word in (f"--{key}", value))]


BAD = {
    "nothing": (["network"], ["3 inputs", "--machine is missing", "--collective is missing", "no size"]),
    "all at once": (
        _job(machine="frontir", collective="allgathr", bytes="64M", placement="scatered", taper="2"),
        ["5 inputs", "mean 'frontier'", "mean 'all_gather'", "unknown unit 'M'", "mean 'scattered'", "--taper 2"],
    ),
    "library": (_job(library="ncl"), ["--library ncl", "'nccl'", "rccl"]),
    "size without a unit": (_job(bytes="64"), ["--bytes", "no unit", "64MiB"]),
    "no bytes": (_job(bytes="0 B"), ["--bytes 0 B", "one byte or more"]),
    "bytes and sweep": (_job(sweep="1KiB..1MiB"), ["--bytes and --sweep", "keep one"]),
    "sweep": (_job(bytes=None, sweep="1KiB-1MiB"), ["1KiB-1MiB", "1KiB..1GiB"]),
    "sweep backwards": (_job(bytes=None, sweep="1MiB..1KiB"), ["backwards"]),
    "plot of one size": (_job(plot="x.svg"), ["--plot", "--sweep"]),
    "plot that cannot be written": (
        _job(bytes=None, sweep="1KiB..1MiB", plot="no/such/x.svg"), ["--plot no/such/x.svg", "cannot be written"]
    ),
    "no fill": (_job(placement="scattered"), ["--placement scattered", "scattered:0.6"]),
    "full machine": (_job(placement="scattered:1"), ["below 1"]),
    "fill of random": (_job(placement="random:0.5"), ["only scattered has a fill"]),
    "seed": (_job(seed="-1"), ["--seed -1", "0 or more"]),
    "no room": (_job(placement="scattered:0.999"), ["needs 16 nodes", "10 of 9856 are free", "lower fill"]),
    "no nodes": (_job(nodes="0"), ["--nodes 0", "1 or more"]),
    "nodes of a generic machine": (_job(machine="dgx-h100", nodes=None), ["dgx-h100", "--nodes"]),
    "more nodes than there are": (_job(nodes="9999"), ["9,999", "9,856 nodes of frontier"]),
    "group": (_job(group="big"), ["--group big", "64@8"]),
    "group of one": (_job(group="1"), ["two devices or more"]),
    "group that does not tile": (_job(group="6"), ["6 devices", "128 devices"]),
    "group over parts of nodes": (_job(nodes="3", group="12"), ["groups of 12", "nodes of 8 devices"]),
    "dimensions": (
        _job(group="dat=3,tensor_x=0"), ["'dat' is no dimension", "mean 'data'", "tensor_x = '0'"]
    ),
    "degrees": (_job(group="data=16"), ["make 16 devices", "has 128"]),
    "unknown taper": (_job(machine="perlmutter", nodes="256"), ["perlmutter", "taper", "give --taper"]),
    "unknown links": (_job(machine="summit"), ["summit", "links between its devices", "unknown"]),
    "unknown library": (_job(machine="tpu-v4-pod"), ["tpu-v4-pod", "Google"]),
    "options before import": (
        [*_job(), "import", "run.txt"], ["--machine, --nodes, --collective, --bytes before import", "after it"]
    ),
    "unknown option": (_job(taperr="1"), ["--taperr", "towtank network --help"]),
}  # fmt: skip


def _refused(outcome, *phrases: str) -> None:
    assert outcome.code == 2 and outcome.out == ""
    assert outcome.err.count("towtank: ") == 1 and "Traceback" not in outcome.err
    for phrase in phrases:
        assert phrase in outcome.err, outcome.err


@pytest.mark.parametrize(("arguments", "phrases"), BAD.values(), ids=list(BAD))
def test_wrong_input(towtank, arguments, phrases) -> None:
    outcome = towtank(*arguments)
    assert outcome.code == 2
    _refused(outcome, *phrases)


HEADER = "\n".join(A100.read_text().splitlines()[:15])
ROW = "  1048576  262144  float  sum  -1  100.0  10.49  18.35  0  99.0  10.59  18.54  0"
FILES = {
    "missing": (None, [], ["cannot be read"]),
    "empty": ("", [], ["no rows of nccl-tests", "2 inputs", "--machine is missing"]),
    "one row": (f"{HEADER}\n{ROW}\n", ["--machine", "dgx-a100", "--calibrate", "a.yaml"], ["3 rows", "has 1"]),
    "other machine": (f"{HEADER}\n{ROW}\n", ["--machine", "frontier:nodes=2", "--collective", "all_gather"],
                      ["run of all_reduce", "leave it out"]),
    "too many ranks": (f"{HEADER}\n{ROW}\n", ["--machine", "perlmutter"], ["8 ranks on 1 node", "4 devices"]),
    "other nodes": (f"{HEADER}\n{ROW}\n", ["--machine", "dgx-a100", "--nodes", "2"], ["--nodes 2", "lie on 1"]),
    "no ranks": (ROW, ["--machine", "dgx-a100"], ["--nodes", "--collective"]),
    "name of the profile": (f"{HEADER}\n{ROW}\n", ["--machine", "dgx-a100", "--calibrate", "A.json"], ["NAME.yaml"]),
    "links by name": (f"{HEADER}\n{ROW}\n", ["--machine", "frontier", "--calibrate", "a.yaml"], ["frontier.yaml"]),
    "no such columns": (f"{HEADER}\n{ROW.replace('99.0', 'N/A')}\n", ["--machine", "dgx-a100", "--in-place"],
                        ["in-place", "leave --in-place out"]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "arguments", "phrases"), FILES.values(), ids=list(FILES))
def test_wrong_file(towtank, tmp_path, text, arguments, phrases) -> None:
    path = tmp_path / "run.txt"
    if text is not None:
        path.write_text(text)
    outcome = towtank("network", "import", str(path), *arguments)
    assert outcome.code == 2
    _refused(outcome, *phrases)


def test_in_place_columns_and_a_file_without_ranks(towtank, tmp_path) -> None:
    path = tmp_path / "run.txt"
    path.write_text(ROW)
    job = ["import", str(path), "--machine", "dgx-a100", "--nodes", "2", "--collective", "all_gather"]
    document = _answers(towtank, *job, "--in-place")
    assert (document["devices"], document["columns"]) == (16, "in-place")
    assert document["rows"][0]["measured_s"] == pytest.approx(99e-6)


def test_other_jobs_take_their_share(towtank) -> None:
    # two groups of 128 nodes joined by four cables: 1,024 rings of pairs across
    job = [
        "--machine",
        "frontier:nodes=256",
        "--collective",
        "all_gather",
        "--bytes",
        "64GiB",
        "--group",
        "2@1024",
    ]
    quiet, busy = (_one(towtank, *job, "--background", share) for share in ("0", "0.5"))
    assert quiet["limit"] == busy["limit"] == "global links"
    assert quiet["bus_bytes_per_s"] == pytest.approx(100e9 / 1024, rel=0.01)
    assert busy["bus_bytes_per_s"] == pytest.approx(50e9 / 1024, rel=0.01)
    # half of the interfaces: two rings on each of 25 GB/s x 0.4
    pairs = [*job[:-1], "2@8", "--background", "interface=0.5"]
    assert _one(towtank, *pairs)["bus_bytes_per_s"] == pytest.approx(2.5e9, rel=0.01)
    outcome = towtank("network", *job, "--background", "global=1")
    assert outcome.code == 2 and "must lie in [0, 1)" in outcome.err
    text = towtank("network", *job, "--background", "0.5").out
    assert "other jobs take 50 % of the links between groups of the network" in text


def test_minimal_and_adaptive_routing_as_a_share(towtank) -> None:
    # rings of pairs from each of 8 groups to the next but three: minimal routes have one pair of groups, four cables
    job = ["--machine", "frontier", "--nodes", "1024", "--collective", "all_gather", "--bytes", "64GiB",
           "--group", "2@4096"]  # fmt: skip
    minimal = _one(towtank, *job, "--detours", "0")
    assert minimal["bus_bytes_per_s"] == pytest.approx(100e9 / 1024, rel=0.01)
    assert minimal["limit"] == "global links"
    half, adaptive = (_one(towtank, *job, *more) for more in (["--detours", "0.5"], []))
    assert half["bus_bytes_per_s"] == pytest.approx(200e9 / 1024, rel=0.01)
    assert adaptive["bus_bytes_per_s"] > half["bus_bytes_per_s"]
    for arguments, message in (
        ([*job, "--detours", "1.5"], "must lie from 0"),
        (
            ["--machine", "selene", *job[2:], "--detours", "0.5", "--nodes", "64", "--group", "2@8"],
            "minimal routes only",
        ),
    ):
        outcome = towtank("network", *arguments)
        assert outcome.code == 2 and message in outcome.err, outcome
