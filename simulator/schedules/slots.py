"""What a pipeline schedule is: for each stage, the order of its forward and backward passes."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class ScheduleError(ValueError):
    """A schedule cannot run this pipeline: the message names the rule, the values and what to do."""


class Phase(IntEnum):
    """What a slot computes."""

    FORWARD = 0
    BACKWARD = 1


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    """Passes in the order in which each stage issues them; all arrays [stages, 2 * chunks * micro-batches].

    Chunk c of stage s holds the virtual stage c * stages + s of the model (the interleaved schedule has
    several chunks a stage, the others one). The arrays cannot be written: schedules are cached and shared.
    """

    phase: NDArray[np.int8]
    chunk: NDArray[np.int16]
    micro_batch: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class PassOrder:
    """Chunk and micro-batch of the k-th forward or backward pass of every stage; arrays [passes]."""

    chunk: NDArray[np.int16]
    micro_batch: NDArray[np.int32]


def one_chunk_order(num_micro_batches: int) -> PassOrder:
    """Micro-batches one after another through a single chunk."""
    return PassOrder(
        np.zeros(num_micro_batches, np.int16),
        np.arange(num_micro_batches, dtype=np.int32),
    )


def alternate(warm_up: NDArray[np.int64], forward: PassOrder, backward: PassOrder) -> Slots:
    """Slots of stages that issue `warm_up` [stages] forward passes, then one forward and one backward in turn
    while forward passes are left, then the remaining backward passes.

    With n passes in each direction and warm-up w, forward pass k is slot k + max(0, k - w) and backward
    pass k is slot min(w + 2 k + 1, n + k). All forward passes first is w = n.
    """
    passes = len(forward.chunk)
    k = np.arange(passes)
    w = warm_up[:, None]
    forward_slot = k + np.maximum(0, k - w)
    backward_slot = np.minimum(w + 2 * k + 1, passes + k)
    shape = (len(warm_up), 2 * passes)
    result = Slots(np.empty(shape, np.int8), np.empty(shape, np.int16), np.empty(shape, np.int32))
    row = np.arange(len(warm_up))[:, None]
    for phase, slot, order in (
        (Phase.FORWARD, forward_slot, forward),
        (Phase.BACKWARD, backward_slot, backward),
    ):
        result.phase[row, slot] = phase
        result.chunk[row, slot] = order.chunk
        result.micro_batch[row, slot] = order.micro_batch
    for array in (result.phase, result.chunk, result.micro_batch):
        array.setflags(write=False)
    return result
