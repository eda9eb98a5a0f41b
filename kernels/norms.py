"""RMSNorm and LayerNorm, forward and backward."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from towtank.kernels.backends import library_missing, triton_missing
from towtank.kernels.gradients import gradients_of
from towtank.kernels.records import DTYPE_BYTES, Allocate, Backend, Cost, Kernel, Launch, Sizes, Tile

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]

EPSILON = 1e-5
DTYPES = ("float32", "float16", "bfloat16")
CASES: tuple[Sizes, ...] = (
    {"rows": 8, "columns": 64},
    {"rows": 5, "columns": 33},
    {"rows": 3, "columns": 257},
    {"rows": 1, "columns": 1},
)


def rms_norm(inputs: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, ...]":
    """y = x / sqrt(mean(x^2) + e) w (Zhang and Sennrich, arXiv 1910.07467, equation 4); x [rows, columns]."""
    x, weight = inputs
    return (x * (x.square().mean(-1, keepdim=True) + EPSILON).rsqrt() * weight,)


def layer_norm(inputs: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, ...]":
    """y = (x - mean(x)) / sqrt(var(x) + e) w + b (Ba et al., arXiv 1607.06450, equation 4); x [rows, columns]."""
    x, weight, bias = inputs
    centred = x - x.mean(-1, keepdim=True)
    return (centred * (centred.square().mean(-1, keepdim=True) + EPSILON).rsqrt() * weight + bias,)


def _inputs(
    matrices: int, vectors: int
) -> "Callable[[Sizes, torch.dtype, torch.Generator], tuple[torch.Tensor, ...]]":
    """So many tensors [rows, columns], then so many [columns]."""

    def inputs(
        sizes: Sizes, dtype: "torch.dtype", generator: "torch.Generator"
    ) -> "tuple[torch.Tensor, ...]":
        import torch

        shape = (sizes["rows"], sizes["columns"])
        shapes = [shape] * matrices + [shape[1:]] * vectors
        wide = [torch.randn(each, generator=generator, device=generator.device) for each in shapes]
        return tuple(each.to(dtype) for each in wide)

    return inputs


def _cost(matrices: int, vectors: int, flop_per_element: float) -> Callable[[Sizes, str], Cost]:
    """Cost of reading and writing so many tensors [rows, columns] and [columns]."""

    def cost(sizes: Sizes, dtype: str) -> Cost:
        elements = sizes["rows"] * sizes["columns"]
        moved = matrices * elements + vectors * sizes["columns"]
        return Cost(flop_per_element * elements, moved * DTYPE_BYTES[dtype])

    return cost


def _library(operation: str) -> Launch:
    """PyTorch's own norm; a backward pass through autograd, which runs the forward pass again."""
    import torch

    def forward(inputs: "Tensors") -> "torch.Tensor":
        x, *vectors = inputs
        norm = torch.nn.functional.rms_norm if operation.startswith("rms") else torch.nn.functional.layer_norm
        return norm(x, x.shape[-1:], *vectors, eps=EPSILON)

    def launch(inputs: "Tensors", sizes: Sizes, tile: Tile, allocate: Allocate) -> "tuple[torch.Tensor, ...]":
        if not operation.endswith("backward"):
            return (forward(inputs),)
        gradient, *given = inputs
        leaves = [each.detach().requires_grad_() for each in given]
        with torch.enable_grad():
            return torch.autograd.grad(forward(leaves), leaves, gradient)

    return launch


def _triton(operation: str) -> Launch:
    from towtank.kernels.triton_code import norms

    return norms.LAUNCHERS[operation]


def _backends(operation: str) -> tuple[Backend, ...]:
    return (
        Backend("library", lambda: _library(operation), DTYPES, library_missing),
        Backend("triton", lambda: _triton(operation), DTYPES, triton_missing),
    )


def _kernel(
    name: str,
    reference: "Callable[[Tensors, Sizes], tuple[torch.Tensor, ...]]",
    matrices: int,
    vectors: int,
    cost: Callable[[Sizes, str], Cost],
    summed: Callable[[Sizes], int],
) -> Kernel:
    return Kernel(
        name=name,
        dimensions=("rows", "columns"),
        backends=_backends(name),
        inputs=_inputs(matrices, vectors),
        reference=reference,
        cost=cost,
        cases=CASES,
        summed=summed,
    )


def _columns(sizes: Sizes) -> int:
    return sizes["columns"]


def _rows_and_columns(sizes: Sizes) -> int:
    """Gradients of the weights are sums over rows of what is a sum over columns."""
    return sizes["rows"] * sizes["columns"]


KERNELS = (
    # a row is read once and kept: input, output, weight (and bias)
    _kernel("rms_norm", rms_norm, 1, 1, _cost(2, 1, 4), _columns),
    _kernel("layer_norm", layer_norm, 1, 2, _cost(2, 2, 6), _columns),
    # gradient of the output, input and gradient of the input; weight and gradients of the vectors
    _kernel("rms_norm_backward", gradients_of(rms_norm, (0, 1)), 2, 1, _cost(3, 2, 11), _rows_and_columns),
    _kernel(
        "layer_norm_backward", gradients_of(layer_norm, (0, 1, 2)), 2, 2, _cost(3, 3, 14), _rows_and_columns
    ),
)
