"""Context parallelism by all-to-all: tokens are split outside of attention, heads inside (Ulysses, arXiv 2309.14509).

Before attention each member trades the other members' heads for the other members' tokens, and after it back.
"""

from typing import Any

import torch

from towtank.executor.distributed import collectives
from towtank.executor.distributed.grid import apply
from towtank.executor.distributed.mesh import Group
from towtank.executor.layers.phases import forward_phase
from towtank.simulator.operations import Phase


def _to_heads(tokens_part: torch.Tensor, group: Group, name: str, phase: Phase) -> torch.Tensor:
    """[batch, tokens / members, heads, d] as [batch, tokens, heads / members, d]."""
    batch, tokens, heads, width = tokens_part.shape
    split = tokens_part.view(batch, tokens, group.size, heads // group.size, width)
    came = collectives.all_to_all(split.permute(2, 0, 1, 3, 4), group, name, phase)
    return came.transpose(0, 1).reshape(batch, group.size * tokens, heads // group.size, width)


def _to_tokens(heads_part: torch.Tensor, group: Group, name: str, phase: Phase) -> torch.Tensor:
    """[batch, tokens, heads / members, d] as [batch, tokens / members, heads, d]."""
    batch, tokens, heads, width = heads_part.shape
    split = heads_part.view(batch, group.size, tokens // group.size, heads, width)
    came = collectives.all_to_all(split.transpose(0, 1), group, name, phase)
    return came.permute(1, 2, 0, 3, 4).reshape(batch, tokens // group.size, group.size * heads, width)


class _Trade(torch.autograd.Function):
    """One of the two directions; its gradient goes the other way."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, group: Group, name: str, inward: bool) -> torch.Tensor:
        ctx.told = group, name, inward
        return (_to_heads if inward else _to_tokens)(tensor, group, name, forward_phase())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        group, name, inward = ctx.told
        trade = _to_tokens if inward else _to_heads
        return trade(gradients[0].contiguous(), group, name, Phase.BACKWARD), None, None, None


def _copies(heads: int, kv_heads: int, members: int) -> int:
    """How often each key-value head is repeated, so that every member gets those of its query heads."""
    if kv_heads % members == 0:
        return 1
    return members // kv_heads if members % kv_heads == 0 else heads // kv_heads


def split_heads(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    group: Group,
    name: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Local tokens and all heads as all tokens and local heads, in one message.

    Args:
        queries: [batch, local tokens, heads, d]; heads are a multiple of the members.
        keys: the same with the key-value heads; these are repeated where there are too few of them.
        values: as keys.
        group: context group.
        name: of the part of the layer, such as layer.3.attention.
    """
    heads, kv_heads = queries.shape[2], keys.shape[2]
    if group.size == 1:
        return queries, keys, values
    copies = _copies(heads, kv_heads, group.size)
    if copies > 1:
        keys, values = keys.repeat_interleave(copies, 2), values.repeat_interleave(copies, 2)
    share, kv_share = heads // group.size, keys.shape[2] // group.size
    parts = []
    for member in range(group.size):
        mine = slice(member * kv_share, (member + 1) * kv_share)
        parts += [queries[:, :, member * share : (member + 1) * share], keys[:, :, mine], values[:, :, mine]]
    packed: torch.Tensor = apply(_Trade, torch.cat(parts, 2), group, f"{name}.before.all-to-all", True)
    q, k, v = torch.split(packed, [share, kv_share, kv_share], 2)
    return q, k, v


def split_tokens(attended: torch.Tensor, group: Group, name: str) -> torch.Tensor:
    """Output of attention with all tokens and local heads as local tokens and all heads."""
    if group.size == 1:
        return attended
    traded: torch.Tensor = apply(_Trade, attended, group, f"{name}.after.all-to-all", False)
    return traded
