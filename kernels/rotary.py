"""Rotary position embedding, forward and backward."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from towtank.kernels.backends import library, triton
from towtank.kernels.draws import normal
from towtank.kernels.gradients import gradients_of
from towtank.kernels.records import DTYPE_BYTES, Allocate, Cost, Kernel, Launch, Sizes, Tile
from towtank.kernels.widen import wide

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]

BASE = 10000.0
CASES: tuple[Sizes, ...] = (
    {"batch": 2, "sequence": 3, "heads": 4, "head_dim": 16},
    {"batch": 1, "sequence": 4, "heads": 3, "head_dim": 6},
    {"batch": 1, "sequence": 1, "heads": 1, "head_dim": 2},
    {"batch": 2, "sequence": 0, "heads": 3, "head_dim": 4},
)


def rotary(inputs: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, ...]":
    """Rotate the pairs (x_i, x_{i + d/2}) by their angles (Su et al., arXiv 2104.09864, equation 34).

    x is [batch, sequence, heads, d]; cos and sin are [sequence, d/2]. Halves are paired, as in GPT-NeoX and
    Llama.
    """
    import torch

    x, cos, sin = inputs
    first, second = x.chunk(2, -1)
    cos, sin = cos[:, None, :], sin[:, None, :]
    return (torch.cat((first * cos - second * sin, second * cos + first * sin), -1),)


def _angles(
    sizes: Sizes, dtype: "torch.dtype", device: "torch.device"
) -> "tuple[torch.Tensor, torch.Tensor]":
    import torch

    pairs = torch.arange(0, sizes["head_dim"], 2, device=device, dtype=torch.float32) / sizes["head_dim"]
    angles = torch.outer(torch.arange(sizes["sequence"], device=device).float(), BASE**-pairs)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _inputs(sizes: Sizes, dtype: "torch.dtype", generator: "torch.Generator") -> "tuple[torch.Tensor, ...]":
    shape = [sizes[name] for name in ("batch", "sequence", "heads", "head_dim")]
    return (normal(shape, dtype, generator), *_angles(sizes, dtype, generator.device))


def _inputs_backward(
    sizes: Sizes, dtype: "torch.dtype", generator: "torch.Generator"
) -> "tuple[torch.Tensor, ...]":
    """Gradient of the output, cos and sin: the input itself is not needed."""
    return _inputs(sizes, dtype, generator)


def _backward(inputs: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, ...]":
    gradient, cos, sin = inputs
    # linear in x, so that any x gives the gradient
    return gradients_of(rotary, (0,))((gradient, gradient.new_zeros(gradient.shape), cos, sin), sizes)


def _library(inputs: "Tensors", sizes: Sizes, tile: Tile, allocate: Allocate) -> "tuple[torch.Tensor, ...]":
    """A row of PyTorch operations, which has no rotation of its own."""
    return (rotary([wide(each) for each in inputs], sizes)[0].to(inputs[0].dtype),)


def _library_backward(
    inputs: "Tensors", sizes: Sizes, tile: Tile, allocate: Allocate
) -> "tuple[torch.Tensor, ...]":
    gradient, cos, sin = inputs
    return _library((gradient, cos, -sin), sizes, tile, allocate)


def _cost(sizes: Sizes, dtype: str) -> Cost:
    angles = sizes["sequence"] * sizes["head_dim"]
    elements = sizes["batch"] * angles * sizes["heads"]
    return Cost(3.0 * elements, (2 * elements + angles) * DTYPE_BYTES[dtype])


def _fault(sizes: Sizes) -> str | None:
    odd = sizes["head_dim"] % 2
    return f"head_dim must be even, for its halves are paired, got {sizes['head_dim']}" if odd else None


def _kernel(name: str, backward: bool) -> Kernel:
    launch: Launch = _library_backward if backward else _library
    return Kernel(
        name=name,
        dimensions=("batch", "sequence", "heads", "head_dim"),
        backends=(library(launch), triton("rotary", name)),
        inputs=_inputs_backward if backward else _inputs,
        reference=_backward if backward else rotary,
        cost=_cost,
        cases=CASES,
        fault=_fault,
    )


KERNELS = (_kernel("rotary", False), _kernel("rotary_backward", True))
