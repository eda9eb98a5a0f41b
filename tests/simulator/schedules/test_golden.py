"""Golden schedules: tests/golden/schedules/*.txt show each schedule with its makespan worked out by hand.

After a wanted change, write them anew with

    TOWTANK_ACCEPT=1 pytest tests/simulator/schedules/test_golden.py

and read the difference.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from towtank.simulator.engines.compiled import evaluate
from towtank.simulator.engines.simpy_engine import simulate
from towtank.simulator.graph import TaskGraph
from towtank.simulator.schedules import alive_micro_batches
from towtank.simulator.schedules.expand import pipeline_structure
from towtank.simulator.schedules.roles import Role

GOLDEN = Path(__file__).parents[2] / "golden" / "schedules"

CASES = {
    "gpipe": (
        (4, 1, 4),
        21,
        "Stage 3 receives micro-batch 0 after 3 forward passes, 3 x 1 s = 3 s.\n"
        "It runs 4 forward passes, 4 s, and 4 backward passes, 4 x 2 s = 8 s.\n"
        "The last gradient passes 3 more stages, 3 x 2 s = 6 s.\n"
        "3 + 4 + 8 + 6 = 21 s, of which (p - 1)(f + b) = 9 s are bubble.",
    ),
    "1f1b": (
        (4, 1, 8),
        33,
        "Stage 3 receives micro-batch 0 after 3 forward passes, 3 x 1 s = 3 s.\n"
        "It runs 8 turns of forward and backward without a gap, 8 x 3 s = 24 s.\n"
        "The last gradient passes 3 more stages, 3 x 2 s = 6 s.\n"
        "3 + 24 + 6 = 33 s, of which (p - 1)(f + b) = 9 s are bubble.",
    ),
    "interleaved": (
        (2, 2, 4),
        27,
        "Stage 1 receives micro-batch 0 after 1 forward pass of a chunk, 1 s.\n"
        "It runs 4 x 2 forward and backward passes of a chunk without a gap, 8 x 3 s = 24 s.\n"
        "The last gradient passes 1 more chunk, 2 s.\n"
        "1 + 24 + 2 = 27 s, of which (p - 1)(f + b) = 3 s are bubble.\n"
        "1f1b with the same layers in one chunk (f = 2 s, b = 4 s) has (p - 1)(f + b) = 6 s.",
    ),
}


def page(kind: str) -> str:
    """One golden file: the hand calculation, what the engines say, and the schedule second by second."""
    (stages, chunks, micro_batches), by_hand_s, reason = CASES[kind]
    pipeline = pipeline_structure(kind, stages, chunks, micro_batches)
    seconds = {Role.FORWARD: 1.0, Role.BACKWARD: 2.0}
    graph = TaskGraph(pipeline.structure, np.array([seconds.get(Role(role), 0.0) for role in pipeline.role]))
    timeline = evaluate(graph, jit=False)
    rows = [
        f"{kind}: {stages} stages, chunks a stage: {chunks}, {micro_batches} micro-batches",
        "forward 1 s, backward 2 s a chunk; sends take no time",
        "",
        reason,
        "",
        f"by hand        {by_hand_s} s",
        f"compiled       {timeline.makespan_s:g} s",
        f"SimPy          {simulate(graph).makespan_s:g} s",
        f"alive at most  {alive_micro_batches(kind, stages, chunks, micro_batches).tolist()} by stage",
        "",
        "F2: forward of micro-batch 2, B2: its backward, --: the second second of it, .: idle"
        + ("; a, b: chunk" if chunks > 1 else ""),
        "",
        *gantt(pipeline, timeline, 4 if chunks > 1 else 3),
    ]
    return "\n".join(rows) + "\n"


def gantt(pipeline, timeline, width):
    length = round(timeline.makespan_s)
    yield ("second  " + "".join(str(second).ljust(width) for second in range(length))).rstrip()
    for stage in range(pipeline.num_stages):
        cells = ["."] * length
        for task in np.flatnonzero((pipeline.stage == stage) & (pipeline.role <= Role.BACKWARD)):
            chunk = "ab"[pipeline.chunk[task]] if pipeline.num_chunks > 1 else ""
            start = round(timeline.start_s[task])
            cells[start] = "FB"[pipeline.role[task]] + str(pipeline.micro_batch[task]) + chunk
            if pipeline.role[task] == Role.BACKWARD:
                cells[start + 1] = "--"
        yield (f"stage {stage} " + "".join(cell.ljust(width) for cell in cells)).rstrip()


@pytest.mark.parametrize("kind", CASES)
def test_schedule_is_as_accepted(kind):
    path = GOLDEN / f"{kind}.txt"
    text = page(kind)
    if os.environ.get("TOWTANK_ACCEPT") == "1":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    by_hand_s = CASES[kind][1]
    assert f"compiled       {by_hand_s} s" in text
    assert f"SimPy          {by_hand_s} s" in text
