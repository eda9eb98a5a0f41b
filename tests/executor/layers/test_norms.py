"""Norms against PyTorch's own, and with features split over y."""

import pytest
import torch
from torch.nn import functional

from towtank.executor.distributed.boxes import split
from towtank.executor.distributed.mesh import Group
from towtank.executor.distributed.pieces import Initial, Piece, Sharing
from towtank.executor.distributed.scatters import Scatters
from towtank.executor.distributed.weights import Weight
from towtank.executor.layers import norms
from towtank.executor.layers.norms import Norm

ALONE = Group("alone", (0,), 0)


def vector(name: str, width: int, spread: float, dtype: torch.dtype) -> Weight:
    """Numbers of one kind for `width` features."""
    made = Weight(
        name, (Piece(split(name, (width,))),), Sharing(ALONE, ALONE, (), 1), Scatters(asynchronous=False)
    )
    made.materialize(Initial("normal", spread), 0, dtype, dtype, torch.device("cpu"))
    return made


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("centred", [False, True])
def test_norm_and_gradients_are_those_of_pytorch(centred: bool, biased: bool) -> None:
    if biased and not centred:
        biased = False  # PyTorch has no such norm
    weight = vector("w", 12, 1.0, torch.float64)
    bias = vector("b", 12, 1.0, torch.float64) if biased else None
    x = torch.randn(5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    dy = torch.randn(5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    w = weight.value.clone().requires_grad_()
    b = bias.value.clone().requires_grad_() if bias is not None else None
    expected = (
        functional.layer_norm(x, (12,), w, b, norms.EPSILON)
        if centred
        else functional.rms_norm(x, (12,), w, norms.EPSILON)
    )
    theirs = torch.autograd.grad(expected, [each for each in (x, w, b) if each is not None], dy)
    found = Norm("n", weight, bias, ALONE, centred=centred)(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    (dx,) = torch.autograd.grad(found, x, dy)
    torch.testing.assert_close(dx, theirs[0], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(weight.gradient, theirs[1], rtol=1e-11, atol=1e-12)
    if bias is not None:
        torch.testing.assert_close(bias.gradient, theirs[2], rtol=1e-11, atol=1e-12)


def test_features_that_are_all_the_same_have_a_norm_over_y(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of squares less the squared mean round below zero; two members of y with the same features."""
    monkeypatch.setattr(norms.collectives, "all_reduce", lambda tensor, *_: 2 * tensor)
    weight = vector("w", 7, 1.0, torch.float32)
    norm = Norm("n", weight, None, Group("tensor_y", (0, 1), 0), centred=True)
    x = torch.linspace(100.0, 3000.0, 64)[:, None].expand(64, 7).contiguous()
    variances = (2 * torch.linalg.vector_norm(x, dim=-1).square()) / 14 - (2 * x.sum(-1) / 14).square()
    assert float(variances.min()) < -norms.EPSILON  # what would be no number under a root
    assert bool(norm(x).isfinite().all())
