"""GPipe: all forward passes, then all backward passes (Huang et al. 2019, arXiv 1811.06965, figure 2c).

The backward passes run in the order of the forward ones, as PyTorch's ScheduleGPipe issues them; the paper's
figure has them reversed. With equal micro-batches both take the same time.
"""

import numpy as np
from numpy.typing import NDArray

from towtank.simulator.schedules.slots import Slots, alternate, one_chunk_order


def faults(num_stages: int, num_chunks: int, num_micro_batches: int) -> list[str]:
    """Why GPipe cannot run this pipeline; empty if it can."""
    if num_chunks != 1:
        return [
            f"gpipe runs 1 chunk a stage, got {num_chunks}; set chunks = 1 or the schedule to interleaved"
        ]
    return []


def warm_up(num_stages: int, num_chunks: int, num_micro_batches: int) -> NDArray[np.int64]:
    """Forward passes of each stage that precede the alternation of forward and backward passes: all."""
    return np.full(num_stages, num_micro_batches)


def slots(num_stages: int, num_chunks: int, num_micro_batches: int) -> Slots:
    """Order of passes of every stage."""
    order = one_chunk_order(num_micro_batches)
    return alternate(warm_up(num_stages, num_chunks, num_micro_batches), order, order)
