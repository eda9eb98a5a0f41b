"""One transformer layer: norms, attention, feed-forward part and residual additions."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from towtank.executor.distributed.grid import apply
from towtank.executor.layers.batch import MicroBatch
from towtank.executor.layers.linear import ParallelInput, ParallelOutput
from towtank.executor.layers.norms import Norm
from towtank.executor.layers.phases import forward_phase
from towtank.executor.measured import recorder

Dropout = Callable[[torch.Tensor, MicroBatch, str], torch.Tensor]
"""Dropout of a hidden state at a site of that name."""


class Part(Protocol):
    """Attention or feed-forward part of a layer."""

    def __call__(self, x: torch.Tensor, batch: MicroBatch, /) -> torch.Tensor:
        """Outputs of [tokens, local features]."""


def add(x: torch.Tensor, y: torch.Tensor, name: str) -> torch.Tensor:
    """Residual addition; both get the same gradient."""
    total: torch.Tensor = apply(_Add, x, y, name)
    return total


class _Add(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor, name: str) -> torch.Tensor:
        with recorder.operation(name, "elementwise", forward_phase()):
            return x + y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0], gradients[0], None


@dataclass(slots=True)
class Layer:
    """A layer in which attention comes before the feed-forward part."""

    index: int
    attention_norm: Norm
    attention: Part
    feed_forward: Part
    mlp_norm: Norm
    dropout: Dropout | None = None
    post_norms: tuple[Norm, ...] = field(default_factory=tuple)
    """Of both parts' outputs, before they are added (Gemma 2)."""

    def __call__(self, hidden: torch.Tensor, batch: MicroBatch) -> torch.Tensor:
        """The hidden state after the layer."""
        normed, rest = self.attention_norm.beside(hidden)
        hidden = self._added(rest, self.attention(normed, batch), batch, "attention", 0)
        normed, rest = self.mlp_norm.beside(hidden)
        return self._added(rest, self.feed_forward(normed, batch), batch, "mlp", 1)

    def _added(
        self, rest: torch.Tensor, made: torch.Tensor, batch: MicroBatch, part: str, which: int
    ) -> torch.Tensor:
        name = f"layer.{self.index}.{part}.residual"
        if self.post_norms:
            made = self.post_norms[which](made)
        if self.dropout is not None:
            made = self.dropout(made, batch, f"{name}.dropout")
        return add(rest, made, name)


@dataclass(slots=True)
class ParallelLayer:
    """A layer whose parts read the same input and are added (GPT-J, GPT-NeoX).

    With one norm both share the gather of the input and the sum of its gradient; the sum over x of both outputs is
    one.
    """

    index: int
    attention_norm: Norm
    attention: Part
    feed_forward: Part
    mlp_norm: Norm | None
    shared_input: ParallelInput
    shared_output: ParallelOutput
    dropout: Dropout | None = None

    def __call__(self, hidden: torch.Tensor, batch: MicroBatch) -> torch.Tensor:
        """The hidden state after the layer."""
        normed, rest = self.attention_norm.beside(hidden)
        if self.mlp_norm is None:
            normed = also = self.shared_input(normed)
        else:
            also, rest = self.mlp_norm.beside(rest)
        name = f"layer.{self.index}.mlp.residual"
        made = add(self.attention(normed, batch), self.feed_forward(also, batch), name)
        made = self.shared_output(made)
        if self.dropout is not None:
            made = self.dropout(made, batch, f"{name}.dropout")
        return add(rest, made, name)
