"""Cross-entropy over a vocabulary with its gradient, in one kernel; labels may be ignored."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from towtank.kernels.backends import library, triton
from towtank.kernels.draws import largest, normal
from towtank.kernels.records import DTYPE_BYTES, Allocate, Cost, Kernel, Sizes, Tile
from towtank.kernels.widen import wide

if TYPE_CHECKING:
    import torch

    Tensors = Sequence[torch.Tensor]

IGNORED = -100
"""A label that adds nothing to the loss: padding, or what the Goldfish mask leaves out (arXiv 2406.10209)."""
CASES: tuple[Sizes, ...] = (
    {"rows": 6, "vocabulary": 50},
    {"rows": 3, "vocabulary": 4099},
    {"rows": 5, "vocabulary": 9001},
    {"rows": 5, "vocabulary": 7, "ignored_every": 1},
    {"rows": 1, "vocabulary": 1},
    {"rows": 0, "vocabulary": 5},
)
FAR = ((0, 100.0), (1, -200.0))
"""Rows whose logits lie far from 0: their exponentials overflow or vanish in fp32, less their maximum they do not."""


def cross_entropy(inputs: "Tensors", sizes: Sizes) -> "tuple[torch.Tensor, ...]":
    """Mean loss over the labels that count, and its gradient (softmax(z) - 1 at the label) / number of these.

    z is [rows, vocabulary], labels are [rows]; the loss is [1]. Both are 0 where every label is ignored.
    """
    import torch

    logits, labels = inputs
    counted = labels != IGNORED
    number = max(1, int(counted.sum()))
    rows, chosen = logits[counted], labels[counted][:, None]
    gradient = torch.zeros_like(logits)
    part = rows.softmax(-1)
    gradient[counted] = part.scatter_add(1, chosen, torch.full_like(part[:, :1], -1.0)) / number
    losses = rows.logsumexp(-1) - rows.gather(1, chosen)[:, 0]
    return losses.sum()[None] / number, gradient


def _inputs(sizes: Sizes, dtype: "torch.dtype", generator: "torch.Generator") -> "tuple[torch.Tensor, ...]":
    import torch

    rows, vocabulary, every = sizes["rows"], sizes["vocabulary"], sizes["ignored_every"]
    labels = torch.randint(vocabulary, (rows,), generator=generator, device=generator.device)
    labels[:1] = vocabulary - 1  # the last one, for labels at random are seldom at an end
    labels[1:2] = 0
    labels[every - 1 :: every] = IGNORED
    logits = normal((rows, vocabulary), dtype, generator, 3.0)
    for row, shift in FAR:
        logits[row : row + 1] += shift
    return logits, labels


def _library(inputs: "Tensors", sizes: Sizes, tile: Tile, allocate: Allocate) -> "tuple[torch.Tensor, ...]":
    """PyTorch's loss, in fp32 at least, and its gradient."""
    import torch

    logits, labels = inputs
    leaf = logits.detach().requires_grad_()
    with torch.enable_grad():
        total = torch.nn.functional.cross_entropy(wide(leaf), labels, ignore_index=IGNORED, reduction="sum")
        loss = total / (labels != IGNORED).sum().clamp(min=1)
        (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.detach()[None], gradient


def _cost(sizes: Sizes, dtype: str) -> Cost:
    """Logits are read once and gradients written once, at best."""
    elements = sizes["rows"] * sizes["vocabulary"]
    moved = 2 * elements * DTYPE_BYTES[dtype] + sizes["rows"] * DTYPE_BYTES["int64"] + DTYPE_BYTES["float32"]
    return Cost(7.0 * elements, moved)


def _terms(inputs: "Tensors", sizes: Sizes) -> tuple[float, ...]:
    """A loss is the difference of logarithm and logit, its gradient that of a weight and 1, over the labels."""
    logits, labels = inputs
    number = max(1, int((labels != IGNORED).sum()))
    return largest(logits), 1.0 / number


KERNELS = (
    Kernel(
        name="cross_entropy",
        dimensions=("rows", "vocabulary"),
        backends=(library(_library), triton("cross_entropy", "cross_entropy")),
        inputs=_inputs,
        reference=cross_entropy,
        cost=_cost,
        cases=CASES,
        options={"ignored_every": 4},
        summed=lambda sizes: sizes["vocabulary"],
        terms=_terms,
        spreads=(0,),
    ),
)
