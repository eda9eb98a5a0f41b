"""Permutation of tokens in Triton: one program moves one block of columns of one token, to or from all its slots."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from towtank.kernels.moe_permute import slots
from towtank.kernels.records import Allocate, Launch, Sizes, Tile

Tensors = Sequence[torch.Tensor]
_BLOCK = 4096


@triton.jit
def _scatter(x, place, rows, columns, CHOSEN: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + token * columns + column, mask=column < columns)
    for choice in range(CHOSEN):
        slot = tl.load(place + token * CHOSEN + choice)
        tl.store(rows + slot * columns + column, value, mask=column < columns)


@triton.jit
def _gather(rows, place, weights, y, columns, CHOSEN: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for choice in range(CHOSEN):
        slot = tl.load(place + token * CHOSEN + choice)
        weight = tl.load(weights + token * CHOSEN + choice).to(tl.float32)
        value = tl.load(rows + slot * columns + column, mask=column < columns, other=0.0)
        total += weight * value.to(tl.float32)
    tl.store(y + token * columns + column, total.to(y.dtype.element_ty), mask=column < columns)


@triton.jit
def _sum(gradient, place, y, columns, CHOSEN: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for choice in range(CHOSEN):
        slot = tl.load(place + token * CHOSEN + choice)
        total += tl.load(gradient + slot * columns + column, mask=column < columns, other=0.0).to(tl.float32)
    tl.store(y + token * columns + column, total.to(y.dtype.element_ty), mask=column < columns)


@triton.jit
def _spread(
    gradient, rows, place, weights, of_rows, of_weights, columns, CHOSEN: tl.constexpr, BLOCK: tl.constexpr
):
    # one program for one choice of one token, over all columns: the gradient of its weight is a sum over these
    choice = tl.program_id(0).to(tl.int64)
    slot = tl.load(place + choice)
    weight = tl.load(weights + choice).to(tl.float32)
    gradient += choice // CHOSEN * columns
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, columns, BLOCK):
        column = start + tl.arange(0, BLOCK)
        inside = column < columns
        given = tl.load(gradient + column, mask=inside, other=0.0).to(tl.float32)
        value = tl.load(rows + slot * columns + column, mask=inside, other=0.0).to(tl.float32)
        total += given * value
        back = (weight * given).to(of_rows.dtype.element_ty)
        tl.store(of_rows + slot * columns + column, back, mask=inside)
    tl.store(of_weights + choice, tl.sum(total, 0).to(of_weights.dtype.element_ty))


def _blocks(columns: int) -> tuple[int, int]:
    """Columns of one program, and programs for a row."""
    block = min(_BLOCK, triton.next_power_of_2(columns))
    return block, triton.cdiv(columns, block)


def _launch_permute(
    inputs: Tensors, sizes: Sizes, tile: Tile, allocate: Allocate
) -> tuple[torch.Tensor, ...]:
    x, experts = (each.contiguous() for each in inputs)
    (tokens, columns), chosen = x.shape, experts.shape[1]
    place = slots(experts)
    rows = allocate(tokens * chosen, columns, dtype=x.dtype)
    block, programs = _blocks(columns)
    _scatter[(tokens, programs)](x, place, rows, columns, chosen, block)
    # a sum over comparisons, for a count of bins would wait for the device to know their number
    numbers = torch.arange(sizes["experts"], device=experts.device)
    return rows, place, (experts.flatten()[:, None] == numbers).sum(0)


def _launch_unpermute(
    inputs: Tensors, sizes: Sizes, tile: Tile, allocate: Allocate
) -> tuple[torch.Tensor, ...]:
    rows, place, weights = (each.contiguous() for each in inputs)
    tokens, chosen = place.shape
    y = allocate(tokens, rows.shape[1], dtype=rows.dtype)
    block, programs = _blocks(rows.shape[1])
    _gather[(tokens, programs)](rows, place, weights, y, rows.shape[1], chosen, block)
    return (y,)


def _launch_permute_backward(
    inputs: Tensors, sizes: Sizes, tile: Tile, allocate: Allocate
) -> tuple[torch.Tensor, ...]:
    gradient, _, place = (each.contiguous() for each in inputs)
    tokens, chosen = place.shape
    x_gradient = allocate(tokens, gradient.shape[1], dtype=gradient.dtype)
    block, programs = _blocks(gradient.shape[1])
    _sum[(tokens, programs)](gradient, place, x_gradient, gradient.shape[1], chosen, block)
    return (x_gradient,)


def _launch_unpermute_backward(
    inputs: Tensors, sizes: Sizes, tile: Tile, allocate: Allocate
) -> tuple[torch.Tensor, ...]:
    gradient, rows, place, weights = (each.contiguous() for each in inputs)
    of_rows = allocate(*rows.shape, dtype=rows.dtype)
    of_weights = allocate(*weights.shape, dtype=weights.dtype)
    block, _ = _blocks(rows.shape[1])
    _spread[(place.numel(),)](
        gradient, rows, place, weights, of_rows, of_weights, rows.shape[1], place.shape[1], block
    )
    return of_rows, of_weights


LAUNCHERS: dict[str, Launch] = {
    "moe_permute": _launch_permute,
    "moe_unpermute": _launch_unpermute,
    "moe_permute_backward": _launch_permute_backward,
    "moe_unpermute_backward": _launch_unpermute_backward,
}
