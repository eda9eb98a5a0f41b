"""The passes of a schedule in an order in which each finds its input ready: made once, walked for many plans."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from towtank.simulator.schedules.slots import Slots

FIRST_FORWARD, LAST_BACKWARD = 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """Passes [passes] in topological order; each stage finds its own in the order in which it issues them."""

    stage: NDArray[np.int32]
    cell: NDArray[np.int32]
    """Place of (phase, stage, chunk) in an array of that shape."""
    source: NDArray[np.int32]
    """Place in the walk of the pass whose result is the input; -1 where none is sent."""
    direction: NDArray[np.int8]
    """0 or 1 where the result is sent on, forward or backward; -1 where not."""
    end: NDArray[np.int8]
    """FIRST_FORWARD, LAST_BACKWARD (of its chunk) or 0."""

    @property
    def num_passes(self) -> int:
        """Number of passes."""
        return len(self.stage)


def walk(slots: Slots, num_chunks: int, num_micro_batches: int) -> Walk:
    """Order the passes of a schedule. It must be one that runs (`schedules.schedule_faults`)."""
    stages, count = slots.phase.shape
    stage = np.repeat(np.arange(stages, dtype=np.int32), count)
    phase, chunk = slots.phase.ravel().astype(np.int64), slots.chunk.ravel().astype(np.int64)
    micro_batch = slots.micro_batch.ravel()
    shape = (2, stages, num_chunks, num_micro_batches)
    slot_of = np.empty(shape, np.int32)
    slot_of[phase, stage, chunk, micro_batch] = np.arange(len(stage), dtype=np.int32)
    source = np.full(shape, -1, np.int32)
    source[0, 1:] = slot_of[0, :-1]
    source[0, 0, 1:] = slot_of[0, -1, :-1]
    source[1, :-1] = slot_of[1, 1:]
    source[1, -1, :-1] = slot_of[1, 0, 1:]
    sends = np.ones(shape[:3], np.bool_)
    sends[0, -1, -1] = sends[1, 0, 0] = False
    from_slot = source[phase, stage, chunk, micro_batch]
    order = _order(from_slot, stages, count)
    if len(order) < len(stage):
        raise AssertionError("the stages of a schedule wait for each other")
    place = np.full(len(stage) + 1, -1, np.int32)
    place[order] = np.arange(len(stage), dtype=np.int32)
    end = np.where((phase == 0) & (micro_batch == 0), FIRST_FORWARD, 0)
    end[(phase == 1) & (micro_batch == num_micro_batches - 1)] = LAST_BACKWARD
    cell = (phase * stages + stage) * num_chunks + chunk
    direction = np.where(sends[phase, stage, chunk], phase, -1)
    return Walk(
        stage[order],
        cell[order].astype(np.int32),
        place[from_slot[order]],
        direction[order].astype(np.int8),
        end[order].astype(np.int8),
    )


@njit(cache=True)
def _order(source: NDArray[Any], stages: int, count: int) -> NDArray[Any]:
    """Slots in topological order: each stage runs on until it waits for another, which then wakes it."""
    order, done = np.empty(len(source), np.int32), np.zeros(len(source), np.bool_)
    cursor = np.arange(stages) * count
    waits = np.full(len(source), -1, np.int32)
    ready, num_ready, num_done = np.arange(stages)[::-1].copy(), stages, 0
    while num_ready:
        num_ready -= 1
        stage = ready[num_ready]
        while cursor[stage] < (stage + 1) * count:
            slot = cursor[stage]
            if source[slot] >= 0 and not done[source[slot]]:
                waits[source[slot]] = stage
                break
            order[num_done] = slot
            num_done += 1
            done[slot] = True
            cursor[stage] += 1
            if waits[slot] >= 0:
                ready[num_ready] = waits[slot]
                num_ready += 1
    return order[:num_done]
