"""Sums over x of gradients of which each member has a part: of norms that see a part of the tokens or of the heads,
and of heads of keys that neighbours share."""

from collections.abc import Iterable
from typing import NamedTuple

import torch

from towtank.executor.distributed import collectives
from towtank.executor.distributed.mesh import Group
from towtank.executor.measured.recorder import GRADIENT_REDUCTION, operation
from towtank.simulator.operations import Phase

NAME = "neighbours.gradient-reduce"


class _Slot(NamedTuple):
    rows: torch.Tensor
    """Of the gradient."""
    which: int
    """Set of neighbours that this device is in, of `sets`."""
    sets: int


def sum_partials(parts: Iterable[tuple[torch.Tensor, int]], x: Group) -> None:
    """Complete partial gradients, in place and all in one message over the group x.

    Each set of neighbours that shares elements has a place of its own in the message. Every member calls this for the
    same parts in the same order.

    Args:
        parts: gradients, and how many neighbours along x have each a part of them; those of 1 are complete.
        x: the group.
    """
    slots = [_Slot(rows, x.index // partial, x.size // partial) for rows, partial in parts if partial > 1]
    if not slots:
        return
    with operation(NAME, GRADIENT_REDUCTION, Phase.BACKWARD):
        widths = [slot.rows.numel() * slot.sets for slot in slots]
        buffer = slots[0].rows.new_zeros(sum(widths))
        own, start = [], 0
        for slot, width in zip(slots, widths, strict=True):
            own.append(buffer[start : start + width].view(slot.sets, *slot.rows.shape)[slot.which])
            start += width
        for slot, place in zip(slots, own, strict=True):
            place.copy_(slot.rows)
    collectives.start_all_reduce(buffer, x, NAME, Phase.BACKWARD, GRADIENT_REDUCTION).wait()
    with operation(NAME, GRADIENT_REDUCTION, Phase.BACKWARD):
        for slot, place in zip(slots, own, strict=True):
            slot.rows.copy_(place)
