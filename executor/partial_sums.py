"""Sums over x of gradients of which each member has a part: of norms that see a part of the tokens or of the heads,
and of heads of keys that neighbours share."""

from collections.abc import Iterable
from typing import NamedTuple

import torch

from towtank.executor import collectives
from towtank.executor.mesh import Group
from towtank.executor.recorder import GRADIENT_REDUCTION, operation
from towtank.executor.weights import Part, Weight
from towtank.simulator.operations import Phase

NAME = "gradients.partial.all-reduce"


class _Slot(NamedTuple):
    rows: torch.Tensor
    """Of the gradient."""
    index: int
    """Which of the `number` sets of neighbours this device is in."""
    number: int


def _slot(weight: Weight, part: Part, x: Group) -> _Slot:
    rows = weight.gradient[part.first : part.first + part.box.size[0]]
    return _Slot(rows, x.index // part.partial, x.size // part.partial)


def sum_partials(weights: Iterable[Weight], x: Group) -> None:
    """Complete partial gradients of weights, all in one message over the group x.

    Each set of neighbours that shares elements has a place of its own in the message. Every member calls this for the
    same weights in the same order.
    """
    slots = [_slot(weight, part, x) for weight in weights for part in weight.parts if part.partial > 1]
    if not slots:
        return
    with operation(NAME, GRADIENT_REDUCTION, Phase.BACKWARD):
        buffer = slots[0].rows.new_zeros(sum(slot.rows.numel() * slot.number for slot in slots))
        places = buffer.split([slot.rows.numel() * slot.number for slot in slots])
        own = [place.chunk(slot.number)[slot.index] for slot, place in zip(slots, places, strict=True)]
        for slot, place in zip(slots, own, strict=True):
            place.copy_(slot.rows.reshape(-1))
        collectives.start_all_reduce(buffer, x, NAME, Phase.BACKWARD, GRADIENT_REDUCTION).wait()
        for slot, place in zip(slots, own, strict=True):
            slot.rows.copy_(place.view(slot.rows.shape))
