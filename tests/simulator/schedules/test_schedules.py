from typing import get_args

import numpy as np
import pytest

from towtank.simulator.plan import ScheduleName
from towtank.simulator.schedules import (
    SCHEDULES,
    Phase,
    ScheduleError,
    alive_micro_batches,
    schedule,
    schedule_faults,
)

_SIZES = [(1, 1, 1), (1, 1, 4), (4, 1, 2), (4, 1, 3), (4, 1, 9), (2, 2, 2), (4, 3, 4), (4, 2, 12)]
SHAPES = [(kind, *size) for kind in SCHEDULES for size in _SIZES if not schedule_faults(kind, *size)]


def order(kind, stages, chunks, micro_batches, stage):
    """The slots of one stage in words: F0 is forward of micro-batch 0, F0b of its second chunk."""
    slots = schedule(kind, stages, chunks, micro_batches)
    return " ".join(
        "FB"[phase] + str(micro_batch) + ("abcdef"[chunk] if chunks > 1 else "")
        for phase, chunk, micro_batch in zip(
            slots.phase[stage], slots.chunk[stage], slots.micro_batch[stage], strict=True
        )
    )


def test_gpipe_runs_all_forward_passes_first():
    assert order("gpipe", 2, 1, 3, 0) == order("gpipe", 2, 1, 3, 1) == "F0 F1 F2 B0 B1 B2"


def test_1f1b_alternates_after_the_warm_up():
    assert order("1f1b", 3, 1, 4, 0) == "F0 F1 F2 B0 F3 B1 B2 B3"
    assert order("1f1b", 3, 1, 4, 1) == "F0 F1 B0 F2 B1 F3 B2 B3"
    assert order("1f1b", 3, 1, 4, 2) == "F0 B0 F1 B1 F2 B2 F3 B3"


def test_1f1b_with_fewer_micro_batches_than_stages():
    assert order("1f1b", 4, 1, 2, 0) == "F0 F1 B0 B1"
    assert order("1f1b", 4, 1, 2, 2) == "F0 F1 B0 B1"
    assert order("1f1b", 4, 1, 2, 3) == "F0 B0 F1 B1"


def test_interleaved_goes_by_groups_of_stages():
    # warm-up 2 (p - s - 1) + (v - 1) p: 4 on stage 0 and 2 on stage 1
    assert order("interleaved", 2, 2, 4, 0) == (
        "F0a F1a F0b F1b F2a B0b F3a B1b F2b B0a F3b B1a B2b B3b B2a B3a"
    )
    assert order("interleaved", 2, 2, 4, 1) == (
        "F0a F1a F0b B0b F1b B1b F2a B0a F3a B1a F2b B2b F3b B3b B2a B3a"
    )


@pytest.mark.parametrize(("kind", "stages", "chunks", "micro_batches"), SHAPES)
def test_each_pass_comes_once_and_backward_after_forward(kind, stages, chunks, micro_batches):
    slots = schedule(kind, stages, chunks, micro_batches)
    for stage in range(stages):
        passes = list(
            zip(slots.phase[stage].tolist(), slots.chunk[stage], slots.micro_batch[stage], strict=True)
        )
        assert len(set(passes)) == len(passes) == 2 * chunks * micro_batches
        place = {each: index for index, each in enumerate(passes)}
        for chunk in range(chunks):
            forward = [place[Phase.FORWARD, chunk, i] for i in range(micro_batches)]
            backward = [place[Phase.BACKWARD, chunk, i] for i in range(micro_batches)]
            assert forward == sorted(forward)
            assert backward == sorted(backward)
            assert all(f < b for f, b in zip(forward, backward, strict=True))


@pytest.mark.parametrize(("kind", "stages", "chunks", "micro_batches"), SHAPES)
def test_alive_micro_batches_are_those_counted_along_the_slots(kind, stages, chunks, micro_batches):
    slots = schedule(kind, stages, chunks, micro_batches)
    held = np.cumsum(np.where(slots.phase == Phase.FORWARD, 1, -1), axis=1).max(axis=1)
    np.testing.assert_array_equal(alive_micro_batches(kind, stages, chunks, micro_batches), held)


@pytest.mark.parametrize(("kind", "stages", "chunks", "micro_batches"), SHAPES)
def test_alive_micro_batches_by_formula(kind, stages, chunks, micro_batches):
    stage = np.arange(stages)
    expected = {
        "gpipe": np.full(stages, micro_batches),
        "1f1b": np.minimum(stages - stage, micro_batches),
        # warm-up plus the forward pass of the first turn
        "interleaved": np.minimum(
            2 * (stages - stage - 1) + (chunks - 1) * stages + 1, chunks * micro_batches
        ),
    }[kind]
    np.testing.assert_array_equal(alive_micro_batches(kind, stages, chunks, micro_batches), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("1f1B", 4, 1, 8),
            f"schedule must be one of {', '.join(SCHEDULES)}, got '1f1B'; did you mean '1f1b'?",
        ),
        (
            ("interleaved", 4, 2, 10),
            "interleaved needs micro-batches in whole groups of stages: 10 % 4 = 2; "
            "set the number of micro-batches to 8 or 12, or the schedule to 1f1b",
        ),
        (
            ("gpipe", 4, 2, 8),
            "gpipe runs 1 chunk a stage, got 2; set chunks = 1 or the schedule to interleaved",
        ),
        (
            ("1f1b", 4, 2, 8),
            "1f1b runs 1 chunk a stage, got 2; set chunks = 1 or the schedule to interleaved",
        ),
        (
            ("interleaved", 1, 1, 8),
            "interleaved needs at least 2 chunks a stage, got 1; set the schedule to 1f1b or chunks = 2; "
            "interleaved needs at least 2 stages, got 1; set the schedule to 1f1b with chunks = 1",
        ),
        (
            ("1f1b", 0, 1, -1),
            "the number of stages must be at least 1, got 0; "
            "the number of micro-batches must be at least 1, got -1",
        ),
    ],
)
def test_what_a_schedule_cannot_run(arguments, message):
    assert "; ".join(schedule_faults(*arguments)) == message
    with pytest.raises(ScheduleError) as raised:
        schedule(*arguments)
    assert str(raised.value) == message


@pytest.mark.parametrize("kind", get_args(ScheduleName))
def test_every_schedule_of_a_plan_is_there_and_tried(kind):
    assert set(SCHEDULES) == set(get_args(ScheduleName))
    assert len([shape for shape in SHAPES if shape[0] == kind]) >= 3
