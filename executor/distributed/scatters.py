"""Reductions of weight gradients over the shards that run beside what follows (AxoNN's ORS)."""

from collections.abc import Collection
from typing import NamedTuple, Protocol

import torch

from towtank.executor.measured.recorder import Waitable


class Accumulates(Protocol):
    """A weight, as far as reductions of its gradients know it."""

    def accumulate(self, part: torch.Tensor, name: str, kind: str = ...) -> None:
        """Add a gradient of the shard."""


class Pending(NamedTuple):
    """A gradient whose reduction over the shards is under way."""

    weight: Accumulates
    part: torch.Tensor
    handle: Waitable
    name: str
    """Of the addition, and its kind in the record."""
    kind: str


class Scatters:
    """Reductions under way, oldest first."""

    def __init__(self, *, asynchronous: bool, most: int = 1) -> None:
        """`most` may be under way at once; each holds the gradient of a whole weight."""
        self.asynchronous = asynchronous
        self._most = most
        self._pending: list[Pending] = []

    @property
    def busy(self) -> bool:
        """Whether any is under way."""
        return bool(self._pending)

    def put(self, pending: Pending) -> None:
        """Keep one under way; beyond `most` the oldest is waited for, so that buffers do not pile up."""
        self._pending.append(pending)
        if len(self._pending) > self._most:
            self._finish(self._pending.pop(0))

    def settle(self, weights: Collection[Accumulates] | None = None) -> None:
        """Wait until nothing of these weights (of all) is under way, and add it to their gradients."""
        while self._pending and (weights is None or any(one.weight in weights for one in self._pending)):
            self._finish(self._pending.pop(0))

    def _finish(self, one: Pending) -> None:
        one.handle.wait()
        one.weight.accumulate(one.part, one.name, one.kind)
