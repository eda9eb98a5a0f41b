"""SwiGLU and GELU, forward and backward."""

from collections.abc import Callable, Sequence
from math import pi, sqrt
from typing import TYPE_CHECKING

from towtank.kernels.backends import library, triton
from towtank.kernels.draws import largest, normal
from towtank.kernels.gradients import ThroughAutograd, gradients_of
from towtank.kernels.records import DTYPE_BYTES, Allocate, Cost, Kernel, Launch, Sizes, Tile, no_terms

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]

CASES: tuple[Sizes, ...] = (
    {"rows": 8, "columns": 64},
    {"rows": 5, "columns": 33},
    {"rows": 3, "columns": 347},
    # more than one block of elements
    {"rows": 7, "columns": 611},
    {"rows": 1, "columns": 1},
    {"rows": 0, "columns": 5},
)
GELU_SCALE = sqrt(2 / pi)
GELU_CUBIC = 0.044715
"""Constants of the approximation of GELU by a hyperbolic tangent (arXiv 1606.08415, section 2)."""


def swiglu(inputs: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, ...]":
    """y = g sigmoid(g) u (Shazeer, arXiv 2002.05202, equation 6); gate g and input u are [rows, columns]."""
    gate, up = inputs
    return (gate * gate.sigmoid() * up,)


def gelu(inputs: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, ...]":
    """y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), as GPT uses it; x is [rows, columns]."""
    (x,) = inputs
    return (0.5 * x * (1 + (GELU_SCALE * (x + GELU_CUBIC * x**3)).tanh()),)


def library_swiglu(inputs: "Tensors", sizes: Sizes) -> "torch.Tensor":
    """SwiGLU by two operations of PyTorch."""
    import torch

    return torch.nn.functional.silu(inputs[0]) * inputs[1]


def library_gelu(inputs: "Tensors", sizes: Sizes) -> "torch.Tensor":
    """PyTorch's GELU."""
    import torch

    return torch.nn.functional.gelu(inputs[0], approximate="tanh")


def _forward(operation: "Callable[[Tensors, Sizes], torch.Tensor]") -> Launch:
    def launch(inputs: "Tensors", sizes: Sizes, tile: Tile, allocate: Allocate) -> "tuple[torch.Tensor, ...]":
        return (operation(inputs, sizes),)

    return launch


def _gate_terms(inputs: "Tensors", sizes: Sizes) -> tuple[float, ...]:
    gradient, _, up = inputs
    return largest(gradient * up), 0.0


def _gelu_terms(inputs: "Tensors", sizes: Sizes) -> tuple[float, ...]:
    """Of x forward and of its gradient, the first input, backward."""
    return (largest(inputs[0]),)


def _kernel(
    name: str,
    tensors: int,
    launch: Launch,
    reference: "Callable[[Tensors, Sizes], tuple[torch.Tensor, ...]]",
    read_and_written: int,
    flop: float,
    terms: "Callable[[Tensors, Sizes], tuple[float, ...]] | None" = None,
) -> Kernel:
    def inputs(
        sizes: Sizes, dtype: "torch.dtype", generator: "torch.Generator"
    ) -> "tuple[torch.Tensor, ...]":
        shape = (sizes["rows"], sizes["columns"])
        return tuple(normal(shape, dtype, generator) for _ in range(tensors))

    def cost(sizes: Sizes, dtype: str) -> Cost:
        elements = sizes["rows"] * sizes["columns"]
        return Cost(flop * elements, read_and_written * elements * DTYPE_BYTES[dtype])

    return Kernel(
        name=name,
        dimensions=("rows", "columns"),
        backends=(library(launch), triton("activations", name)),
        inputs=inputs,
        reference=reference,
        cost=cost,
        cases=CASES,
        terms=terms or no_terms,
    )


KERNELS = (
    # what cancels where an output is near 0: halves of a sigmoid's or a tangent's range, times what they multiply
    _kernel("swiglu", 2, _forward(library_swiglu), swiglu, 3, 6),
    _kernel(
        "swiglu_backward",
        3,
        ThroughAutograd(library_swiglu),
        gradients_of(swiglu, (0, 1)),
        5,
        13,
        _gate_terms,
    ),
    _kernel("gelu", 1, _forward(library_gelu), gelu, 2, 9, _gelu_terms),
    _kernel("gelu_backward", 2, ThroughAutograd(library_gelu), gradients_of(gelu, (0,)), 3, 16, _gelu_terms),
)
