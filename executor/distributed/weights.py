"""Weights as a device holds them: a shard at rest, gathered for use, and the gradient of the shard.

In use a weight is its part of the full tensors by x and y: one box, or several one above the other (queries, keys and
values; both halves of a gated projection). At rest the rows of that are split evenly over the shard group (z, and
data and context under ZeRO 3); the last shards may be shorter, and are padded in messages.
"""

import hashlib
from collections.abc import Callable

import torch

from towtank.executor.distributed import collectives
from towtank.executor.distributed.boxes import Box
from towtank.executor.distributed.pieces import Initial, Part, Piece, Sharing
from towtank.executor.distributed.scatters import Pending, Scatters
from towtank.executor.measured import recorder
from towtank.executor.measured.recorder import Waitable
from towtank.simulator.operations import Phase


def _nothing() -> None:
    """Nothing to do."""


class Weight:
    """One weight of this device; see the module."""

    def __init__(
        self,
        name: str,
        pieces: tuple[Piece, ...],
        sharing: Sharing,
        scatters: Scatters,
        *,
        layer: int = -1,
        decays: bool = True,
        tied: bool = False,
        used_first: bool = False,
    ) -> None:
        """Describe a weight; `materialize` gives it values.

        Args:
            name: of the operation that uses it, such as layer.3.attention.qkv.
            pieces: boxes that lie one above the other (along dimension 0) in use.
            sharing: who holds what.
            scatters: reductions of gradients under way.
            layer: of the model; -1 outside of layers.
            decays: whether weight decay applies.
            tied: whether another stage holds the same.
            used_first: whether the model begins with it, so that its gradient is complete last.
        """
        self.name = name
        self.pieces = pieces
        self.sharing = sharing
        self.layer = layer
        self.decays = decays
        self.tied = tied
        self.used_first = used_first
        self.rows = sum(piece.box.size[0] for piece in pieces)
        """Rows in use."""
        self.inner = pieces[0].box.size[1:]
        self.shard_rows = -(-self.rows // sharing.shard.size)
        self.first_row = min(self.rows, sharing.shard.index * self.shard_rows)
        self.end_row = min(self.rows, self.first_row + self.shard_rows)
        self.parts = tuple(self._parts())
        self.value: torch.Tensor
        """The shard, [rows of it, ...]."""
        self.gradient: torch.Tensor
        """Sum of the gradients of this step, as `value`; another tensor of that shape may take its place."""
        self.before_use: Callable[[], None] = _nothing
        """Called before a gather ahead of the layer's pass: the shard itself may still be on its way."""
        self.holds_gradient = False
        """Whether `gradient` is of this step: what it held before is overwritten first."""
        self._scatters = scatters
        self._padded: torch.Tensor
        self._gathered: torch.Tensor | None = None
        self._under_way: Waitable | None = None
        self._users = 0

    def _parts(self) -> list[Part]:
        found, row = [], 0
        for piece in self.pieces:
            first, end = max(self.first_row, row), min(self.end_row, row + piece.box.size[0])
            if first < end:
                box = piece.box.rows(first - row, end - row)
                copies = piece.copies * self.sharing.copies
                found.append(Part(box, first - self.first_row, copies, piece.partial))
            row += piece.box.size[0]
        return found

    def materialize(
        self,
        initial: Initial,
        seed: int,
        dtype: torch.dtype,
        gradient_dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Give the weight its first values: each full tensor is drawn from (seed, its name) and then cut."""
        self._padded = torch.zeros((self.shard_rows, *self.inner), dtype=dtype, device=device)
        self.value = self._padded[: self.end_row - self.first_row]
        self.gradient = torch.zeros_like(self.value, dtype=gradient_dtype)
        for part in self.parts:
            rows = self.value[part.first : part.first + part.box.size[0]]
            if initial.kind == "constant":
                rows.fill_(initial.value)
            else:
                rows.copy_(drawn(part.box, seed)[part.box.slices] * initial.value)

    # ---- use

    def prefetch(self, name: str, phase: Phase) -> None:
        """Begin to gather the weight, if it is not gathered or on its way."""
        if self.sharing.shard.size == 1 or self._gathered is not None:
            return
        self.before_use()
        self._gathered, self._under_way = collectives.start_all_gather(
            self._padded, self.sharing.shard, f"{name}.weight.all-gather", phase
        )

    def acquire(self, name: str, phase: Phase) -> torch.Tensor:
        """The weight in use, [rows, ...]; gathered now if nobody did before. `release` it as often."""
        if self.sharing.shard.size == 1:
            return self._padded
        self._users += 1
        if self._under_way is not None:
            self._under_way.wait()
            self._under_way = None
        elif self._gathered is None:
            name = f"{name}.weight.all-gather"
            self._gathered = collectives.all_gather(self._padded, self.sharing.shard, name, phase)
        assert self._gathered is not None
        return self._gathered[: self.rows]

    def release(self, times: int = 1) -> None:
        """A user is done; with the last one the gathered weight goes."""
        if self.sharing.shard.size == 1:
            return
        self._users -= times
        if self._users <= 0:
            self._users = 0
            self._gathered = None

    # ---- gradient

    def gradient_buffer(self, dtype: torch.dtype) -> torch.Tensor:
        """An array for a gradient of the weight in use, with room for padding: write [: rows] and `add_gradient`."""
        rows = self.shard_rows * self.sharing.shard.size
        buffer = torch.empty((rows, *self.inner), dtype=dtype, device=self.value.device)
        if rows > self.rows:
            buffer[self.rows :].zero_()
        return buffer

    def own_gradient(self) -> torch.Tensor | None:
        """The gradient itself, to be added to, or None where the weight is sharded.

        What the step has not begun is zero; whoever calls this adds something.
        """
        if self.sharing.gradients.size > 1:
            return None
        if not self.holds_gradient:
            self._make_room()
            self.gradient.zero_()
            self.holds_gradient = True
        return self.gradient

    def add_gradient(
        self, buffer: torch.Tensor, name: str, add: str | None = None, kind: str = "elementwise"
    ) -> None:
        """Reduce a gradient from `gradient_buffer` over the shards and add it.

        Args:
            buffer: the gradient.
            name: of the operation that made it, such as layer.3.mlp.up.
            add: name of the addition, if it is not `name`.gradient-add.
            kind: of the addition in the record.
        """
        add, group = add or f"{name}.gradient-add", self.sharing.gradients
        if group.size == 1:
            self.accumulate(buffer, add, kind)
            return
        name = f"{name}.weight.reduce-scatter"
        if not self._scatters.asynchronous:
            self.accumulate(collectives.reduce_scatter(buffer, group, name, Phase.BACKWARD), add, kind)
            return
        part, handle = collectives.start_reduce_scatter(buffer, group, name, Phase.BACKWARD)
        self._scatters.put(Pending(self, part, handle, add, kind))

    def accumulate(self, part: torch.Tensor, name: str, kind: str = "elementwise") -> None:
        """Add a gradient of the shard, which may be padded."""
        with recorder.operation(name, kind, Phase.BACKWARD):
            rows = part[: self.value.shape[0]]
            if self.holds_gradient:
                self.gradient.add_(rows)
            else:
                self._make_room()
                self.gradient.copy_(rows)
                self.holds_gradient = True

    def _make_room(self) -> None:
        if self.gradient.shape != self.value.shape:
            self.gradient = torch.empty_like(self.value, dtype=self.gradient.dtype)

    def finish_gradient(self) -> None:
        """Zero the gradient if the step has none; `Scatters.settle` comes before."""
        if not self.holds_gradient:
            self._make_room()
            self.gradient.zero_()
            self.holds_gradient = True

    def forget_gradient(self) -> None:
        """Begin a step."""
        self.holds_gradient = False

    def free_gradient(self) -> None:
        """Give up the gradient's memory until the next one is made."""
        self.gradient = self.gradient.new_empty(0)
        self.holds_gradient = False

    # ---- memory

    def move(self, padded: torch.Tensor, gradient: torch.Tensor) -> None:
        """Keep the shard, with its padding, and its gradient in memory that somebody else provides.

        Args:
            padded: [rows of a shard, ...]; takes the values over.
            gradient: the same shape.
        """
        rows = self.value.shape[0]
        padded[:rows].copy_(self.value)
        self._padded, self.value, self.gradient = padded, padded[:rows], gradient[:rows]


def drawn(box: Box, seed: int) -> torch.Tensor:
    """The full tensor of a box's name: standard normal fp32 numbers, a function of (seed, name) alone."""
    digest = hashlib.sha256(f"{seed}/{box.name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randn(box.full_shape, generator=generator)
