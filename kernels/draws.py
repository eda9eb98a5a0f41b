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


def largest(tensor: "torch.Tensor") -> float:
    """Largest absolute value among the finite elements; 0 where there is none."""
    finite = tensor[tensor.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0
