"""Attention by halves against scores written out."""

from typing import Any

import pytest
import torch

from towtank.executor.distributed.grid import apply
from towtank.executor.layers.attention_core import Core, _Core, _GraphCore


def written_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None) -> torch.Tensor:
    """softmax(q k^T / sqrt(d)) v of the keys that each query sees."""
    group = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
    back = torch.arange(q.shape[1])[:, None] - torch.arange(q.shape[1])
    seen = (back >= 0) & (back < (window or q.shape[1]))
    return torch.einsum("bhqk,bkhd->bqhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v)


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("window", [None, 1, 5, 99])
@pytest.mark.parametrize("function", [_Core, _GraphCore])
def test_output_and_gradients(function: Any, window: int | None, repeats: bool) -> None:
    draw = torch.Generator().manual_seed(1)
    shapes = ((2, 19, 4, 8), (2, 19, 2, 8), (2, 19, 2, 8))
    inputs = [torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_() for shape in shapes]
    weights = torch.randn(shapes[0], generator=draw, dtype=torch.float64)
    found = apply(function, *inputs, Core("core", window, repeats))
    expected = written_out(*inputs, window)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    ours = torch.autograd.grad((found * weights).sum(), inputs)
    theirs = torch.autograd.grad((expected * weights).sum(), inputs)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)
