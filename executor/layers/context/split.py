"""Which tokens a device holds where the plan splits sequences over the context group."""

from typing import Literal

import torch

ContextKind = Literal["ring", "all-to-all"]


def chunk_starts(sequence: int, degree: int, index: int, kind: ContextKind) -> tuple[int, ...]:
    """First position of each run of neighbouring tokens that one member of the context group holds.

    A ring gives member i the i-th and the i-th last of 2 x degree chunks, so that all have the same work under a
    causal mask ("zigzag"); by all-to-all each has one run.
    """
    if degree == 1:
        return (0,)
    if kind == "all-to-all":
        return (index * (sequence // degree),)
    chunk = sequence // (2 * degree)
    return index * chunk, (2 * degree - 1 - index) * chunk


def local_positions(sequence: int, degree: int, index: int, kind: ContextKind) -> torch.Tensor:
    """Global positions of the tokens of one member of the context group, in its order, int64."""
    starts = chunk_starts(sequence, degree, index, kind)
    length = sequence // degree // len(starts)
    return torch.cat([torch.arange(start, start + length) for start in starts])
