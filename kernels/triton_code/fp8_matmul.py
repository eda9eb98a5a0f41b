"""Multiply of e4m3 numbers in Triton: one program computes one block of the output and scales it."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from towtank.kernels.backends import interpreted
from towtank.kernels.fp8_matmul import tiles
from towtank.kernels.records import Allocate, Launch, Sizes, Tile
from towtank.kernels.triton_code.matmul import block_of

Tensors = Sequence[torch.Tensor]


@triton.jit
def _wide(value):
    # the interpreter takes the NaN of e4m3 for 480
    return tl.where(value.to(tl.uint8, bitcast=True) & 0x7F == 0x7F, float("nan"), value.to(tl.float32))


@triton.jit
def _multiply(
    x, weight, x_scale, weight_scale, y, m, n, k,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
    WHOLE: tl.constexpr, BY_ROW: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    block_m, block_n = block_of(tl.program_id(0), m, n, BLOCK_M, BLOCK_N, GROUP_M)
    row = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    column = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    depth = tl.arange(0, BLOCK_K)
    # both operands lie along the depth, as matrix units take numbers of 8 bits
    left = x + (row % m).to(tl.int64)[:, None] * k + depth[None, :]
    right = weight + (column % n).to(tl.int64)[None, :] * k + depth[:, None]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        if WHOLE:
            one, other = tl.load(left), tl.load(right)
        else:
            one = tl.load(left, mask=depth[None, :] < k - start, other=0.0)
            other = tl.load(right, mask=depth[:, None] < k - start, other=0.0)
        if WIDE:
            one, other = _wide(one), _wide(other)
        total = tl.dot(one, other, total)
        left += BLOCK_K
        right += BLOCK_K
    if BY_ROW:
        total *= tl.load(x_scale + row, mask=row < m, other=0.0)[:, None]
        total *= tl.load(weight_scale + column, mask=column < n, other=0.0)[None, :]
    else:
        total *= tl.load(x_scale) * tl.load(weight_scale)
    place = y + row.to(tl.int64)[:, None] * n + column[None, :]
    tl.store(place, total.to(y.dtype.element_ty), mask=(row[:, None] < m) & (column[None, :] < n))


def _launch(inputs: Tensors, sizes: Sizes, tile: Tile, allocate: Allocate) -> tuple[torch.Tensor, ...]:
    x, weight, x_scale, weight_scale = (each.contiguous() for each in inputs)
    (m, k), n = x.shape, weight.shape[0]
    y = allocate(m, n, dtype=torch.bfloat16)
    if not m * n:
        return (y,)
    tile = tile or tiles({}, "float8_e4m3fn")[0]
    programs = triton.cdiv(m, tile["block_m"]) * triton.cdiv(n, tile["block_n"])
    _multiply[(programs,)](
        x, weight, x_scale, weight_scale, y, m, n, k,
        tile["block_m"], tile["block_n"], tile["block_k"], tile["group_m"],
        WHOLE=k % tile["block_k"] == 0, BY_ROW=bool(sizes["by_row"]), WIDE=interpreted(),
        num_warps=tile["warps"], num_stages=tile["stages"],
    )  # fmt: skip
    return (y,)


LAUNCHERS: dict[str, Launch] = {"fp8_matmul": _launch}
