"""Cross-entropy in Triton: one program reads a row twice, for its loss and for the gradient that it writes."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from towtank.kernels.cross_entropy import IGNORED
from towtank.kernels.records import Allocate, Launch, Sizes, Tile

Tensors = Sequence[torch.Tensor]
_BLOCK = 4096


@triton.jit
def _row(
    logits, labels, number, losses, gradient, vocabulary, IGNORED_LABEL: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    label = tl.load(labels + row)
    counts = label != IGNORED_LABEL
    logits += row * vocabulary
    gradient += row * vocabulary
    column = tl.arange(0, BLOCK)
    # sums by place in the block, each with its own maximum: one reduction in the end instead of one a block
    top = tl.full((BLOCK,), float("-inf"), tl.float32)
    weight = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, vocabulary, BLOCK):
        inside = start + column < vocabulary
        value = tl.load(logits + start + column, mask=inside, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(top, value)
        level = tl.where(higher == float("-inf"), 0.0, higher)
        weight = weight * tl.exp(top - level) + tl.exp(value - level)
        top = higher
    highest = tl.max(top, 0)
    total = tl.sum(tl.where(weight == 0.0, 0.0, weight * tl.exp(top - highest)), 0)
    share = tl.where(counts, 1.0 / tl.load(number).to(tl.float32), 0.0)
    # a label that is none of the vocabulary has no logit: its loss is NaN
    known = (label >= 0) & (label < vocabulary)
    chosen = tl.load(logits + label, mask=known, other=float("nan")).to(tl.float32)
    loss = highest + tl.log(total) - chosen
    tl.store(losses + row, tl.where(counts, loss, 0.0))
    for start in range(0, vocabulary, BLOCK):
        place = start + column
        value = tl.load(logits + place, mask=place < vocabulary, other=0.0).to(tl.float32)
        part = tl.exp(value - highest) / total - tl.where(place == label, 1.0, 0.0)
        back = tl.where(counts, part * share, 0.0)
        tl.store(gradient + place, back.to(gradient.dtype.element_ty), mask=place < vocabulary)


def _launch(inputs: Tensors, sizes: Sizes, tile: Tile, allocate: Allocate) -> tuple[torch.Tensor, ...]:
    logits, labels = (each.contiguous() for each in inputs)
    rows, vocabulary = logits.shape
    losses = allocate(rows, dtype=torch.float32)
    gradient = allocate(rows, vocabulary, dtype=logits.dtype)
    number = (labels != IGNORED).sum().clamp(min=1)
    block = min(_BLOCK, triton.next_power_of_2(vocabulary))
    _row[(rows,)](logits, labels, number, losses, gradient, vocabulary, IGNORED, block, num_warps=8)
    return losses.sum()[None] / number, gradient


LAUNCHERS: dict[str, Launch] = {"cross_entropy": _launch}
