"""1F1B: one forward, one backward in turn after a warm-up (PipeDream-Flush; Narayanan et al. 2021,
arXiv 2104.04473, figure 4 top).

Stage s of p warms up with p - s - 1 forward passes, just enough that the first backward pass finds its way
back without a gap. As long as GPipe, but a stage holds at most p - s micro-batches.
"""

import numpy as np
from numpy.typing import NDArray

from towtank.simulator.schedules.slots import Slots, alternate, one_chunk_order


def faults(num_stages: int, num_chunks: int, num_micro_batches: int) -> list[str]:
    """Why 1F1B cannot run this pipeline; empty if it can."""
    if num_chunks != 1:
        return [f"1f1b runs 1 chunk a stage, got {num_chunks}; set chunks = 1 or the schedule to interleaved"]
    return []


def warm_up(num_stages: int, num_chunks: int, num_micro_batches: int) -> NDArray[np.int64]:
    """Forward passes of each stage that precede the alternation of forward and backward passes."""
    return np.minimum(num_stages - 1 - np.arange(num_stages), num_micro_batches)


def slots(num_stages: int, num_chunks: int, num_micro_batches: int) -> Slots:
    """Order of passes of every stage."""
    order = one_chunk_order(num_micro_batches)
    return alternate(warm_up(num_stages, num_chunks, num_micro_batches), order, order)
