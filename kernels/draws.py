"""Random inputs of kernels, and what their references have in common."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def normal(
    shape: Sequence[int], dtype: "torch.dtype", generator: "torch.Generator", scale: float = 1.0
) -> "torch.Tensor":
    """A tensor of normal numbers on the generator's device, drawn in fp32 and rounded to `dtype`."""
    import torch

    wide = torch.randn(tuple(shape), generator=generator, device=generator.device)
    return (scale * wide).to(dtype)


def sum_of_products(one: "torch.Tensor", other: "torch.Tensor", summed: int) -> float:
    """Size of a sum of so many products of elements of two tensors that are not of one sign: sqrt(s) rms(a) rms(b).

    The scale of a matrix multiply whose output is too small for its largest element to be one.
    """
    sizes = [each[each.isfinite()].square().mean().sqrt() for each in (one, other)]
    return float(summed**0.5 * sizes[0] * sizes[1]) if one.numel() * other.numel() else 0.0


def largest(tensor: "torch.Tensor") -> float:
    """Largest absolute value among the finite elements; 0 where there is none."""
    finite = tensor[tensor.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0
