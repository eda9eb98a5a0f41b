"""`towtank network --matrix` and `--islands`: values by hand, the mapping, and whatever a user gets wrong."""

import json
from pathlib import Path

import pytest

ISLANDS = """\
islands:
  - {name: a, nodes: 4, technology: InfiniBand, bandwidth: 48 GB/s, latency: 5 us}
  - {name: b, nodes: 4, technology: RoCE, bandwidth: 24 GB/s, latency: 8 us}
between: {technology: Ethernet, bandwidth: 3 GB/s, latency: 30 us, total: 10 GB/s}
"""
LINKS = """\
from,to,gb_per_s,latency_us
n0,n1,5,10
n0,n2,20,10
n0,n3,20,10
n1,n2,20,10
n1,n3,20,10
n2,n3,5,10
"""


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "islands.yaml").write_text(ISLANDS)
    (tmp_path / "links.csv").write_text(LINKS)


def _document(towtank, *arguments: str) -> dict:
    outcome = towtank("network", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_a_matrix_by_hand_and_its_better_order(towtank) -> None:
    job = ["--matrix", "links.csv", "--collective", "all-reduce", "--bytes", "400MB"]
    found = _document(towtank, *job, "--map")
    # parts of 100 MB, six steps; n0 -> n1 at 5 GB/s, in the better order nothing below 20
    assert found["time_s"] == pytest.approx(6 * (20e-3 + 10e-6))
    assert found["bus_bytes_per_s"] == pytest.approx(1.5 * 400e6 / found["time_s"])
    assert found["limiting_link"] == {"from": "n0", "to": "n1", "bytes_per_s": 5e9, "latency_s": 1e-5}
    mapped = found["mapped"]
    assert mapped["time_s"] == pytest.approx(6 * (5e-3 + 10e-6))
    assert mapped["gain"] == pytest.approx(20.01 / 5.01)
    assert (mapped["order"], mapped["search"]) == (["n0", "n2", "n1", "n3"], "all orders")
    assert _document(towtank, *job)["mapped"] is None
    text = towtank("network", *job, "--map").out
    for phrase in ("all_reduce of 381.5 MiB over 4 of 4 ranks of links.csv: 120.1 ms", "1 group of 4, ring",
                   "link from n0 to n1: 5.000 GB/s, latency 10.00 us",
                   "30.06 ms, 3.99 times as fast (all orders)", "n0, n2, n1, n3"):  # fmt: skip
        assert phrase in text


def test_data_groups_go_inside_islands(towtank) -> None:
    job = ["--islands", "islands.yaml", "--collective", "all_reduce", "--bytes", "1GB", "--group", "4@2"]
    found = _document(towtank, *job, "--map")
    # both rings cross both ways: 3 GB/s a node, 10 / 2 GB/s of the island
    assert found["time_s"] == pytest.approx(6 * (250e6 / 3e9 + 30e-6))
    assert found["group"] == {"groups": 2, "size": 4, "stride": 2}
    assert found["mapped"]["time_s"] == pytest.approx(6 * (250e6 / 24e9 + 8e-6))
    order = found["mapped"]["order"]
    assert {name[0] for name in order[::2]} != {name[0] for name in order[1::2]}
    assert len({name[0] for name in order[::2]}) == 1
    # a plan whose data groups are neighbours lies well as it is
    job[-1] = "data=4,pipeline=2"
    text = towtank("network", *job, "--map").out
    assert "no faster order found than the given one (greedy and 2-opt, seed 0)" in text
    assert "Ethernet, 3.000 GB/s a node, latency 30.00 us; 10.00 GB/s for an island as a whole" in text


def test_the_example_of_the_readme_is_true(towtank) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    command = "towtank network --islands islands.yaml --collective all_reduce --bytes 1GiB --group 4@2 --map"
    shown = readme.split(f"    {command}\n\n")[1].split("\n\n`")[0]
    printed = towtank(*command.split()[1:]).out
    assert shown.split() == printed.split()


SIZED = ["--collective", "all_reduce", "--bytes", "1MiB"]
BAD = {
    "all at once": (
        ["--matrix", "none.csv", "--machine", "frontier", "--nodes", "4", "--collective", "alreduce", "--seed", "-1"],
        ["5 inputs", "--machine, --nodes concern a machine of ours, but --matrix", "none.csv: cannot be read",
         "mean 'all_reduce'", "no size is given", "--seed -1"],
    ),
    "both": ([*SIZED, "--matrix", "links.csv", "--islands", "islands.yaml"], ["keep one of the two"]),
    "map without links": ([*SIZED, "--machine", "frontier", "--map"], ["--map needs links", "--matrix FILE"]),
    "sweep": (
        ["--islands", "islands.yaml", *SIZED, "--sweep", "1KiB..1MiB"], ["--sweep concerns", "but --islands"]
    ),
    "group": ([*SIZED, "--matrix", "links.csv", "--group", "3"], ["groups of 3", "the 4 devices"]),
    "file of the other kind": ([*SIZED, "--matrix", "islands.yaml"], ["islands.yaml", "line 1", "from,to,gb_per_s"]),
    "csv as islands": ([*SIZED, "--islands", "links.csv"], ["links.csv"]),
    "before import": (["--matrix", "links.csv", "--map", "import", "x.txt"], ["--matrix, --map before import"]),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "phrases"), BAD.values(), ids=list(BAD))
def test_wrong_input(towtank, arguments, phrases) -> None:
    outcome = towtank("network", *arguments)
    assert outcome.code == 2 and outcome.out == ""
    assert outcome.err.count("towtank: ") == 1 and "Traceback" not in outcome.err
    for phrase in phrases:
        assert phrase in outcome.err, outcome.err
