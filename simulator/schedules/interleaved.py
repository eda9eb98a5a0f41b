"""Interleaved 1F1B: each stage holds several chunks of the model (Narayanan et al. 2021, arXiv 2104.04473,
figure 4 bottom), in the order of NVIDIA/Megatron-LM:megatron/core/pipeline_parallel/schedules.py.

Micro-batches go in groups of p: a group passes chunk 0, then chunk 1, ... (backward: the last chunk first).
Stage s warms up with 2 (p - s - 1) + (v - 1) p forward passes. Releases before 2024 ran all forward passes
first where the number of micro-batches equals p; the present ones, and this file, do not.
"""

import numpy as np
from numpy.typing import NDArray

from towtank.simulator.schedules.slots import PassOrder, Slots, alternate


def faults(num_stages: int, num_chunks: int, num_micro_batches: int) -> list[str]:
    """Why the interleaved schedule cannot run this pipeline; empty if it can."""
    found = []
    if num_chunks < 2:
        found.append(
            f"interleaved needs at least 2 chunks a stage, got {num_chunks}; "
            "set the schedule to 1f1b or chunks = 2"
        )
    if num_stages < 2:
        found.append(
            f"interleaved needs at least 2 stages, got {num_stages}; set the schedule to 1f1b with chunks = 1"
        )
    elif num_micro_batches % num_stages:
        below = num_micro_batches // num_stages * num_stages
        nearest = f"{below} or {below + num_stages}" if below else f"{num_stages}"
        found.append(
            f"interleaved needs micro-batches in whole groups of stages: {num_micro_batches} % {num_stages} "
            f"= {num_micro_batches % num_stages}; set the number of micro-batches to {nearest}, "
            "or the schedule to 1f1b"
        )
    return found


def warm_up(num_stages: int, num_chunks: int, num_micro_batches: int) -> NDArray[np.int64]:
    """Forward passes of each stage that precede the alternation of forward and backward passes."""
    passes = 2 * (num_stages - 1 - np.arange(num_stages)) + (num_chunks - 1) * num_stages
    return np.minimum(passes, num_chunks * num_micro_batches)


def slots(num_stages: int, num_chunks: int, num_micro_batches: int) -> Slots:
    """Order of passes of every stage."""
    passes = num_chunks * num_micro_batches
    group, within = np.divmod(np.arange(passes), num_stages * num_chunks)
    chunk = (within // num_stages).astype(np.int16)
    micro_batch = (group * num_stages + within % num_stages).astype(np.int32)
    return alternate(
        warm_up(num_stages, num_chunks, num_micro_batches),
        PassOrder(chunk, micro_batch),
        PassOrder((num_chunks - 1 - chunk).astype(np.int16), micro_batch),
    )
