"""Multiplies of linear layers and of experts."""

from typing import Any

import torch

from towtank.kernels.functional.choice import apply, backend_of, run


def matmul(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """y[..., n] = x[..., k] W^T with W[n, k]; differentiable in both."""
    if backend_of("matmul", x.dtype, x.device.type) == "library":
        return torch.nn.functional.linear(x, weight)
    product: torch.Tensor = apply(_Matmul, x, weight)
    return product


def matmul_dgrad(gradient: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Gradient of x: dx[..., k] = dy[..., n] W; not differentiable again but by the library."""
    if backend_of("matmul", gradient.dtype, gradient.device.type) == "library":
        return torch.matmul(gradient, weight)
    rows = gradient.flatten(0, -2)
    sizes = {"m": rows.shape[0], "n": weight.shape[0], "k": weight.shape[1]}
    (result,) = run("matmul", "matmul_dgrad", (rows, weight), sizes)
    return result.view(*gradient.shape[:-1], weight.shape[1])


def matmul_wgrad(gradient: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Gradient of W: dW[n, k] = dy^T x, summed over all rows of dy[..., n] and x[..., k]."""
    rows, others = gradient.flatten(0, -2), x.flatten(0, -2)
    if backend_of("matmul", gradient.dtype, gradient.device.type) == "library":
        return torch.mm(rows.t(), others)
    sizes = {"m": rows.shape[0], "n": rows.shape[1], "k": others.shape[1]}
    return run("matmul", "matmul_wgrad", (rows, others), sizes)[0]


def grouped_matmul(x: torch.Tensor, weight: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """y[I_e] = x[I_e] W_e^T for the rows I_e of each expert e, which follow each other; differentiable in x and W.

    Args:
        x: [m, k], sorted by expert.
        weight: [experts, n, k].
        counts: rows of each expert, [experts] int64.
    """
    product: torch.Tensor = apply(_Grouped, x, weight, counts)
    return product


class _Matmul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        rows = x.flatten(0, -2)
        sizes = {"m": rows.shape[0], "n": weight.shape[0], "k": weight.shape[1]}
        (y,) = run("matmul", "matmul", (rows, weight), sizes)
        return y.view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        return (
            matmul_dgrad(gradient, weight) if ctx.needs_input_grad[0] else None,
            matmul_wgrad(gradient, x) if ctx.needs_input_grad[1] else None,
        )


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight, counts)
        return run("grouped_matmul", "grouped_matmul", (x, weight, counts), _grouped_sizes(x, weight))[0]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        x, weight, counts = ctx.saved_tensors
        sizes = _grouped_sizes(x, weight)
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            (of_x,) = run("grouped_matmul", "grouped_matmul_dgrad", (gradient, weight, counts), sizes)
        if ctx.needs_input_grad[1]:
            (of_weight,) = run("grouped_matmul", "grouped_matmul_wgrad", (gradient, x, counts), sizes)
        return of_x, of_weight, None


def _grouped_sizes(x: torch.Tensor, weight: torch.Tensor) -> dict[str, int]:
    experts, n, k = weight.shape
    return {"experts": experts, "m": x.shape[0], "n": n, "k": k}
