"""Heads of queries, keys and values, and their rotary position embedding.

Rotary embedding turns pairs (i, i + d/2) of a head by position x base^(-2i/d) (Su et al., arXiv 2104.09864, in the
half-split form of GPT-NeoX and Llama).
"""

from typing import Any, NamedTuple

import torch

from towtank.executor.distributed.grid import apply
from towtank.executor.layers.phases import forward_phase
from towtank.executor.measured import recorder
from towtank.simulator.operations import Phase

BASE = 10000.0
"""Of RoFormer, GPT-NeoX and Llama 2; newer models have larger ones, which change no time."""


class Heads(NamedTuple):
    """Heads of one device, and the sequences that its tokens make up."""

    name: str
    """Of the part of the layer, such as layer.3.attention."""
    sequences: int
    heads: int
    kv_heads: int
    head_dim: int


class Angles(NamedTuple):
    """Cosines and sines of the tokens of one sequence, [tokens, 1, head_dim / 2] each."""

    cos: torch.Tensor
    sin: torch.Tensor


def angles(positions: torch.Tensor, head_dim: int, dtype: torch.dtype) -> Angles:
    """Angles of tokens at global positions."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions.device) / head_dim
    turned = positions.to(torch.float64)[:, None] * BASE**-exponents
    return Angles(turned.cos().to(dtype)[:, None], turned.sin().to(dtype)[:, None])


def _turn(x: torch.Tensor, at: Angles, into: torch.Tensor, *, back: bool = False) -> torch.Tensor:
    """Write x [..., tokens, heads, d], turned (`back`: the other way), into `into`."""
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    sign = -1.0 if back else 1.0
    torch.mul(first, at.cos, out=into[..., :half]).addcmul_(second, at.sin, value=-sign)
    torch.mul(second, at.cos, out=into[..., half:]).addcmul_(first, at.sin, value=sign)
    return into


def split_heads(
    qkv: torch.Tensor, heads: Heads, at: Angles | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values [sequences, tokens, heads, d] of a projection [all tokens, columns]; turned by
    `at`."""
    q, k, v = apply(_SplitHeads, qkv, heads, at)
    return q, k, v


def _views(qkv: torch.Tensor, heads: Heads) -> list[torch.Tensor]:
    rows = qkv.view(heads.sequences, -1, heads.heads + 2 * heads.kv_heads, heads.head_dim)
    return list(torch.split(rows, [heads.heads, heads.kv_heads, heads.kv_heads], 2))


class _SplitHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: torch.Tensor, heads: Heads, at: Angles | None) -> Any:
        ctx.heads, ctx.at = heads, at
        q, k, v = _views(qkv, heads)
        if at is None:
            return q, k, v
        with recorder.operation(f"{heads.name}.rope", "elementwise", forward_phase()):
            # a view of the values would hold the whole projection until the backward pass
            return _turn(q, at, torch.empty_like(q)), _turn(k, at, torch.empty_like(k)), v.contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        heads, at = ctx.heads, ctx.at
        q, k, v = gradients
        # without rotary embedding gradients are only put beside one another, which goes with the core that made them
        part, kind = (".core", "attention") if at is None else (".rope", "elementwise")
        with recorder.operation(heads.name + part, kind, Phase.BACKWARD):
            columns = (heads.heads + 2 * heads.kv_heads) * heads.head_dim
            qkv = q.new_empty((q.shape[0] * q.shape[1], columns))
            of_q, of_k, of_v = _views(qkv, heads)
            of_v.copy_(v)
            if at is None:
                of_q.copy_(q)
                of_k.copy_(k)
            else:
                _turn(q, at, of_q, back=True)
                _turn(k, at, of_k, back=True)
        return qkv, None, None


def rotate(q: torch.Tensor, k: torch.Tensor, name: str, at: Angles) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys, turned."""
    turned_q, turned_k = apply(_Rotate, q, k, name, at)
    return turned_q, turned_k


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, name: str, at: Angles) -> Any:
        ctx.name, ctx.at = name, at
        with recorder.operation(name, "elementwise", forward_phase()):
            return tuple(_turn(each, at, torch.empty_like(each)) for each in (q, k))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        with recorder.operation(ctx.name, "elementwise", Phase.BACKWARD):
            back = [_turn(each, ctx.at, torch.empty_like(each), back=True) for each in gradients]
        return *back, None, None
