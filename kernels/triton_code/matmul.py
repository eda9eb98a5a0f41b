"""Matrix multiply in Triton: one program computes one block of the output, for operands of any layout."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import triton
import triton.language as tl

from towtank.kernels.backends import interpreted
from towtank.kernels.matmul import dgrad_operands, forward_operands, triton_tiles, wgrad_operands
from towtank.kernels.records import Allocate, Launch, Sizes, Tile

Tensors = Sequence[torch.Tensor]


@triton.jit
def block_of(program, m, n, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr):
    """Rows and columns of a program's block, in blocks.

    Programs go down GROUP_M blocks of rows before the next block of columns, whose operands then stay in cache.
    """
    rows, columns = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    group = program // (GROUP_M * columns)
    height = min(rows - group * GROUP_M, GROUP_M)
    within = program % (GROUP_M * columns)
    return group * GROUP_M + within % height, within // height


@triton.jit
def _multiply(
    a, b, c, m, n, k, a_row, a_column, b_row, b_column, c_row,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
    WHOLE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    block_m, block_n = block_of(tl.program_id(0), m, n, BLOCK_M, BLOCK_N, GROUP_M)
    row = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    column = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    depth = tl.arange(0, BLOCK_K)
    # rows and columns beyond the matrix wrap around: what they yield is not stored
    left = a + (row % m).to(tl.int64)[:, None] * a_row + depth[None, :] * a_column
    right = b + depth[:, None] * b_row + (column % n).to(tl.int64)[None, :] * b_column
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        if WHOLE:
            x, y = tl.load(left), tl.load(right)
        else:
            x = tl.load(left, mask=depth[None, :] < k - start, other=0.0)
            y = tl.load(right, mask=depth[:, None] < k - start, other=0.0)
        if WIDE:
            x, y = x.to(tl.float32), y.to(tl.float32)
        total = tl.dot(x, y, total, input_precision="ieee")
        left += BLOCK_K * a_column
        right += BLOCK_K * b_row
    place = c + row.to(tl.int64)[:, None] * c_row + column[None, :]
    tl.store(place, total.to(c.dtype.element_ty), mask=(row[:, None] < m) & (column[None, :] < n))


def multiply(a: torch.Tensor, b: torch.Tensor, tile: Tile, allocate: Allocate) -> torch.Tensor:
    """A B of two matrices with any strides."""
    (m, k), n = a.shape, b.shape[1]
    c = allocate(m, n, dtype=a.dtype)
    if not m * n:
        return c
    tile = tile or triton_tiles({}, str(a.dtype).removeprefix("torch."))[0]
    programs = triton.cdiv(m, tile["block_m"]) * triton.cdiv(n, tile["block_n"])
    _multiply[(programs,)](
        a, b, c, m, n, k, *a.stride(), *b.stride(), c.stride(0),
        tile["block_m"], tile["block_n"], tile["block_k"], tile["group_m"],
        WHOLE=k % tile["block_k"] == 0, WIDE=interpreted(),
        num_warps=tile["warps"], num_stages=tile["stages"],
    )  # fmt: skip
    return c


def _launch(
    operands: Callable[[Tensors], tuple[torch.Tensor, torch.Tensor]],
    inputs: Tensors, sizes: Sizes, tile: Tile, allocate: Allocate,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    return (multiply(*operands(inputs), tile, allocate),)


LAUNCHERS: dict[str, Launch] = {
    "matmul": partial(_launch, forward_operands),
    "matmul_dgrad": partial(_launch, dgrad_operands),
    "matmul_wgrad": partial(_launch, wgrad_operands),
}
