"""Cast to fp8 in Triton: one program casts one group of columns of some rows.

The eight bits are worked out by integers, so that devices without fp8 and the interpreter round as the others do.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from towtank.kernels.fp8_cast import LARGEST, SMALLEST
from towtank.kernels.records import Allocate, Launch, Sizes, Tile

Tensors = Sequence[torch.Tensor]
_ROWS = 16


@triton.jit
def _e4m3(value):
    """Bits of the nearest e4m3 number, ties to even, of numbers up to 448 in magnitude; NaN stays NaN."""
    bits = value.to(tl.int32, bitcast=True)
    magnitude = bits & 0x7FFFFFFF
    # below 2^-6 (exponent 121 of fp32) numbers lie evenly: adding 2^14 leaves their steps as the last bits
    even = (magnitude.to(tl.float32, bitcast=True) + 16384.0).to(tl.int32, bitcast=True) - (141 << 23)
    # above, the exponent is moved from a bias of 127 to one of 7, and 20 bits are rounded away
    rounded = (magnitude - (120 << 23) + 0x7FFFF + ((magnitude >> 20) & 1)) >> 20
    small = tl.where(magnitude < (121 << 23), even, rounded)
    result = tl.where(value != value, 0x7F, small) | ((bits >> 24) & 0x80)
    return result.to(tl.uint8)


@triton.jit
def _cast(
    x, q, scales, rows, columns, group, groups, TOP: tl.constexpr, FLOOR: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    own = tl.program_id(1)
    offset = tl.arange(0, BLOCK)[None, :]
    column = own * group + offset
    inside = (row < rows) & (offset < group) & (column < columns)
    value = tl.load(x + row * columns + column, mask=inside, other=0.0).to(tl.float32)
    magnitude = tl.max(tl.abs(value), 1, keep_dims=True)
    # a maximum passes over a NaN on some devices, a sum does not
    broken = tl.sum(tl.where(value != value, 1.0, 0.0), 1, keep_dims=True) > 0
    scale = tl.where(broken, float("nan"), tl.maximum(magnitude, FLOOR) / TOP)
    quotient = value / scale
    limited = tl.where(quotient > TOP, TOP, tl.where(quotient < -TOP, -TOP, quotient))
    tl.store(q + row * columns + column, _e4m3(limited), mask=inside)
    # every column of the block holds the scale: the first one writes it
    tl.store(
        scales + row * groups + own + 0 * offset, scale + 0.0 * offset, mask=(row < rows) & (offset == 0)
    )


def _launch(inputs: Tensors, sizes: Sizes, tile: Tile, allocate: Allocate) -> tuple[torch.Tensor, ...]:
    x = inputs[0].contiguous()
    (rows, columns), group = x.shape, sizes["group"]
    groups = triton.cdiv(columns, group)
    q = allocate(rows, columns, dtype=torch.float8_e4m3fn)
    scales = allocate(rows, groups, dtype=torch.float32)
    _cast[(triton.cdiv(rows, _ROWS), groups)](
        x,
        q.view(torch.uint8),
        scales,
        rows,
        columns,
        group,
        groups,
        LARGEST,
        SMALLEST,
        _ROWS,
        triton.next_power_of_2(group),
    )
    return q, scales


LAUNCHERS: dict[str, Launch] = {"fp8_cast": _launch}
