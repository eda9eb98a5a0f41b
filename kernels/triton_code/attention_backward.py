"""Flash attention in Triton, backward: blocks of keys gather gradients from queries, blocks of queries from keys.

Dao, arXiv 2307.08691, algorithm 2, in two passes instead of sums that several programs add to, so that the result
does not depend on the order in which programs run.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from towtank.kernels.attention import backward_tiles
from towtank.kernels.backends import interpreted
from towtank.kernels.records import Allocate, Launch, Sizes, Tile
from towtank.kernels.triton_code.attention import LOG2_E, key_spans, load_rows, visible

Tensors = Sequence[torch.Tensor]
_ROWS = 64


@triton.jit
def _dots(gradient, output, dots, sequence, heads, rows, head_dim, ROWS: tl.constexpr, HEAD: tl.constexpr):
    # rows are [batch, sequence, heads], the sums of output times gradient over the head [batch, heads, sequence]
    row, dim = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.arange(0, HEAD)
    inside = (row[:, None] < rows) & (dim[None, :] < head_dim)
    place = row[:, None] * head_dim + dim[None, :]
    given = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(output + place, mask=inside, other=0.0).to(tl.float32)
    batch, token, head = row // (sequence * heads), row // heads % sequence, row % heads
    tl.store(dots + (batch * heads + head) * sequence + token, tl.sum(given * value, 1), mask=row < rows)


@triton.jit
def _queries(
    of_keys, of_values, keys, values, gradient, q, sums, dots, column, start, stop, sequence, heads, window, scale,
    head_dim,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, MASKED: tl.constexpr, FULL: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr, HEAD: tl.constexpr,
):  # fmt: skip
    for top in range(start, stop, BLOCK_M):
        row = top + tl.arange(0, BLOCK_M)
        queries = load_rows(q, row, heads * head_dim, sequence, head_dim, HEAD, MASKED, FULL)
        given = load_rows(gradient, row, heads * head_dim, sequence, head_dim, HEAD, MASKED, FULL)
        if WIDE:
            queries, given = queries.to(tl.float32), given.to(tl.float32)
        if MASKED:
            level = tl.load(sums + row, mask=row < sequence, other=0.0) * LOG2_E
            dot = tl.load(dots + row, mask=row < sequence, other=0.0)
        else:
            level, dot = tl.load(sums + row) * LOG2_E, tl.load(dots + row)
        scores = tl.dot(keys, tl.trans(queries), input_precision="ieee")
        weight = tl.math.exp2(scores * (scale * LOG2_E) - level[None, :])
        if MASKED:
            seen = visible(row[None, :], column[:, None], sequence, window, CAUSAL, WINDOW)
            weight = tl.where(seen, weight, 0.0)
        of_values = tl.dot(weight.to(given.dtype), given, of_values, input_precision="ieee")
        back = weight * (tl.dot(values, tl.trans(given), input_precision="ieee") - dot[None, :])
        of_keys = tl.dot(back.to(queries.dtype), queries, of_keys, input_precision="ieee")
    return of_keys, of_values


@triton.jit
def _of_keys(
    gradient, q, k, v, sums, dots, k_gradient, v_gradient, sequence, heads, group, window, scale, head_dim,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, FULL: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, HEAD: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(sequence, BLOCK_N)
    # if causal, the first keys are seen by most queries: those programs start first
    first, pair = tl.program_id(0) % blocks * BLOCK_N, tl.program_id(0) // blocks
    kv_heads = heads // group
    batch, kv_head = (pair // kv_heads).to(tl.int64), pair % kv_heads
    column, dim = first + tl.arange(0, BLOCK_N), tl.arange(0, HEAD)
    inside = (column[:, None] < sequence) & (dim[None, :] < head_dim)
    own = ((batch * sequence + column) * kv_heads + kv_head)[:, None] * head_dim + dim[None, :]
    keys, values = tl.load(k + own, mask=inside, other=0.0), tl.load(v + own, mask=inside, other=0.0)
    if WIDE:
        keys, values = keys.to(tl.float32), values.to(tl.float32)
    of_keys = tl.zeros((BLOCK_N, HEAD), tl.float32)
    of_values = tl.zeros((BLOCK_N, HEAD), tl.float32)
    # queries start..whole see some of these keys, whole..edge all of them, edge..stop again some
    start, whole, stop, last = 0, 0, sequence, sequence
    if CAUSAL:
        start = first // BLOCK_M * BLOCK_M
        whole = tl.cdiv(first + BLOCK_N - 1, BLOCK_M) * BLOCK_M
    if WINDOW:
        stop = min(sequence, first + BLOCK_N + window - 1)
        last = min(sequence, first + window)
    whole = min(whole, tl.cdiv(stop, BLOCK_M) * BLOCK_M)
    edge = max(whole, last // BLOCK_M * BLOCK_M)
    for head in range(kv_head * group, kv_head * group + group):
        rows = (batch * sequence * heads + head) * head_dim
        kept = (batch * heads + head) * sequence
        if CAUSAL:
            of_keys, of_values = _queries(
                of_keys, of_values, keys, values, gradient + rows, q + rows, sums + kept, dots + kept, column,
                start, whole, sequence, heads, window, scale, head_dim,
                CAUSAL, WINDOW, True, FULL, WIDE, BLOCK_M, HEAD,
            )  # fmt: skip
        of_keys, of_values = _queries(
            of_keys, of_values, keys, values, gradient + rows, q + rows, sums + kept, dots + kept, column,
            whole, edge, sequence, heads, window, scale, head_dim,
            CAUSAL, WINDOW, False, FULL, WIDE, BLOCK_M, HEAD,
        )  # fmt: skip
        of_keys, of_values = _queries(
            of_keys, of_values, keys, values, gradient + rows, q + rows, sums + kept, dots + kept, column,
            edge, stop, sequence, heads, window, scale, head_dim,
            CAUSAL, WINDOW, True, FULL, WIDE, BLOCK_M, HEAD,
        )  # fmt: skip
    tl.store(k_gradient + own, (of_keys * scale).to(k_gradient.dtype.element_ty), mask=inside)
    tl.store(v_gradient + own, of_values.to(v_gradient.dtype.element_ty), mask=inside)


@triton.jit
def _keys(
    total, queries, given, level, dot, k, v, row, start, stop, sequence, kv_heads, window, scale, head_dim,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, MASKED: tl.constexpr, FULL: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_N: tl.constexpr, HEAD: tl.constexpr,
):  # fmt: skip
    for left in range(start, stop, BLOCK_N):
        column = left + tl.arange(0, BLOCK_N)
        keys = load_rows(k, column, kv_heads * head_dim, sequence, head_dim, HEAD, MASKED, FULL)
        values = load_rows(v, column, kv_heads * head_dim, sequence, head_dim, HEAD, MASKED, FULL)
        if WIDE:
            keys, values = keys.to(tl.float32), values.to(tl.float32)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee")
        weight = tl.math.exp2(scores * (scale * LOG2_E) - level[:, None])
        if MASKED:
            seen = visible(row[:, None], column[None, :], sequence, window, CAUSAL, WINDOW)
            weight = tl.where(seen, weight, 0.0)
        back = weight * (tl.dot(given, tl.trans(values), input_precision="ieee") - dot[:, None])
        total = tl.dot(back.to(keys.dtype), keys, total, input_precision="ieee")
    return total


@triton.jit
def _of_queries(
    gradient, q, k, v, sums, dots, q_gradient, sequence, heads, group, window, scale, head_dim,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, FULL: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, HEAD: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(sequence, BLOCK_M)
    block, pair = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    if CAUSAL:  # the last queries see most keys: those programs start first
        block = blocks - 1 - block
    first = block * BLOCK_M
    kv_heads = heads // group
    batch, head = (pair // heads).to(tl.int64), pair % heads
    row, dim = first + tl.arange(0, BLOCK_M), tl.arange(0, HEAD)
    inside = (row[:, None] < sequence) & (dim[None, :] < head_dim)
    own = ((batch * sequence + row) * heads + head)[:, None] * head_dim + dim[None, :]
    queries, given = tl.load(q + own, mask=inside, other=0.0), tl.load(gradient + own, mask=inside, other=0.0)
    if WIDE:
        queries, given = queries.to(tl.float32), given.to(tl.float32)
    kept = (batch * heads + head) * sequence + row
    level = tl.load(sums + kept, mask=row < sequence, other=0.0) * LOG2_E
    dot = tl.load(dots + kept, mask=row < sequence, other=0.0)
    total = tl.zeros((BLOCK_M, HEAD), tl.float32)
    start, whole, edge, stop = key_spans(first, sequence, window, CAUSAL, WINDOW, BLOCK_M, BLOCK_N)
    k += (batch * sequence * kv_heads + head // group) * head_dim
    v += (batch * sequence * kv_heads + head // group) * head_dim
    if WINDOW:
        total = _keys(
            total, queries, given, level, dot, k, v, row, start, whole, sequence, kv_heads, window, scale, head_dim,
            CAUSAL, WINDOW, True, FULL, WIDE, BLOCK_N, HEAD,
        )  # fmt: skip
    total = _keys(
        total, queries, given, level, dot, k, v, row, whole, edge, sequence, kv_heads, window, scale, head_dim,
        CAUSAL, WINDOW, False, FULL, WIDE, BLOCK_N, HEAD,
    )  # fmt: skip
    total = _keys(
        total, queries, given, level, dot, k, v, row, edge, stop, sequence, kv_heads, window, scale, head_dim,
        CAUSAL, WINDOW, True, FULL, WIDE, BLOCK_N, HEAD,
    )  # fmt: skip
    tl.store(q_gradient + own, (total * scale).to(q_gradient.dtype.element_ty), mask=inside)


def _launch(inputs: Tensors, sizes: Sizes, tile: Tile, allocate: Allocate) -> tuple[torch.Tensor, ...]:
    gradient, q, k, v, output, sums = (each.contiguous() for each in inputs)
    batch, sequence, heads, head_dim = q.shape
    outputs = tuple(allocate(*each.shape, dtype=each.dtype) for each in (q, k, v))
    dots = allocate(batch, heads, sequence, dtype=torch.float32)
    head, rows = max(16, triton.next_power_of_2(head_dim)), batch * sequence * heads
    _dots[(triton.cdiv(rows, _ROWS),)](gradient, output, dots, sequence, heads, rows, head_dim, _ROWS, head)
    tile = tile or backward_tiles({"head_dim": head_dim}, str(q.dtype).removeprefix("torch."))[0]
    group, scale = heads // k.shape[2], head_dim**-0.5
    common = (sequence, heads, group, sizes["window"], scale, head_dim)
    constants = (
        bool(sizes["causal"]), bool(sizes["window"]), head == head_dim, interpreted(),
        tile["block_m"], tile["block_n"], head,
    )  # fmt: skip
    extra = {"num_warps": tile["warps"], "num_stages": tile["stages"]}
    blocks = triton.cdiv(sequence, tile["block_m"])
    _of_keys[(blocks * batch * k.shape[2],)](
        gradient, q, k, v, sums, dots, outputs[1], outputs[2], *common, *constants, **extra
    )
    _of_queries[(blocks * batch * heads,)](
        gradient, q, k, v, sums, dots, outputs[0], *common, *constants, **extra
    )
    return outputs


LAUNCHERS: dict[str, Launch] = {"attention_backward": _launch}
