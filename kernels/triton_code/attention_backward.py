"""Flash attention in Triton, backward: blocks of keys gather gradients from queries, blocks of queries from keys.

Dao, arXiv 2307.08691, algorithm 2, in two passes instead of sums that several programs add to, so that the result
does not depend on the order in which programs run.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from towtank.kernels.backends import interpreted
from towtank.kernels.records import Allocate, Launch, Sizes, Tile
from towtank.kernels.triton_code.attention import LOG2_E, settings, visible

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
def _of_keys(
    gradient, q, k, v, sums, dots, k_gradient, v_gradient, sequence, heads, group, window, scale, head_dim,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, HEAD: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0) * BLOCK_N
    kv_heads = heads // group
    batch = (tl.program_id(1) // kv_heads).to(tl.int64)
    kv_head = tl.program_id(1) % kv_heads
    column, dim = first + tl.arange(0, BLOCK_N), tl.arange(0, HEAD)
    inside = (column[:, None] < sequence) & (dim[None, :] < head_dim)
    own = ((batch * sequence + column) * kv_heads + kv_head)[:, None] * head_dim + dim[None, :]
    keys, values = tl.load(k + own, mask=inside, other=0.0), tl.load(v + own, mask=inside, other=0.0)
    if WIDE:
        keys, values = keys.to(tl.float32), values.to(tl.float32)
    of_keys = tl.zeros((BLOCK_N, HEAD), tl.float32)
    of_values = tl.zeros((BLOCK_N, HEAD), tl.float32)
    start, stop = 0, sequence
    if CAUSAL:
        start = first // BLOCK_M * BLOCK_M
    if WINDOW:
        stop = min(sequence, first + BLOCK_N + window - 1)
    for head in range(kv_head * group, kv_head * group + group):
        for top in range(start, stop, BLOCK_M):
            row = top + tl.arange(0, BLOCK_M)
            full = (row[:, None] < sequence) & (dim[None, :] < head_dim)
            place = ((batch * sequence + row) * heads + head)[:, None] * head_dim + dim[None, :]
            queries = tl.load(q + place, mask=full, other=0.0)
            given = tl.load(gradient + place, mask=full, other=0.0)
            if WIDE:
                queries, given = queries.to(tl.float32), given.to(tl.float32)
            kept = (batch * heads + head) * sequence + row
            level = tl.load(sums + kept, mask=row < sequence, other=0.0) * LOG2_E
            dot = tl.load(dots + kept, mask=row < sequence, other=0.0)
            scores = tl.dot(keys, tl.trans(queries), input_precision="ieee") * (scale * LOG2_E)
            seen = visible(row[None, :], column[:, None], sequence, window, CAUSAL, WINDOW)
            weight = tl.where(seen, tl.math.exp2(scores - level[None, :]), 0.0)
            of_values = tl.dot(weight.to(given.dtype), given, of_values, input_precision="ieee")
            back = weight * (tl.dot(values, tl.trans(given), input_precision="ieee") - dot[None, :])
            of_keys = tl.dot(back.to(queries.dtype), queries, of_keys, input_precision="ieee")
    tl.store(k_gradient + own, (of_keys * scale).to(k_gradient.dtype.element_ty), mask=inside)
    tl.store(v_gradient + own, of_values.to(v_gradient.dtype.element_ty), mask=inside)


@triton.jit
def _of_queries(
    gradient, q, k, v, sums, dots, q_gradient, sequence, heads, group, window, scale, head_dim,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, HEAD: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0) * BLOCK_M
    kv_heads = heads // group
    batch = (tl.program_id(1) // heads).to(tl.int64)
    head = tl.program_id(1) % heads
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
    start, stop = 0, sequence
    if CAUSAL:
        stop = min(sequence, first + BLOCK_M)
    if WINDOW:
        start = max(0, first - window + 1) // BLOCK_N * BLOCK_N
    for left in range(start, stop, BLOCK_N):
        column = left + tl.arange(0, BLOCK_N)
        full = (column[:, None] < sequence) & (dim[None, :] < head_dim)
        place = ((batch * sequence + column) * kv_heads + head // group)[:, None] * head_dim + dim[None, :]
        keys, values = tl.load(k + place, mask=full, other=0.0), tl.load(v + place, mask=full, other=0.0)
        if WIDE:
            keys, values = keys.to(tl.float32), values.to(tl.float32)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * (scale * LOG2_E)
        seen = visible(row[:, None], column[None, :], sequence, window, CAUSAL, WINDOW)
        weight = tl.where(seen, tl.math.exp2(scores - level[:, None]), 0.0)
        back = weight * (tl.dot(given, tl.trans(values), input_precision="ieee") - dot[:, None])
        total = tl.dot(back.to(keys.dtype), keys, total, input_precision="ieee")
    tl.store(q_gradient + own, (total * scale).to(q_gradient.dtype.element_ty), mask=inside)


def _launch(inputs: Tensors, sizes: Sizes, tile: Tile, allocate: Allocate) -> tuple[torch.Tensor, ...]:
    gradient, q, k, v, output, sums = (each.contiguous() for each in inputs)
    batch, sequence, heads, head_dim = q.shape
    outputs = tuple(allocate(*each.shape, dtype=each.dtype) for each in (q, k, v))
    dots = allocate(batch, heads, sequence, dtype=torch.float32)
    head, rows = max(16, triton.next_power_of_2(head_dim)), batch * sequence * heads
    _dots[(triton.cdiv(rows, _ROWS),)](gradient, output, dots, sequence, heads, rows, head_dim, _ROWS, head)
    tile = settings(head_dim, tile, q.dtype)
    group, scale = heads // k.shape[2], head_dim**-0.5
    common = (sequence, heads, group, sizes["window"], scale, head_dim)
    constants = (
        bool(sizes["causal"]), bool(sizes["window"]), interpreted(), tile["block_m"], tile["block_n"], head,
    )  # fmt: skip
    extra = {"num_warps": tile["warps"], "num_stages": tile["stages"]}
    _of_keys[(triton.cdiv(sequence, tile["block_n"]), batch * k.shape[2])](
        gradient, q, k, v, sums, dots, outputs[1], outputs[2], *common, *constants, **extra
    )
    _of_queries[(triton.cdiv(sequence, tile["block_m"]), batch * heads)](
        gradient, q, k, v, sums, dots, outputs[0], *common, *constants, **extra
    )
    return outputs


LAUNCHERS: dict[str, Launch] = {"attention_backward": _launch}
