"""Ring attention: keys and values go round the context group while each member attends to what it has.

Liu et al., arXiv 2310.01889, with two chunks of the sequence a device for balance under the causal mask. Messages of
the next turn travel beside the attention of this one. Backward, keys and values go round again, and with them the sum
of their gradients, which ends at its owner.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from towtank.executor.distributed.grid import apply
from towtank.executor.distributed.mesh import Group
from towtank.executor.distributed.ring_shift import GRADIENTS, PAIR, shift
from towtank.executor.layers.attention_blocks import (
    Block,
    accumulation_dtype,
    block_backward,
    block_forward,
    merge,
)
from towtank.executor.layers.context.split import chunk_starts
from towtank.executor.layers.phases import forward_phase
from towtank.executor.measured import recorder
from towtank.simulator.operations import Phase


class Turn(NamedTuple):
    """One pair of chunks with something to attend to: slices of local queries and local keys, and the block."""

    queries: slice
    keys: slice
    block: Block


class Ring(NamedTuple):
    """What a ring is told."""

    name: str
    """Of the part of the layer, such as layer.3.attention."""
    group: Group
    """Context group."""
    sequence: int
    """Tokens of the whole sequence."""
    window: int | None
    repeats: bool = False
    """Whether the forward half runs again in the backward pass (selective recomputation)."""


def turns(ring: Ring, owner: int) -> Iterator[Turn]:
    """Blocks between the queries of this member and the keys of `owner` that are not empty."""
    degree = ring.group.size
    chunk = ring.sequence // (2 * degree) if degree > 1 else ring.sequence
    mine = chunk_starts(ring.sequence, degree, ring.group.index, "ring")
    theirs = chunk_starts(ring.sequence, degree, owner, "ring")
    for i, first_query in enumerate(mine):
        for j, first_key in enumerate(theirs):
            block = Block(first_query, first_key, chunk, chunk, ring.window)
            if not block.empty:
                rows, columns = slice(i * chunk, (i + 1) * chunk), slice(j * chunk, (j + 1) * chunk)
                yield Turn(rows, columns, block)


def _rounds(ring: Ring, pair: torch.Tensor, phase: Phase, work: Callable[[int, torch.Tensor], None]) -> None:
    """Call `work(owner, keys and values)` for every member's pair, its own first; the next one comes meanwhile."""
    group = ring.group
    with recorder.operation(f"{ring.name}.core", "attention", phase):
        for turn in range(group.size):
            coming = shift(group, pair, PAIR, ring.name, phase) if turn < group.size - 1 else None
            work((group.index - turn) % group.size, pair)
            if coming is not None:
                pair = coming.wait()


def _forward(
    ring: Ring, queries: torch.Tensor, pair: torch.Tensor, phase: Phase
) -> tuple[torch.Tensor, torch.Tensor]:
    wide = accumulation_dtype(queries.dtype)
    output = torch.zeros_like(queries, dtype=wide)
    logarithms = torch.full((*queries.shape[:3], 1), -torch.inf, dtype=wide, device=queries.device)
    begun: set[int] = set()

    def attend(owner: int, pair: torch.Tensor) -> None:
        for rows, columns, block in turns(ring, owner):
            part = block_forward(queries[:, rows], pair[0][:, columns], pair[1][:, columns], block)
            if rows.start in begun:
                part = merge(output[:, rows], logarithms[:, rows], *part)
            output[:, rows], logarithms[:, rows] = part
            begun.add(rows.start)

    _rounds(ring, pair, phase, attend)
    return output.to(queries.dtype), logarithms


class _RingAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, ring: Ring
    ) -> torch.Tensor:
        pair = torch.stack((keys, values))
        kept = _forward(ring, queries, pair, forward_phase())
        ctx.ring = ring
        ctx.save_for_backward(queries, pair, *(() if ring.repeats else kept))
        return kept[0]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        queries, pair, *kept = ctx.saved_tensors
        ring: Ring = ctx.ring
        output, logarithms = kept or _forward(ring, queries, pair, Phase.RECOMPUTE)
        of_queries, of_pair = _backward(ring, gradients[0], queries, pair, output, logarithms)
        return of_queries.to(queries.dtype), of_pair[0].to(pair.dtype), of_pair[1].to(pair.dtype), None


def _backward(
    ring: Ring,
    gradient: torch.Tensor,
    queries: torch.Tensor,
    pair: torch.Tensor,
    output: torch.Tensor,
    logarithms: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of the local queries, and of the local keys and values [2, ...], in the type of sums."""
    wide = accumulation_dtype(queries.dtype)
    delta = (output.to(wide) * gradient.to(wide)).sum(-1, keepdim=True)
    of_queries = torch.zeros_like(queries, dtype=wide)
    travelling: list[Any] = []

    def attend(owner: int, pair: torch.Tensor) -> None:
        here = torch.zeros_like(pair, dtype=wide)
        for rows, columns, block in turns(ring, owner):
            of_q, of_k, of_v = block_backward(
                gradient[:, rows],
                queries[:, rows],
                pair[0][:, columns],
                pair[1][:, columns],
                logarithms[:, rows],
                delta[:, rows],
                block,
            )
            of_queries[:, rows] += of_q
            here[0][:, columns] += of_k
            here[1][:, columns] += of_v
        if travelling:
            here += travelling.pop().wait()
        # the sum follows its keys: on to the next member, at last to their owner
        travelling.append(shift(ring.group, here, GRADIENTS, ring.name, Phase.BACKWARD))

    _rounds(ring, pair, Phase.BACKWARD, attend)
    return of_queries, travelling.pop().wait()


def ring_attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, ring: Ring
) -> torch.Tensor:
    """Causal attention of local queries [batch, local tokens, heads, d] over the keys of the whole sequence."""
    attended: torch.Tensor = apply(_RingAttention, queries, keys, values, ring)
    return attended
