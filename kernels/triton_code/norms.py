"""Norms in Triton: one program handles one row, or in a backward pass a block of rows.

A row is held in registers as a whole; arithmetic is fp32, inputs and outputs are in their own dtype.
"""

from collections.abc import Sequence
from functools import partial

import torch
import triton
import triton.language as tl

from towtank.kernels.norms import epsilon_of
from towtank.kernels.records import Allocate, Launch, Sizes, Tile

Tensors = Sequence[torch.Tensor]
_ROWS_OF_A_PROGRAM = 16


@triton.jit
def _forward(x, weight, bias, y, columns, epsilon, CENTRED: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < columns
    value = tl.load(x + row * columns + column, mask=inside, other=0.0).to(tl.float32)
    if CENTRED:
        value = tl.where(inside, value - tl.sum(value, 0) / columns, 0.0)
    scale = tl.rsqrt(tl.sum(value * value, 0) / columns + epsilon)
    result = value * scale * tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    if CENTRED:
        result += tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row * columns + column, result.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    gradient, x, weight, x_gradient, weight_sums, bias_sums, rows, columns, epsilon,
    CENTRED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < columns
    factor = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    weight_sum = tl.zeros((BLOCK,), tl.float32)
    bias_sum = tl.zeros((BLOCK,), tl.float32)
    for row in range(program * ROWS, min(program * ROWS + ROWS, rows)):
        value = tl.load(x + row * columns + column, mask=inside, other=0.0).to(tl.float32)
        given = tl.load(gradient + row * columns + column, mask=inside, other=0.0).to(tl.float32)
        if CENTRED:
            value = tl.where(inside, value - tl.sum(value, 0) / columns, 0.0)
        scale = tl.rsqrt(tl.sum(value * value, 0) / columns + epsilon)
        normal = value * scale
        weight_sum += given * normal
        bias_sum += given
        inner = given * factor
        back = inner - normal * (tl.sum(inner * normal, 0) / columns)
        if CENTRED:
            back -= tl.sum(inner, 0) / columns
        tl.store(
            x_gradient + row * columns + column, (back * scale).to(x_gradient.dtype.element_ty), mask=inside
        )
    tl.store(weight_sums + program * columns + column, weight_sum, mask=inside)
    if CENTRED:
        tl.store(bias_sums + program * columns + column, bias_sum, mask=inside)


def _warps(block: int) -> int:
    """Warps of a program that holds a row of `block` elements: 8 to 32 elements a thread."""
    return max(4, min(16, block // 1024))


def _launch_forward(
    centred: bool, inputs: Tensors, sizes: Sizes, tile: Tile, allocate: Allocate
) -> tuple[torch.Tensor, ...]:
    x, weight, *others = (each.contiguous() for each in inputs)
    rows, columns = x.shape
    y = allocate(rows, columns, dtype=x.dtype)
    bias = others[0] if others else weight
    block = triton.next_power_of_2(columns)
    _forward[(rows,)](x, weight, bias, y, columns, epsilon_of(sizes), centred, block, num_warps=_warps(block))
    return (y,)


def _launch_backward(
    centred: bool, inputs: Tensors, sizes: Sizes, tile: Tile, allocate: Allocate
) -> tuple[torch.Tensor, ...]:
    gradient, x, weight, *_ = (each.contiguous() for each in inputs)
    rows, columns = x.shape
    programs, block = triton.cdiv(rows, _ROWS_OF_A_PROGRAM), triton.next_power_of_2(columns)
    x_gradient = allocate(rows, columns, dtype=x.dtype)
    # each program leaves the sums of its rows; fp32, so that their sum over programs loses nothing
    sums = [allocate(programs, columns, dtype=torch.float32) for _ in range(2 if centred else 1)]
    _backward[(programs,)](
        gradient, x, weight, x_gradient, sums[0], sums[-1], rows, columns, epsilon_of(sizes),
        centred, _ROWS_OF_A_PROGRAM, block, num_warps=_warps(block),
    )  # fmt: skip
    return (x_gradient, *(each.sum(0).to(x.dtype) for each in sums))


LAUNCHERS: dict[str, Launch] = {
    "rms_norm": partial(_launch_forward, False),
    "layer_norm": partial(_launch_forward, True),
    "rms_norm_backward": partial(_launch_backward, False),
    "layer_norm_backward": partial(_launch_backward, True),
}
