"""AdamW with fp32 master weights and moments and weights of 16 bits, in place."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from towtank.kernels.backends import library, triton
from towtank.kernels.counts import adam_bytes_per_parameter
from towtank.kernels.draws import largest, normal
from towtank.kernels.records import DTYPE_BYTES, Allocate, Cost, Kernel, Sizes, Tile

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]

CASES: tuple[Sizes, ...] = (
    {"elements": 300},
    {"elements": 2049, "step": 1},
    {"elements": 1, "step": 9},
    {"elements": 0},
)
LEARNING_RATE, BETA_1, BETA_2, EPSILON, DECAY = 3e-4, 0.9, 0.95, 1e-8, 0.1
"""What is usual; a call gets its own in its last input."""
TRIED = (0.03, (0.8, 0.9), 0.01, 0.4)
"""Rate, decays of the moments, epsilon and decay of weights that validation and measurements run with: each as large
as it takes for its loss to be seen beside the weights."""


def adamw(inputs: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, ...]":
    """One step of AdamW (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2).

    Inputs are the gradient, the fp32 master weight, first and second moment, the weight in the model's dtype, all
    [elements], and the settings: rate, beta 1, beta 2, epsilon, decay, step, 1 - beta_1^step, 1 - beta_2^step.
    """
    gradient, master, first, second, _, settings = inputs
    rate, beta_1, beta_2, epsilon, decay, _, correction_1, correction_2 = settings
    first = beta_1 * first + (1 - beta_1) * gradient
    second = beta_2 * second + (1 - beta_2) * gradient * gradient
    update = (first / correction_1) / ((second / correction_2).sqrt() + epsilon)
    master = master * (1 - rate * decay) - rate * update
    return master, first, second, master


def settings(
    step: int,
    rate: float = LEARNING_RATE,
    betas: tuple[float, float] = (BETA_1, BETA_2),
    epsilon: float = EPSILON,
    decay: float = DECAY,
) -> tuple[float, ...]:
    """The last input of the kernel at a step, which is counted from 1."""
    from numpy import float32

    beta_1, beta_2 = (float(float32(each)) for each in betas)
    return (rate, beta_1, beta_2, epsilon, decay, step, 1 - beta_1**step, 1 - beta_2**step)


def _inputs(sizes: Sizes, dtype: "torch.dtype", generator: "torch.Generator") -> "tuple[torch.Tensor, ...]":
    import torch

    shape, device = (sizes["elements"],), generator.device
    of_states = torch.float64 if dtype is torch.float64 else torch.float32
    master = normal(shape, of_states, generator)
    first = normal(shape, of_states, generator, 0.1)
    second = normal(shape, of_states, generator, 0.1).square()
    last = torch.tensor(settings(sizes["step"], *TRIED), dtype=of_states, device=device)
    # nobody reads the weight: what is not written stays NaN
    weight = torch.full(shape, float("nan"), dtype=dtype, device=device)
    return normal(shape, dtype, generator), master, first, second, weight, last


def _library(inputs: "Tensors", sizes: Sizes, tile: Tile, allocate: Allocate) -> "tuple[torch.Tensor, ...]":
    """PyTorch's fused AdamW, with settings that the host reads from their tensor."""
    gradient, *states, weight, last = inputs
    update(gradient, states, weight, last.tolist())
    return (*states, weight)


def update(
    gradient: "torch.Tensor",
    states: "Tensors",
    weight: "torch.Tensor | None",
    settings: Sequence[float],
) -> None:
    """PyTorch's fused AdamW on master weight and moments in place, then a copy into the weight, if there is one.

    `settings` are those of the kernel; the corrections in them follow from the others here.
    """
    import torch
    from torch.optim.adamw import adamw as step_of

    rate, beta_1, beta_2, epsilon, decay, step, *_ = settings
    # the fused kernel for CPUs takes every tensor for contiguous, whatever its strides
    master, first, second = (each.contiguous() for each in states)
    step_of(
        [master], [gradient.to(master.dtype).contiguous()], [first], [second], [],
        [torch.full((), float(step - 1), device=master.device)], fused=True, amsgrad=False,
        beta1=beta_1, beta2=beta_2, lr=rate, weight_decay=decay, eps=epsilon, maximize=False,
    )  # fmt: skip
    for given, own in zip(states, (master, first, second), strict=True):
        if given is not own:
            given.copy_(own)
    if weight is not None:
        weight.copy_(master)


def _terms(inputs: "Tensors", sizes: Sizes) -> tuple[float, ...]:
    """Weights and the first moment are sums of two terms of any sign."""
    gradient, master, first, *_ = inputs
    beta_1 = TRIED[1][0]
    moment = beta_1 * largest(first) + (1 - beta_1) * largest(gradient)
    return largest(master), moment, 0.0, largest(master)


def _cost(sizes: Sizes, dtype: str) -> Cost:
    element = DTYPE_BYTES[dtype]
    moved = adam_bytes_per_parameter(element, 4.0, element)
    if dtype == "float64":  # master weight and moments as well
        moved = 2 * adam_bytes_per_parameter(4.0, 4.0, 4.0)
    return Cost(14.0 * sizes["elements"], moved * sizes["elements"])


KERNELS = (
    Kernel(
        name="adamw",
        dimensions=("elements",),
        backends=(library(_library), triton("adamw", "adamw")),
        inputs=_inputs,
        reference=adamw,
        cost=_cost,
        cases=CASES,
        options={"step": 10},
        in_place=(1, 2, 3, 4),
        aside=(4, 5),
        terms=_terms,
    ),
)
