"""Multiplies of experts in Triton: one program computes one block of the rows of one expert, or of its weight.

Nothing waits for the device to say how many rows each expert has: as many programs start as could be needed, and each
finds its expert by counting blocks.
"""

from collections.abc import Sequence
from functools import partial

import torch
import triton
import triton.language as tl

from towtank.kernels.backends import interpreted
from towtank.kernels.grouped_matmul import tiles
from towtank.kernels.records import Allocate, Launch, Sizes, Tile

Tensors = Sequence[torch.Tensor]


@triton.jit
def _rows(
    x, weight, ends, y, experts, n, k, expert_stride, weight_row, weight_column,
    EXPERTS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    # y[rows of e, n] = x[rows of e, k] W_e, with W_e read as [k, n]
    block = tl.program_id(1)
    own = tl.arange(0, EXPERTS)
    end = tl.load(ends + own, mask=own < experts, other=0)
    before = tl.load(ends + own - 1, mask=(own > 0) & (own < experts), other=0)
    blocks = tl.where(own < experts, (end - before + BLOCK_M - 1) // BLOCK_M, 0)
    # the expert of this block is the first whose blocks and those of experts before it are more
    expert = tl.sum(tl.where((own < experts) & (tl.cumsum(blocks, 0) <= block), 1, 0), 0)
    if expert < experts:
        within = block - tl.sum(tl.where(own < expert, blocks, 0), 0)
        first = tl.load(ends + expert - 1, mask=expert > 0, other=0) + within * BLOCK_M
        stop = tl.load(ends + expert)
        row = first + tl.arange(0, BLOCK_M)
        column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
        depth = tl.arange(0, BLOCK_K)
        base = weight + expert.to(tl.int64) * expert_stride
        total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for start in range(0, k, BLOCK_K):
            place = start + depth
            left = tl.load(
                x + row.to(tl.int64)[:, None] * k + place[None, :],
                mask=(row[:, None] < stop) & (place[None, :] < k), other=0.0,
            )  # fmt: skip
            right = tl.load(
                base + place.to(tl.int64)[:, None] * weight_row + column.to(tl.int64)[None, :] * weight_column,
                mask=(place[:, None] < k) & (column[None, :] < n), other=0.0,
            )  # fmt: skip
            if WIDE:
                left, right = left.to(tl.float32), right.to(tl.float32)
            total = tl.dot(left, right, total, input_precision="ieee")
        tl.store(
            y + row.to(tl.int64)[:, None] * n + column[None, :], total.to(y.dtype.element_ty),
            mask=(row[:, None] < stop) & (column[None, :] < n),
        )  # fmt: skip


@triton.jit
def _weights(
    gradient, x, ends, weight, n, k,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    # dW_e[n, k] = gradient[rows of e, n]^T x[rows of e, k]; BLOCK_K is how many rows are summed at a time
    expert = tl.program_id(2)
    first = tl.load(ends + expert - 1, mask=expert > 0, other=0)
    stop = tl.load(ends + expert)
    left_column = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    right_column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(first, stop, BLOCK_K):
        row = (start + tl.arange(0, BLOCK_K)).to(tl.int64)
        left = tl.load(
            gradient + row[None, :] * n + left_column[:, None],
            mask=(row[None, :] < stop) & (left_column[:, None] < n), other=0.0,
        )  # fmt: skip
        right = tl.load(
            x + row[:, None] * k + right_column[None, :],
            mask=(row[:, None] < stop) & (right_column[None, :] < k), other=0.0,
        )  # fmt: skip
        if WIDE:
            left, right = left.to(tl.float32), right.to(tl.float32)
        total = tl.dot(left, right, total, input_precision="ieee")
    place = weight + (expert.to(tl.int64) * n + left_column[:, None]) * k + right_column[None, :]
    inside = (left_column[:, None] < n) & (right_column[None, :] < k)
    tl.store(place, total.to(weight.dtype.element_ty), mask=inside)


def _tile(tile: Tile, dtype: torch.dtype) -> Tile:
    return tile or tiles({}, str(dtype).removeprefix("torch."))[0]


def _launch_rows(
    transposed: bool, inputs: Tensors, sizes: Sizes, tile: Tile, allocate: Allocate
) -> tuple[torch.Tensor, ...]:
    x, weight, counts = (each.contiguous() for each in inputs)
    weight = weight.transpose(1, 2) if transposed else weight
    (m, k), (experts, _, n) = x.shape, weight.shape
    y = allocate(m, n, dtype=x.dtype)
    tile = _tile(tile, x.dtype)
    # every expert may end in a block that is not full
    blocks = m // tile["block_m"] + min(experts, m)
    _rows[(triton.cdiv(n, tile["block_n"]), blocks)](
        x, weight, counts.cumsum(0), y, experts, n, k, *weight.stride(),
        triton.next_power_of_2(experts), tile["block_m"], tile["block_n"], tile["block_k"], interpreted(),
        num_warps=tile["warps"], num_stages=tile["stages"],
    )  # fmt: skip
    return (y,)


def _launch_weights(
    inputs: Tensors, sizes: Sizes, tile: Tile, allocate: Allocate
) -> tuple[torch.Tensor, ...]:
    gradient, x, counts = (each.contiguous() for each in inputs)
    n, k, experts = gradient.shape[1], x.shape[1], counts.numel()
    weight = allocate(experts, n, k, dtype=x.dtype)
    tile = _tile(tile, x.dtype)
    grid = (triton.cdiv(n, tile["block_m"]), triton.cdiv(k, tile["block_n"]), experts)
    _weights[grid](
        gradient, x, counts.cumsum(0), weight, n, k,
        tile["block_m"], tile["block_n"], tile["block_k"], interpreted(),
        num_warps=tile["warps"], num_stages=tile["stages"],
    )  # fmt: skip
    return (weight,)


LAUNCHERS: dict[str, Launch] = {
    "grouped_matmul": partial(_launch_rows, True),
    "grouped_matmul_dgrad": partial(_launch_rows, False),
    "grouped_matmul_wgrad": _launch_weights,
}
