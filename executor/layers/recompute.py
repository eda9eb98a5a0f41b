"""Forward passes that run again in the backward pass, and what is told when the backward pass of a layer is over."""

from collections.abc import Callable
from typing import Any

import torch

from towtank.executor.layers.phases import recomputing


def run_again(function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
    """Call a function of tensors, keep nothing but the inputs, and call it once more in the backward pass.

    Gradients of weights are side effects of the second call's backward pass, as everywhere in the executor. Dropout
    masks are functions of the step and the token, so both calls draw the same.
    """
    made: torch.Tensor = _Again.apply(function, *inputs)  # type: ignore[no-untyped-call]
    return made


def when_finished(x: torch.Tensor, act: Callable[[], None]) -> torch.Tensor:
    """`x`; `act` is called in the backward pass, when all that came after `x` has been through."""
    same: torch.Tensor = _WhenFinished.apply(x, act)  # type: ignore[no-untyped-call]
    return same


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        ctx.function = function
        ctx.save_for_backward(*inputs)
        return function(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        needed = ctx.needs_input_grad[1:]
        inputs = [
            saved.detach().requires_grad_(need) for saved, need in zip(ctx.saved_tensors, needed, strict=True)
        ]
        with torch.enable_grad(), recomputing():
            made = ctx.function(*inputs)
        torch.autograd.backward(made, gradients[0])
        return None, *(one.grad for one in inputs)


class _WhenFinished(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, act: Callable[[], None]) -> torch.Tensor:
        ctx.act = act
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        ctx.act()
        return gradients[0], None
