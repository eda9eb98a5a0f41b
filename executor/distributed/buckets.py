"""Buckets: weights whose gradients are summed, updated and gathered together, in flat arrays.

A bucket holds the weights of one layer (of the whole stage, where nothing overlaps) that share groups. Its flat
arrays are the sum of gradients, master weights, both moments and weights in use, each with the same place for a
weight. Under ZeRO 1 and 2 a device keeps of each weight an even number of rows, padded where they do not divide;
otherwise all of its rows. So every weight's states are boxes, and one call updates them all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from towtank.executor.distributed.boxes import Box
from towtank.executor.distributed.mesh import Group, Mesh
from towtank.executor.distributed.weights import Weight
from towtank.simulator.plan import Plan


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where the states of one weight lie in the flat arrays of its bucket."""

    weight: Weight
    first_row: int
    """First row, of the weight at rest, whose states this device keeps."""
    rows: int
    """Rows in the arrays, with padding."""
    start: int
    """First element in the arrays."""

    @property
    def row_elements(self) -> int:
        """Elements of one row."""
        elements = 1
        for size in self.weight.inner:
            elements *= size
        return elements

    @property
    def end(self) -> int:
        """Element after the last one."""
        return self.start + self.rows * self.row_elements

    def of(self, flat: torch.Tensor) -> torch.Tensor:
        """View of one flat array, [rows, ...]."""
        return flat[self.start : self.end].view(self.rows, *self.weight.inner)


@dataclass(frozen=True, slots=True, eq=False)
class StatePart:
    """Rows of states that lie in one box of a logical tensor."""

    box: Box
    place: Place
    first: int
    """First row in the place."""
    copies: int
    """Devices of the run that keep states of these elements."""
    partial: int
    """Neighbours along x that have each a part of their gradient."""

    def of(self, flat: torch.Tensor) -> torch.Tensor:
        """View of one flat array, of the shape of the box."""
        return self.place.of(flat)[self.first : self.first + self.box.size[0]]


@dataclass(frozen=True, slots=True)
class Summing:
    """How gradients of a bucket are summed at the end of a step."""

    before: tuple[Group, ...]
    """All-reduced over these first."""
    scatter: Group | None
    """Then reduce-scattered over the group that shards states (ZeRO 1 and 2)."""
    after: tuple[Group, ...]
    """Then the part that is left is all-reduced over these."""


def summing(plan: Plan, mesh: Mesh, reduce_over: Sequence[str]) -> Summing:
    """Work out the collectives for weights that are to be summed over groups.

    ZeRO 1 and 2 shard states over `state_shard` and hold replicas over `replicate` (HSDP), which together are the
    group "data"; those of routed experts over `expert_replicate`.
    """
    names = tuple(name for name in reduce_over if mesh.group(name).size > 1)
    sharded = {"data": ("state_shard", "replicate"), "expert_replicate": ("expert_replicate", None)}
    if plan.zero_stage in (1, 2):
        for position, name in enumerate(names):
            if name in sharded:
                over, rest = sharded[name]
                after = ((rest,) if rest else ()) + names[position + 1 :]
                if mesh.group(over).size == 1:  # replicas only
                    return Summing(_groups(mesh, names[:position] + after), None, ())
                return Summing(_groups(mesh, names[:position]), mesh.group(over), _groups(mesh, after))
    return Summing(_groups(mesh, names), None, ())


def _groups(mesh: Mesh, names: Sequence[str]) -> tuple[Group, ...]:
    return tuple(mesh.group(name) for name in names if mesh.group(name).size > 1)


class Bucket:
    """Weights of one place of the model that are summed over the same groups."""

    def __init__(self, name: str, weights: Sequence[Weight], how: Summing) -> None:
        """Lay the weights out; those that decay come first."""
        self.name = name
        self.how = how
        self.shards = how.scatter.size if how.scatter else 1
        self.weights = frozenset(weights)
        self.model_places = frozenset(place_in_model(weight) for weight in weights)
        index = how.scatter.index if how.scatter else 0
        self.places: list[Place] = []
        start = 0
        for weight in sorted(weights, key=lambda one: not one.decays):
            rows = -(-weight.shard_rows // self.shards)
            self.places.append(Place(weight, index * rows, rows, start))
            start = self.places[-1].end
        self.elements = start
        """Of each flat array."""
        self.decaying = max((one.end for one in self.places if one.weight.decays), default=0)
        """Elements, from the beginning, to which weight decay applies."""
        self.parts = list(self._parts())

    def _parts(self) -> Iterator[StatePart]:
        for place in self.places:
            last = place.first_row + place.rows
            for part in place.weight.parts:
                first, end = max(part.first, place.first_row), min(part.first + part.box.size[0], last)
                if first < end:
                    box = part.box.rows(first - part.first, end - part.first)
                    yield StatePart(
                        box, place, first - place.first_row, part.copies // self.shards, part.partial
                    )

    def own_rows(self, place: Place) -> slice:
        """Rows of the weight at rest (without padding) whose states this device keeps."""
        rows = place.weight.value.shape[0]
        return slice(min(place.first_row, rows), min(place.first_row + place.rows, rows))

    def spread(self, arrays: dict[Weight, torch.Tensor]) -> torch.Tensor:
        """One array [shards, elements] of the rows at rest of all weights: row i is what shard i keeps."""
        first = arrays[self.places[0].weight]
        whole = torch.empty((self.shards, self.elements), dtype=first.dtype, device=first.device)
        for place in self.places:
            rows, inner = arrays[place.weight], place.row_elements
            target = whole[:, place.start : place.end].view(self.shards, place.rows, inner)
            for shard in range(self.shards):
                part = rows[shard * place.rows : (shard + 1) * place.rows].reshape(-1, inner)
                target[shard, : len(part)].copy_(part)
                target[shard, len(part) :].zero_()
        return whole

    def collect(self, whole: torch.Tensor) -> None:
        """Copy an array like that of `spread` into the weights at rest."""
        for place in self.places:
            value, inner = place.weight.value, place.row_elements
            source = whole[:, place.start : place.end].reshape(self.shards * place.rows, inner)
            value.copy_(source[: value.shape[0]].view(value.shape))


def make_buckets(weights: Sequence[Weight], plan: Plan, mesh: Mesh, *, by_layer: bool) -> list[Bucket]:
    """Buckets in the order of the model; `by_layer`: one or more a layer, else for the whole stage."""

    def key(weight: Weight) -> tuple[Any, ...]:
        name = _name_of(place_in_model(weight)) if by_layer else "stage"
        return name, weight.sharing.reduce_over

    order: dict[tuple[Any, ...], int] = {}
    for weight in weights:
        order.setdefault(key(weight), len(order))
    found = sorted(weights, key=lambda weight: order[key(weight)])
    return [
        Bucket(str(which[0]), list(members), summing(plan, mesh, which[1]))
        for which, members in groupby(found, key)
    ]


FIRST, LAST = -1, -2
"""Places of what lies before the first layer and after the last one."""


def place_in_model(weight: Weight) -> int:
    """Layer of a weight, FIRST or LAST."""
    if weight.layer >= 0:
        return weight.layer
    return FIRST if weight.used_first else LAST


def _name_of(place: int) -> str:
    return {FIRST: "model.embedding", LAST: "model.head"}.get(place, f"layer.{place}")
