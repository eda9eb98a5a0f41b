"""Flat arrays of a bucket: gradients, master weights and both moments of what this device keeps of it."""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from towtank.executor.distributed.boxes import Box
from towtank.executor.distributed.buckets import Bucket

_BLOCK = 4096
"""Elements whose squares are summed in their own precision; beyond, sums of fp32 lose digits (20 million elements: a
relative error of 7e-4, in blocks of this size 3e-9)."""


class _Range(NamedTuple):
    """Elements of the flat arrays that equally many devices of the run hold."""

    start: int
    end: int
    copies: int


class States:
    """The states of one bucket on this device.

    Where nothing is sharded the weights and their gradients are views of the flat arrays: sums, norm and optimizer
    work on whole buckets and copy nothing. Where weights have the precision of the master they are the master.
    """

    def __init__(self, bucket: Bucket, dtype: torch.dtype) -> None:
        """Take the weights over; `dtype` is that of gradients, master and moments."""
        self.bucket = bucket
        value = bucket.places[0].weight.value
        self.dtype, self.device = dtype, value.device
        self.master = self._empty(dtype)
        for place in bucket.places:
            rows = place.of(self.master)
            kept = place.weight.value[bucket.own_rows(place)]
            rows[: len(kept)].copy_(kept)
        self.first, self.second = self._empty(dtype), self._empty(dtype)
        self.working = self.master if value.dtype == dtype else self.master.to(value.dtype)
        """Weights in the precision of use."""
        self.gradient: torch.Tensor | None = None
        """Sum of gradients; under ZeRO 1 and 2 there is one only from its reduction to the update."""
        if bucket.shards == 1:
            self.gradient = self._empty(dtype)
            for place in bucket.places:
                place.weight.move(place.of(self.working), place.of(self.gradient))
        self._ranges = list(self._equal_copies())

    def _empty(self, dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(self.bucket.elements, dtype=dtype, device=self.device)

    def _equal_copies(self) -> Iterator[_Range]:
        """Padding is zero, so it may lie inside a range."""
        found: _Range | None = None
        for part in self.bucket.parts:
            start = part.place.start + part.first * part.place.row_elements
            end = start + part.box.size[0] * part.place.row_elements
            if found is not None and found.copies == part.copies:
                found = found._replace(end=end)
            else:
                if found is not None:
                    yield found
                found = _Range(start, end, part.copies)
        if found is not None:
            yield found

    def square_sum(self) -> torch.Tensor:
        """This device's share of the sum of squares of all gradients, float64; an element counts once in the run."""
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        if self.gradient is None:
            return total
        for start, end, copies in self._ranges:
            total += _squares(self.gradient[start:end]) / copies
        return total

    def tensors(self) -> Iterator[tuple[str, Box, torch.Tensor]]:
        """Whatever goes into a checkpoint: what it is, its box and the view of it."""
        for kind, flat in (("master", self.master), ("first", self.first), ("second", self.second)):
            for part in self.bucket.parts:
                yield f"{kind}.{part.box.name}", part.box, part.of(flat)

    def refresh_working(self) -> None:
        """Weights in use from the master, after a checkpoint was read."""
        if self.working is not self.master:
            self.working.copy_(self.master)


def _squares(flat: torch.Tensor) -> torch.Tensor:
    """Sum of squares in float64."""
    if flat.dtype == torch.float64:
        return flat.dot(flat)
    whole = len(flat) // _BLOCK * _BLOCK
    blocks = torch.linalg.vector_norm(flat[:whole].view(-1, _BLOCK), dim=1)
    total: torch.Tensor = blocks.double().square().sum() + flat[whole:].double().square().sum()
    return total
