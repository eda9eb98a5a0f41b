"""Traces of measured steps."""

import gzip
import json
from pathlib import Path

import pytest

from towtank.executor.measured.spans import Key, Slice
from towtank.executor.measured.trace import RankTrace, write_measured_trace
from towtank.simulator.operations import Phase

MATMUL = Key("layer.0.mlp.up.forward", "matmul", Phase.FORWARD)
GATHER = Key("layer.1.mlp.up.weight.all-gather", "all-gather weight_shard", Phase.FORWARD)


@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz"])
def test_ranks_are_processes_and_hidden_work_has_a_track_of_its_own(tmp_path: Path, name: str) -> None:
    ranks = [
        RankTrace(0, 4, 100.0, 1.0, (Slice(MATMUL, 100.25, 100.5), Slice(GATHER, 100.125, 100.75, True))),
        RankTrace(1, 4, 100.5, 1.0, (Slice(MATMUL, 100.75, 101.0),)),
        RankTrace(2, 4, 7.0, 1.0, (Slice(MATMUL, 7.25, 7.5),)),  # another node, another clock
    ]
    write_measured_trace(ranks, tmp_path / name, {"model": "tiny"})
    raw = (tmp_path / name).read_bytes()
    document = json.loads(gzip.decompress(raw) if name.endswith("gz") else raw)
    assert document["otherData"] == {"origin": "measured", "model": "tiny"}
    events = document["traceEvents"]
    tracks = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    pieces = [
        (e["pid"], tracks[e["pid"], e["tid"]], e["name"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"
    ]
    assert pieces == [
        (0, "compute", MATMUL.name, 250_000, 250_000),
        (0, "beside compute: all-gather weight_shard", GATHER.name, 125_000, 625_000),
        (1, "compute", MATMUL.name, 750_000, 250_000),
        (2, "compute", MATMUL.name, 250_000, 250_000),
    ]
