"""The precision in which kernels compute."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def wide(tensor: "torch.Tensor") -> "torch.Tensor":
    """The tensor in fp32 if it is narrower, as arithmetic inside of kernels is; else itself."""
    import torch

    return tensor if tensor.dtype is torch.float64 else tensor.float()
