"""Pipeline schedules: one file each, all with the functions `faults`, `warm_up` and `slots`."""

from functools import lru_cache
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from towtank.hardware_profiles.nearest import did_you_mean
from towtank.simulator.schedules import gpipe, interleaved, one_forward_one_backward
from towtank.simulator.schedules.slots import Phase, ScheduleError, Slots

__all__ = [
    "SCHEDULES",
    "Phase",
    "ScheduleError",
    "Slots",
    "alive_micro_batches",
    "schedule",
    "schedule_faults",
]

SCHEDULES: dict[str, ModuleType] = {
    "gpipe": gpipe,
    "1f1b": one_forward_one_backward,
    "interleaved": interleaved,
}


def schedule_faults(kind: str, num_stages: int, num_chunks: int, num_micro_batches: int) -> list[str]:
    """Why a schedule cannot run a pipeline, in sentences that say what to do; empty if it can."""
    if kind not in SCHEDULES:
        return [
            f"schedule must be one of {', '.join(SCHEDULES)}, got {kind!r}{did_you_mean(kind, SCHEDULES)}"
        ]
    sizes = {"stages": num_stages, "chunks": num_chunks, "micro-batches": num_micro_batches}
    found = [
        f"the number of {name} must be at least 1, got {size}" for name, size in sizes.items() if size < 1
    ]
    if not found:
        found.extend(SCHEDULES[kind].faults(num_stages, num_chunks, num_micro_batches))
    return found


@lru_cache(maxsize=64)
def schedule(kind: str, num_stages: int, num_chunks: int, num_micro_batches: int) -> Slots:
    """Order of the passes of every stage under schedule `kind`; raises ScheduleError with all faults."""
    found = schedule_faults(kind, num_stages, num_chunks, num_micro_batches)
    if found:
        raise ScheduleError("; ".join(found))
    slots: Slots = SCHEDULES[kind].slots(num_stages, num_chunks, num_micro_batches)
    return slots


@lru_cache(maxsize=1024)
def alive_micro_batches(
    kind: str, num_stages: int, num_chunks: int, num_micro_batches: int
) -> NDArray[np.int64]:
    """Largest number of activations of one chunk and one micro-batch that each stage [stages] holds at once.

    A forward pass stores one, the backward pass of the same frees it when it ends: after w passes of warm-up one
    more is held while forward and backward passes alternate, never more than there are.
    Raises ScheduleError like `schedule`.
    """
    found = schedule_faults(kind, num_stages, num_chunks, num_micro_batches)
    if found:
        raise ScheduleError("; ".join(found))
    warm_up = SCHEDULES[kind].warm_up(num_stages, num_chunks, num_micro_batches)
    peak: NDArray[np.int64] = np.minimum(warm_up + 1, num_chunks * num_micro_batches)
    peak.setflags(write=False)
    return peak
