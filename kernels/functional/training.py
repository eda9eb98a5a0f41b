"""Loss and optimizer."""

from typing import Any

import torch

from towtank.kernels import adamw as optimizer
from towtank.kernels.cross_entropy import IGNORED
from towtank.kernels.functional.choice import apply, backend_of, run
from towtank.kernels.widen import wide


def cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, number: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Sum of the losses of all labels that are not -100, over their number: a scalar, differentiable in the logits.

    Args:
        logits: [rows, vocabulary].
        labels: [rows] int64.
        number: what to divide by instead, such as the labels that count on all ranks.
    """
    count = (labels != IGNORED).sum().clamp(min=1)
    by = count if number is None else number
    if backend_of("cross_entropy", logits.dtype, logits.device.type) == "library":
        losses = torch.nn.functional.cross_entropy(
            wide(logits), labels, ignore_index=IGNORED, reduction="sum"
        )
        return losses / by
    loss: torch.Tensor = apply(_CrossEntropy, logits, labels)
    return loss if number is None else loss * count / by


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss, gradient = run("cross_entropy", "cross_entropy", (logits, labels), {})
        ctx.save_for_backward(gradient)
        return loss[0]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (ctx.saved_tensors[0] * gradients[0]).to(ctx.saved_tensors[0].dtype), None


def adamw(
    gradient: torch.Tensor,
    master: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    step: int,
    rate: float,
    betas: tuple[float, float] = (optimizer.BETA_1, optimizer.BETA_2),
    epsilon: float = optimizer.EPSILON,
    decay: float = optimizer.DECAY,
) -> None:
    """One step of AdamW in place: of master weight and moments, then of the weight in the model's dtype.

    Args:
        gradient: in any dtype; all tensors have one shape.
        master: fp32, or float64 where the gradient is; the parameter itself where there is no `weight`.
        first: first moment, as master.
        second: second moment, as master.
        weight: gets a rounded copy of master.
        step: counted from 1.
        rate: learning rate.
        betas: decay of the moments.
        epsilon: added to the root of the second moment.
        decay: of weights, times the rate.
    """
    with torch.no_grad():
        if backend_of("adamw", gradient.dtype, gradient.device.type) == "library":
            given = (rate, *betas, epsilon, decay, step)
            optimizer.update(gradient, (master, first, second), weight, given)
            return
        settings = torch.tensor(
            optimizer.settings(step, rate, betas, epsilon, decay), dtype=torch.float32, device=gradient.device
        )
        copy = master if weight is None else weight
        run("adamw", "adamw", (gradient, master, first, second, copy, settings), {})
