"""Tokens on their way to the experts and back: permutation, all-to-all with uneven parts, expert-tensor group.

A device sends a copy of a token to the member of the expert group that holds the expert. Where several devices hold
parts of an expert's features (the expert-tensor group), each then gets what the others have received as well, padded
to the longest, and the sums of their results go back the same way.
"""

from typing import NamedTuple

import torch

from towtank.executor.distributed import collectives
from towtank.executor.distributed.mesh import Group
from towtank.executor.layers.phases import forward_phase
from towtank.simulator.operations import Phase


class Dispatch(NamedTuple):
    """Where the copies of one micro-batch go, on this device."""

    expert: Group
    tensor: Group
    tokens: torch.Tensor
    """Token of each copy that is sent, in the order of experts."""
    slots: torch.Tensor
    """[tokens, top_k]: place of each copy among those sent, or their number where it is dropped."""
    sent: tuple[int, ...]
    """Copies to each member of the expert group."""
    received: tuple[int, ...]
    """Copies from each member."""
    padded: int
    """Longest number of copies that a member of the expert-tensor group has received."""
    place: torch.Tensor
    """Rows of what all members of the expert-tensor group have received, by local expert."""
    counts: tuple[int, ...]
    """Rows of each local expert, of all members of the expert-tensor group."""

    # ---- rows: token order, order of sending, order of receiving, order of local experts

    def permute(self, x: torch.Tensor) -> torch.Tensor:
        """Copies to send, of tokens [tokens, features]."""
        return x.index_select(0, self.tokens)

    def gather_slots(self, rows: torch.Tensor) -> torch.Tensor:
        """Each token's copies [tokens, top_k, features], of copies in order of sending; zero where dropped."""
        tokens, top_k = self.slots.shape
        with_none = torch.cat((rows, rows.new_zeros((1, rows.shape[1]))))
        return with_none.index_select(0, self.slots.flatten()).view(tokens, top_k, -1)

    def to_experts(self, rows: torch.Tensor, name: str, phase: Phase) -> torch.Tensor:
        """Copies at their experts, of copies in order of sending, by NAME.all-to-all and NAME.all-gather."""
        rows = collectives.all_to_all(
            rows, self.expert, f"{name}.all-to-all", phase, self.sent, self.received
        )
        if self.tensor.size > 1:
            missing = self.padded - rows.shape[0]
            rows = torch.nn.functional.pad(rows, (0, 0, 0, missing))
            rows = collectives.all_gather(rows, self.tensor, f"{name}.all-gather", phase)
        return rows.index_select(0, self.place)

    def from_experts(self, rows: torch.Tensor, name: str, phase: Phase) -> torch.Tensor:
        """The way back, summed over the expert-tensor group."""
        whole = rows.new_zeros((self.padded * self.tensor.size, rows.shape[1]))
        whole.index_copy_(0, self.place, rows)
        own = collectives.reduce_scatter(whole, self.tensor, f"{name}.reduce-scatter", phase)
        own = own[: sum(self.received)]
        return collectives.all_to_all(own, self.expert, f"{name}.all-to-all", phase, self.received, self.sent)


def plan_dispatch(
    experts: torch.Tensor,
    taken: torch.Tensor | None,
    num_experts: int,
    expert: Group,
    tensor: Group,
    name: str,
) -> Dispatch:
    """Exchange numbers of copies, and work out who sends what where.

    Args:
        experts: choice of each token, [tokens, top_k].
        taken: which of these copies count (None: all).
        num_experts: of the layer.
        expert: group whose members hold `num_experts / size` experts each, in order.
        tensor: group whose members hold parts of the same experts.
        name: of the part of the layer, such as layer.3.experts.
    """
    top_k, members = experts.shape[1], expert.size
    wanted = experts.flatten()
    if taken is not None:
        wanted = wanted.masked_fill(~taken.flatten(), num_experts)
    order = wanted.argsort(stable=True)
    counts = torch.bincount(wanted, minlength=num_experts)[:num_experts]
    total = int(counts.sum())
    slots = torch.empty_like(order)
    slots[order] = torch.arange(len(order), device=order.device).clamp_(max=total)
    counts = counts.view(members, -1)
    phase = forward_phase()
    came = collectives.all_to_all(counts, expert, f"{name}.counts.all-to-all", phase)
    by_source = collectives.all_gather(came.unsqueeze(0), tensor, f"{name}.counts.all-gather", phase)
    padded = int(by_source.sum((1, 2)).max()) if tensor.size > 1 else int(came.sum())
    return Dispatch(
        expert,
        tensor,
        order[:total] // top_k,
        slots.view(-1, top_k),
        tuple(counts.sum(1).tolist()),
        tuple(came.sum(1).tolist()),
        padded,
        _expert_order(by_source, padded),
        tuple(by_source.sum((0, 1)).tolist()),
    )


def _expert_order(by_source: torch.Tensor, padded: int) -> torch.Tensor:
    """Rows of padded arrays, one for each member of the expert-tensor group, in the order of local experts.

    `by_source` is [members of the expert-tensor group, members of the expert group, local experts]; an array holds
    the rows of one source after the other, each in the order of local experts.
    """
    tensor, members, local = by_source.shape
    kinds = torch.arange(local, device=by_source.device).repeat(tensor * members)
    kind = kinds.repeat_interleave(by_source.flatten())
    lengths = by_source.sum((1, 2))
    starts = torch.arange(tensor, device=by_source.device) * padded
    before = torch.cat((lengths.new_zeros(1), lengths.cumsum(0)[:-1]))
    rows = torch.arange(len(kind), device=kind.device) + (starts - before).repeat_interleave(lengths)
    return rows[kind.argsort(stable=True)]
