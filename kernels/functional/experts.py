"""Tokens to the order of their experts and back."""

from typing import Any

import torch

from towtank.kernels.functional.choice import apply, run


def moe_permute(
    x: torch.Tensor, experts: torch.Tensor, number: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of x in the order of their experts, the slot of each choice, and the rows of each expert.

    Args:
        x: [tokens, columns]; differentiable.
        experts: chosen by each token, [tokens, chosen] int64.
        number: how many experts there are.

    Returns:
        Rows [tokens chosen, columns], slots [tokens, chosen], counts [number].
    """
    rows, place, counts = apply(_Permute, x, experts, number)
    return rows, place, counts


def moe_unpermute(rows: torch.Tensor, place: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Each token's rows, by the slots of `moe_permute`, weighted and summed: [tokens, columns].

    Differentiable in the rows and in the weights [tokens, chosen], which are fp32, or float64 where the rows are.
    """
    y: torch.Tensor = apply(_Unpermute, rows, place, weights)
    return y


class _Permute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, experts: torch.Tensor, number: int) -> tuple[torch.Tensor, ...]:
        ctx.sizes = {"experts": number}
        rows, place, counts = run("moe_permute", "moe_permute", (x, experts), ctx.sizes)
        ctx.save_for_backward(experts, place)
        ctx.mark_non_differentiable(place, counts)
        return rows, place, counts

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs = (gradients[0], *ctx.saved_tensors)
        return (*run("moe_permute", "moe_permute_backward", inputs, ctx.sizes), None, None)


class _Unpermute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, place: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(rows, place, weights)
        return run("moe_unpermute", "moe_unpermute", (rows, place, weights), {})[0]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs = (gradients[0], *ctx.saved_tensors)
        of_rows, of_weights = run("moe_unpermute", "moe_unpermute_backward", inputs, {})
        return of_rows, None, of_weights
