"""Rotary embedding in Triton: one program rotates all heads of one token, in fp32."""

from collections.abc import Sequence
from functools import partial

import torch
import triton
import triton.language as tl

from towtank.kernels.records import Allocate, Launch, Sizes, Tile

Tensors = Sequence[torch.Tensor]


@triton.jit
def _rotate(
    x, cos, sin, y, sequence, heads, half,
    INVERSE: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, HALF)
    angle = (token % sequence) * half + column
    c = tl.load(cos + angle, mask=column < half, other=0.0).to(tl.float32)[None, :]
    s = tl.load(sin + angle, mask=column < half, other=0.0).to(tl.float32)[None, :]
    if INVERSE:
        s = -s
    head = tl.arange(0, HEADS)[:, None]
    place = (token * heads + head) * 2 * half + column[None, :]
    inside = (head < heads) & (column[None, :] < half)
    first = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(x + place + half, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + place, (first * c - second * s).to(y.dtype.element_ty), mask=inside)
    tl.store(y + place + half, (second * c + first * s).to(y.dtype.element_ty), mask=inside)


def _launch(
    inverse: bool, inputs: Tensors, sizes: Sizes, tile: Tile, allocate: Allocate
) -> tuple[torch.Tensor, ...]:
    x, cos, sin = (each.contiguous() for each in inputs)
    batch, sequence, heads, head_dim = x.shape
    y = allocate(*x.shape, dtype=x.dtype)
    half = head_dim // 2
    _rotate[(batch * sequence,)](
        x, cos, sin, y, sequence, heads, half,
        inverse, triton.next_power_of_2(heads), triton.next_power_of_2(half),
    )  # fmt: skip
    return (y,)


LAUNCHERS: dict[str, Launch] = {"rotary": partial(_launch, False), "rotary_backward": partial(_launch, True)}
