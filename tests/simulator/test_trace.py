"""The trace is read back and compared with the step that it shows."""

import gzip
import json
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest

import towtank
from towtank.simulator.block_graph import STREAMS
from towtank.simulator.operations import Stream
from towtank.simulator.schedules.roles import Role
from towtank.simulator.trace import PASSES, write_trace

NS = 1e-9
COMPUTE = STREAMS.index(Stream.COMPUTE)

JOBS = {
    "pipeline, blocking sends": (
        "gpt-5b", "selene", "megatron-2021",
        {"tensor_x": 2, "pipeline": 4, "data": 2, "global_batch": 16, "recompute": "full", "precision": "fp16"},
    ),
    "interleaved": (
        "gpt-5b", "selene", "megatron-2021",
        {"tensor_x": 2, "pipeline": 2, "virtual_stages": 3, "global_batch": 8, "precision": "fp16"},
    ),
    "unrolled for ZeRO 1": (
        "llama3-8b", "dgx-h100:nodes=8", "megatron-core",
        {"pipeline": 2, "data": 8, "zero_stage": 1, "micro_batch": 1, "global_batch": 64},
    ),
    "unrolled and late": (  # gathers that take longer than the layers between them: pauses inside the pass
        "llama3-8b", "dgx-h100:nodes=64", "megatron-core",
        {"data": 512, "zero_stage": 1, "micro_batch": 1, "global_batch": 2048, "sequence": 256},
    ),
    "FSDP": ("llama3-8b", "dgx-h100:nodes=4", "torchtitan", {"data": 32, "zero_stage": 3, "global_batch": 128}),
    "grid": (
        "gpt-5b", "perlmutter", "axonn",
        {"tensor_x": 2, "tensor_y": 2, "tensor_z": 4, "data": 2, "global_batch": 64, "recompute": "full"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=JOBS.values(), ids=list(JOBS))
def prediction(request):
    model, machine, stack, plan = request.param
    return towtank.predict(model, machine, towtank.Plan(**plan), stack=stack)


def _read(path):
    content = path.read_bytes()
    return json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)


def _nanoseconds(microseconds: float) -> int:
    return round(1000 * microseconds)


def _tracks(document):
    """Slices (start, finish, event) in whole nanoseconds by (stage, name of the track), sorted."""
    names = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in document["traceEvents"]
        if event["ph"] == "M" and event["name"] == "thread_name"
    }
    tracks = defaultdict(list)
    for event in document["traceEvents"]:
        if event["ph"] == "X":
            start = _nanoseconds(event["ts"])
            finish = start + _nanoseconds(event["dur"])
            tracks[event["pid"], names[event["pid"], event["tid"]]].append((start, finish, event))
    return {key: sorted(slices, key=lambda one: one[:2]) for key, slices in tracks.items()}


@pytest.fixture(scope="module")
def document(prediction, tmp_path_factory):
    path = tmp_path_factory.mktemp("trace") / "step.json"
    write_trace(prediction, path)
    return _read(path)


def test_slices_of_one_track_never_overlap(document) -> None:
    for key, slices in _tracks(document).items():
        for before, after in pairwise(slices):
            assert before[1] <= after[0], (key, before, after)


def test_trace_ends_at_the_step_time(prediction, document) -> None:
    ends = [slices[-1][1] for slices in _tracks(document).values()]
    assert max(ends) * NS == pytest.approx(prediction.step_time_s, abs=1.5 * NS)
    assert document["otherData"]["step_time_s"] == prediction.step_time_s
    assert document["otherData"]["operations"] == "every micro-batch"


def test_passes_take_the_time_of_their_tasks(prediction, document) -> None:
    tasks, timeline = prediction.step.program.pipeline, prediction.step.timeline
    tracks = _tracks(document)
    for stage in range(prediction.plan.pipeline):
        slices = tracks[stage, PASSES]
        mine = (tasks.stage == stage) & (tasks.structure.stream // tasks.num_stages == 0)
        busy_s = float((timeline.finish_s - timeline.start_s)[mine].sum())
        assert sum(finish - start for start, finish, _ in slices) * NS == pytest.approx(
            busy_s, abs=len(slices) * NS
        )
        assert len(slices) == int(mine.sum())


def _busy(block, begin_s: float, end_s: float) -> float:
    """Seconds of a window of a block in which its compute stream works."""
    compute = block.graph.structure.stream == COMPUTE
    start = np.clip(block.timeline.start_s[compute], begin_s, end_s)
    finish = np.clip(block.timeline.finish_s[compute], begin_s, end_s)
    return float((finish - start).sum())


def test_compute_slices_add_up_to_the_busy_time(prediction, document) -> None:
    """Blocks say how long compute is busy in a pass; a pass may be stretched, or cut into layers and paused."""
    step, tracks = prediction.step, _tracks(document)
    tasks, timeline = step.program.pipeline, step.timeline
    busy_s = defaultdict(float)
    for task in np.flatnonzero(tasks.role <= Role.BACKWARD).tolist():
        role, stage, chunk, layer = (
            int(part[task]) for part in (tasks.role, tasks.stage, tasks.chunk, tasks.layer)
        )
        block = (step.forward if role == Role.FORWARD else step.backward)[stage][chunk]
        number = step.program.chunks[stage][chunk].num_layers if layer >= 0 else 1
        nth = 0 if layer < 0 else layer if role == Role.FORWARD else number - 1 - layer
        share_s = block.makespan_s / number
        stretch = (timeline.finish_s[task] - timeline.start_s[task]) / share_s
        busy_s[stage] += stretch * _busy(block, nth * share_s, (nth + 1) * share_s)
    for stage in range(prediction.plan.pipeline):
        slices = tracks[stage, "compute"]
        spent_s = sum(finish - start for start, finish, _ in slices) * NS
        assert spent_s == pytest.approx(busy_s[stage], abs=2 * len(slices) * NS)


def test_operations_lie_inside_their_pass(prediction, document) -> None:
    tracks = _tracks(document)
    for stage in range(prediction.plan.pipeline):
        spans = {}
        for start, finish, event in tracks[stage, PASSES]:
            if event["args"]["phase"] in ("forward", "backward"):
                key = event["args"]["phase"], event["args"]["micro-batch"]
                old = spans.get(key, (start, finish))
                spans[key] = (min(start, old[0]), max(finish, old[1]))
        for start, finish, event in tracks[stage, "compute"]:
            arguments = event["args"]
            phase = "forward" if arguments["phase"] == "forward" else "backward"
            begin, end = spans[phase, arguments["micro-batch"]]
            assert begin <= start < finish <= end


def test_memory_counter_peaks_at_the_activations_and_returns_to_zero(prediction, document) -> None:
    held = defaultdict(list)
    for event in document["traceEvents"]:
        if event["ph"] == "C":
            held[event["pid"]].append(event["args"]["bytes"])
    for stage in prediction.memory:
        counter = held[stage.stage]
        assert max(counter) == pytest.approx(stage.parts["activations"], abs=1)
        assert counter[-1] == 0


def test_flop_of_the_slices(prediction, document) -> None:
    """Slices of one device carry the FLOP of that device; where passes are cut into layers, an operation at a cut
    appears in both parts and may count twice."""
    flop = sum(e["args"].get("flop", 0.0) for e in document["traceEvents"] if e["ph"] == "X")
    expected = sum(
        operation.flop
        for blocks in (prediction.step.program.forward, prediction.step.program.backward)
        for chunks in blocks
        for block in chunks
        for _, operation in block.operations()
    )
    expected *= prediction.plan.num_micro_batches
    if "data" in {key[1] for key in _tracks(document)}:
        assert expected * (1 - 1e-9) <= flop <= 1.5 * expected
    else:
        assert flop == pytest.approx(expected)


def test_names_and_arguments(document) -> None:
    stages = {
        e["args"]["name"] for e in document["traceEvents"] if e["ph"] == "M" and e["name"] == "process_name"
    }
    assert stages == {f"stage {number}" for number in range(len(stages))}
    qkv = next(e for e in document["traceEvents"] if e["name"] == "layer.0.attention.qkv.forward")
    assert qkv["args"]["kind"] == "matmul"
    assert qkv["args"]["flop"] > 0
    assert {"phase", "micro-batch"} <= qkv["args"].keys()
    sent = [e for e in document["traceEvents"] if e["ph"] == "X" and e["name"].startswith("send-")]
    assert all(e["args"]["bytes"] > 0 for e in sent)


def test_beyond_the_limit_only_the_ends_are_shown_in_detail(prediction, tmp_path) -> None:
    path = tmp_path / "step.json.gz"
    write_trace(prediction, path, limit=100)
    document = _read(path)
    assert document["otherData"]["operations"] == "first and last micro-batch of each chunk; others as passes"
    shown = {e["args"]["micro-batch"] for e in document["traceEvents"] if e.get("cat") == "matmul"}
    assert shown == {0, prediction.plan.num_micro_batches - 1}
    passes = {e["args"].get("micro-batch") for e in document["traceEvents"] if e.get("cat") == "pipeline"}
    assert passes >= set(range(prediction.plan.num_micro_batches))


def test_equal_predictions_give_equal_files(prediction, tmp_path) -> None:
    first, second = tmp_path / "a.json.gz", tmp_path / "b.json.gz"
    write_trace(prediction, first)
    write_trace(prediction, second)
    assert first.read_bytes() == second.read_bytes()


def test_rounding_keeps_the_order() -> None:
    from towtank.simulator.trace import _nanoseconds

    times = np.cumsum(np.full(1000, 0.3e-9))
    assert (np.diff(_nanoseconds(times)) >= 0).all()
