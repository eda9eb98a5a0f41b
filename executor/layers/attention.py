"""Attention part of a layer: projection to heads, rotary embedding, core, projection back."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from towtank.executor.layers.attention_core import Core, attention_core
from towtank.executor.layers.batch import MicroBatch
from towtank.executor.layers.linear import Linear
from towtank.executor.layers.norms import Norm
from towtank.executor.layers.rotary import Angles, Heads, rotate, split_heads

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""From queries, keys and values [sequences, tokens, heads, d] to attended values."""


@dataclass(slots=True)
class SelfAttention:
    """Attention of one layer."""

    name: str
    qkv: Linear
    output: Linear
    heads: int
    kv_heads: int
    head_dim: int
    attend: Attend
    angles: Angles | None
    """Of this device's tokens; None without rotary embedding."""
    query_norm: Norm | None = None
    key_norm: Norm | None = None

    def __call__(self, x: torch.Tensor, batch: MicroBatch) -> torch.Tensor:
        """Outputs of [tokens, local features]."""
        heads = Heads(self.name, batch.sequences, self.heads, self.kv_heads, self.head_dim)
        qkv = self.qkv(x)
        if self.query_norm is None or self.key_norm is None:
            q, k, v = split_heads(qkv, heads, self.angles)
        else:
            q, k, v = split_heads(qkv, heads, None)
            q, k = self.query_norm(q), self.key_norm(k)
            if self.angles is not None:
                q, k = rotate(q, k, f"{self.name}.rope", self.angles)
        attended = self.attend(q, k, v)
        return self.output(attended.reshape(-1, self.heads * self.head_dim))


def local_attention(core: Core) -> Attend:
    """Attention of whole sequences."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return attention_core(q, k, v, core)

    return attend
