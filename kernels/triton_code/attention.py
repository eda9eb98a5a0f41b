"""Flash attention in Triton, forward: one program handles a block of queries of one head.

Dao, arXiv 2307.08691, algorithm 1: blocks of keys go by, the sums of exponentials are corrected as their maximum
grows. Blocks that every query of the program sees whole are not masked.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from towtank.kernels.attention import tiles
from towtank.kernels.backends import interpreted
from towtank.kernels.records import Allocate, Launch, Sizes, Tile

Tensors = Sequence[torch.Tensor]
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def visible(row, column, sequence, window, CAUSAL: tl.constexpr, WINDOW: tl.constexpr):
    """Which of the keys `column` the queries `row` see; both inside of the sequence."""
    seen = (row < sequence) & (column < sequence)
    if CAUSAL:
        seen = seen & (column <= row)
    if WINDOW:
        seen = seen & (row - column < window)
    return seen


@triton.jit
def load_rows(
    base, row, stride, sequence, head_dim, HEAD: tl.constexpr, MASKED: tl.constexpr, FULL: tl.constexpr
):
    """Rows of one head [rows, HEAD]; zeros beyond the sequence if MASKED, and beyond the head unless it is FULL."""
    dim = tl.arange(0, HEAD)
    place = base + row.to(tl.int64)[:, None] * stride + dim[None, :]
    if MASKED and FULL:
        value = tl.load(place, mask=row[:, None] < sequence, other=0.0)
    elif MASKED:
        value = tl.load(place, mask=(row[:, None] < sequence) & (dim[None, :] < head_dim), other=0.0)
    elif FULL:
        value = tl.load(place)
    else:
        value = tl.load(place, mask=dim[None, :] < head_dim, other=0.0)
    return value


@triton.jit
def key_spans(
    first, sequence, window,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Keys start..whole are seen in part by queries from `first` on, whole..edge by all, edge..stop again in part."""
    start, whole = 0, 0
    stop, edge = sequence, sequence // BLOCK_N * BLOCK_N
    if CAUSAL:
        stop = min(sequence, first + BLOCK_M)
        edge = min(edge, first // BLOCK_N * BLOCK_N)
    if WINDOW:
        start = max(0, first - window + 1) // BLOCK_N * BLOCK_N
        whole = tl.cdiv(max(0, first + BLOCK_M - window), BLOCK_N) * BLOCK_N
    whole = min(max(whole, start), tl.cdiv(stop, BLOCK_N) * BLOCK_N)
    return start, whole, max(edge, whole), stop


@triton.jit
def _keys(
    q, total, weight, top, k, v, k_row, v_row, row, start, stop, sequence, window, scale, head_dim,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, MASKED: tl.constexpr, FULL: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_N: tl.constexpr, HEAD: tl.constexpr,
):  # fmt: skip
    for first in range(start, stop, BLOCK_N):
        column = first + tl.arange(0, BLOCK_N)
        keys = load_rows(k, column, k_row, sequence, head_dim, HEAD, MASKED, FULL)
        values = load_rows(v, column, v_row, sequence, head_dim, HEAD, MASKED, FULL)
        if WIDE:
            keys, values = keys.to(tl.float32), values.to(tl.float32)
        scores = tl.dot(q, tl.trans(keys), input_precision="ieee")
        if MASKED:
            seen = visible(row[:, None], column[None, :], sequence, window, CAUSAL, WINDOW)
            scores = tl.where(seen, scores, float("-inf"))
        # the scale is above 0, so that it may follow the maximum: one multiply-add for each score
        higher = tl.maximum(top, tl.max(scores, 1) * scale)
        level = higher
        if MASKED:
            # a row that has seen no key yet has no maximum: 0 stands in, for -inf less -inf is no number
            level = tl.where(higher == float("-inf"), 0.0, higher)
        part = tl.math.exp2(scores * scale - level[:, None])
        shrink = tl.math.exp2(top - level)
        weight = weight * shrink + tl.sum(part, 1)
        total = tl.dot(part.to(values.dtype), values, total * shrink[:, None], input_precision="ieee")
        top = higher
    return total, weight, top


@triton.jit
def _forward(
    q, k, v, output, sums, sequence, heads, group, window, scale, head_dim,
    q_batch, q_row, q_head, k_batch, k_row, k_head, v_batch, v_row, v_head,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, FULL: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, HEAD: tl.constexpr,
):  # fmt: skip
    # one dimension: of the others a GPU has 65,535 at most
    blocks = tl.cdiv(sequence, BLOCK_M)
    block, pair = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    if CAUSAL:  # the last queries see most keys: those programs start first
        block = blocks - 1 - block
    first = block * BLOCK_M
    batch, head = (pair // heads).to(tl.int64), (pair % heads).to(tl.int64)
    row, dim = first + tl.arange(0, BLOCK_M), tl.arange(0, HEAD)
    inside = (row[:, None] < sequence) & (dim[None, :] < head_dim)
    queries = load_rows(q + batch * q_batch + head * q_head, row, q_row, sequence, head_dim, HEAD, True, FULL)
    if WIDE:
        queries = queries.to(tl.float32)
    k += batch * k_batch + head // group * k_head
    v += batch * v_batch + head // group * v_head
    total = tl.zeros((BLOCK_M, HEAD), tl.float32)
    weight = tl.zeros((BLOCK_M,), tl.float32)
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    start, whole, edge, stop = key_spans(first, sequence, window, CAUSAL, WINDOW, BLOCK_M, BLOCK_N)
    if WINDOW:
        total, weight, top = _keys(
            queries, total, weight, top, k, v, k_row, v_row, row, start, whole, sequence, window, scale, head_dim,
            CAUSAL, WINDOW, True, FULL, WIDE, BLOCK_N, HEAD,
        )  # fmt: skip
    total, weight, top = _keys(
        queries, total, weight, top, k, v, k_row, v_row, row, whole, edge, sequence, window, scale, head_dim,
        CAUSAL, WINDOW, False, FULL, WIDE, BLOCK_N, HEAD,
    )  # fmt: skip
    total, weight, top = _keys(
        queries, total, weight, top, k, v, k_row, v_row, row, edge, stop, sequence, window, scale, head_dim,
        CAUSAL, WINDOW, True, FULL, WIDE, BLOCK_N, HEAD,
    )  # fmt: skip
    result = total / weight[:, None]
    place = ((batch * sequence + row) * heads + head)[:, None] * head_dim + dim[None, :]
    tl.store(output + place, result.to(output.dtype.element_ty), mask=inside)
    tl.store(
        sums + (batch * heads + head) * sequence + row, (top + tl.log2(weight)) / LOG2_E, mask=row < sequence
    )


def rows_of(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with its last dimension dense, which the kernels read in whole rows."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _launch(inputs: Tensors, sizes: Sizes, tile: Tile, allocate: Allocate) -> tuple[torch.Tensor, ...]:
    q, k, v = (rows_of(each) for each in inputs)
    batch, sequence, heads, head_dim = q.shape
    output = allocate(batch, sequence, heads, head_dim, dtype=q.dtype)
    sums = allocate(batch, heads, sequence, dtype=torch.float32)
    tile = tile or tiles({"head_dim": head_dim}, str(q.dtype).removeprefix("torch."))[0]
    head = max(16, triton.next_power_of_2(head_dim))
    strides = [each.stride(place) for each in (q, k, v) for place in range(3)]
    _forward[(triton.cdiv(sequence, tile["block_m"]) * batch * heads,)](
        q, k, v, output, sums, sequence, heads, heads // k.shape[2], sizes["window"],
        head_dim**-0.5 * LOG2_E.value, head_dim, *strides,
        bool(sizes["causal"]), bool(sizes["window"]), head == head_dim, interpreted(),
        tile["block_m"], tile["block_n"], head,
        num_warps=tile["warps"], num_stages=tile["stages"],
    )  # fmt: skip
    return output, sums


LAUNCHERS: dict[str, Launch] = {"attention": _launch}
