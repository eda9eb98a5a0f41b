"""Cross-entropy of logits whose vocabulary is split over x and y together."""

from typing import Any

import torch

from towtank.executor.data import IGNORED
from towtank.executor.distributed import collectives
from towtank.executor.distributed.grid import apply
from towtank.executor.distributed.mesh import Group
from towtank.executor.layers.phases import forward_phase
from towtank.executor.measured import recorder
from towtank.simulator.operations import Phase

NAME = "model.loss"


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor, group: Group, first: int = 0) -> torch.Tensor:
    """Sum of -log softmax(logits)[target] over the tokens that count, the same on all members of the group.

    Args:
        logits: [tokens, local vocabulary].
        targets: [tokens], IGNORED where a token does not count.
        group: over which the vocabulary is split.
        first: first token of the local vocabulary.

    Returns:
        Scalar, in fp32 (float64 for float64 logits).
    """
    loss: torch.Tensor = apply(_CrossEntropy, logits, targets, group, first)
    return loss


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, targets: torch.Tensor, group: Group, first: int
    ) -> torch.Tensor:
        phase = forward_phase()
        with recorder.operation(NAME, "elementwise", phase):
            wide = logits if logits.dtype == torch.float64 else logits.float()
            highest = wide.amax(1, keepdim=True)
        if group.size > 1:
            highest = collectives.all_reduce(highest, group, f"{NAME}.all-reduce", phase, collectives.MAX)
        with recorder.operation(NAME, "elementwise", phase):
            columns, counted = wide.shape[1], targets != IGNORED
            local = targets - first
            here = (local >= 0) & (local < columns)
            at = local.clamp(0, columns - 1)[:, None]
            exponentials = wide - highest
            target = exponentials.gather(1, at) * here[:, None]
            total = exponentials.exp_().sum(1, keepdim=True)
        if group.size > 1:
            both = torch.stack((target, total))
            target, total = collectives.all_reduce(both, group, f"{NAME}.all-reduce", phase)
        with recorder.operation(NAME, "elementwise", phase):
            losses = (total.log() - target)[:, 0]
            ctx.save_for_backward(exponentials, total, at, here, counted)
            ctx.dtype = logits.dtype
            return torch.where(counted, losses, 0.0).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        exponentials, total, at, here, counted = ctx.saved_tensors
        with recorder.operation(NAME, "elementwise", Phase.BACKWARD):
            scale = gradients[0] * counted[:, None]
            # of one's own making and used once: written over
            found = exponentials.mul_(scale / total)
            found.scatter_add_(1, at, -scale.to(found.dtype) * here[:, None])
            return found.to(ctx.dtype), None, None, None
