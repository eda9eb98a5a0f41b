"""RMSNorm and LayerNorm, forward and backward."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from towtank.kernels.backends import library, triton
from towtank.kernels.draws import largest, normal
from towtank.kernels.gradients import ThroughAutograd, gradients_of
from towtank.kernels.records import DTYPE_BYTES, Allocate, Cost, Kernel, Sizes, Tile
from towtank.kernels.widen import wide

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]
    Reference = Callable[[Tensors, Sizes], tuple[torch.Tensor, ...]]

OPTIONS = {"epsilon_ppb": 10_000}
"""What is added to the mean square, in parts per billion: 1e-5 by default, as in Llama and GPT-2."""
CASES: tuple[Sizes, ...] = (
    {"rows": 8, "columns": 64},
    {"rows": 5, "columns": 33, "epsilon_ppb": 250_000_000},
    {"rows": 3, "columns": 257, "epsilon_ppb": 1_000},
    {"rows": 37, "columns": 40},
    {"rows": 1, "columns": 1},
    {"rows": 0, "columns": 5},
)
FAR, MANY = 1024.0, 32
"""How far the last of many rows lies from 0, forward: its variance is not found as a difference of mean squares."""


def epsilon_of(sizes: Sizes) -> float:
    """What is added to the mean square."""
    return sizes.get("epsilon_ppb", OPTIONS["epsilon_ppb"]) * 1e-9


def rms_norm(inputs: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, ...]":
    """y = x / sqrt(mean(x^2) + e) w (Zhang and Sennrich, arXiv 1910.07467, equation 4); x [rows, columns]."""
    x, weight = inputs
    return (x * (x.square().mean(-1, keepdim=True) + epsilon_of(sizes)).rsqrt() * weight,)


def layer_norm(inputs: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, ...]":
    """y = (x - mean(x)) / sqrt(var(x) + e) w + b (Ba et al., arXiv 1607.06450, equation 4); x [rows, columns]."""
    x, weight, bias = inputs
    centred = x - x.mean(-1, keepdim=True)
    return (centred * (centred.square().mean(-1, keepdim=True) + epsilon_of(sizes)).rsqrt() * weight + bias,)


def _inputs(
    matrices: int, vectors: int
) -> "Callable[[Sizes, torch.dtype, torch.Generator], tuple[torch.Tensor, ...]]":
    """So many tensors [rows, columns], then so many [columns]."""

    def inputs(
        sizes: Sizes, dtype: "torch.dtype", generator: "torch.Generator"
    ) -> "tuple[torch.Tensor, ...]":
        shape = (sizes["rows"], sizes["columns"])
        found = tuple(normal(each, dtype, generator) for each in [shape] * matrices + [shape[1:]] * vectors)
        if matrices == 1 and sizes["rows"] >= MANY:
            found[0][-1] += FAR
        return found

    return inputs


def _cost(matrices: int, vectors: int, flop_per_element: float) -> Callable[[Sizes, str], Cost]:
    """Cost of reading and writing so many tensors [rows, columns] and [columns]."""

    def cost(sizes: Sizes, dtype: str) -> Cost:
        elements = sizes["rows"] * sizes["columns"]
        moved = matrices * elements + vectors * sizes["columns"]
        return Cost(flop_per_element * elements, moved * DTYPE_BYTES[dtype])

    return cost


def _forward(inputs: "Tensors", sizes: Sizes) -> "torch.Tensor":
    """PyTorch's norm of x by weight, or by weight and bias."""
    import torch

    x, weight, *bias = inputs
    if bias:
        return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias[0], epsilon_of(sizes))
    return torch.nn.functional.rms_norm(x, x.shape[-1:], weight, epsilon_of(sizes))


def differentiable(inputs: "Tensors", sizes: Sizes) -> "torch.Tensor":
    """The norm whose gradients autograd takes; in fp32 on CPUs, where PyTorch sums those of weights in 16 bits."""
    x = inputs[0]
    if x.device.type == "cpu":
        return _forward([wide(each) for each in inputs], sizes).to(x.dtype)
    return _forward(inputs, sizes)


def _library_forward(
    inputs: "Tensors", sizes: Sizes, tile: Tile, allocate: Allocate
) -> "tuple[torch.Tensor, ...]":
    return (_forward(inputs, sizes),)


def _deviation(x: "torch.Tensor", centred: bool, sizes: Sizes) -> "torch.Tensor":
    """One over the deviation of each row, which is up to 1 / sqrt(e) where a row has one value only."""
    value = x - x.mean(-1, keepdim=True) if centred else x
    return (value.square().mean(-1, keepdim=True) + epsilon_of(sizes)).rsqrt()


def _terms(inputs: "Tensors", sizes: Sizes) -> tuple[float, ...]:
    """y = s (x - mean(x)) w + b with s one over the deviation: what cancels is s x w."""
    x, weight, *bias = inputs
    return (largest(x * weight * _deviation(x, bool(bias), sizes)),)


def _terms_backward(inputs: "Tensors", sizes: Sizes) -> tuple[float, ...]:
    """The gradient of x is s times w g less two means of it, that of w is a sum of s g (x - mean(x))."""
    gradient, x, weight, *bias = inputs
    scale = _deviation(x, bool(bias), sizes)
    return (largest(gradient * weight * scale), largest(gradient * x * scale), largest(gradient))


def _columns(sizes: Sizes) -> int:
    return sizes["columns"]


def _rows_and_columns(sizes: Sizes) -> int:
    """Gradients of the weights are sums over rows of what is a sum over columns."""
    return sizes["rows"] * sizes["columns"]


def _norm(name: str, reference: "Reference", vectors: int, flop: float) -> Kernel:
    return Kernel(
        name=name,
        dimensions=("rows", "columns"),
        backends=(library(_library_forward), triton("norms", name)),
        inputs=_inputs(1, vectors),
        reference=reference,
        # a row is read once and kept: input, output, weight (and bias)
        cost=_cost(2, vectors, flop),
        cases=CASES,
        options=OPTIONS,
        summed=_columns,
        terms=_terms,
    )


def _norm_backward(name: str, reference: "Reference", vectors: int, flop: float) -> Kernel:
    return Kernel(
        name=name,
        dimensions=("rows", "columns"),
        backends=(library(ThroughAutograd(differentiable)), triton("norms", name)),
        inputs=_inputs(2, vectors),
        reference=gradients_of(reference, tuple(range(1 + vectors))),
        # gradient of the output, input and gradient of the input; weight, gradients of the vectors
        cost=_cost(3, 1 + vectors, flop),
        cases=CASES,
        options=OPTIONS,
        summed=_rows_and_columns,
        terms=_terms_backward,
    )


KERNELS = (
    _norm("rms_norm", rms_norm, 1, 4),
    _norm("layer_norm", layer_norm, 2, 6),
    _norm_backward("rms_norm_backward", rms_norm, 1, 11),
    _norm_backward("layer_norm_backward", layer_norm, 2, 14),
)
