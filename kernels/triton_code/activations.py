"""SwiGLU and GELU in Triton: one program handles one block of elements, in fp32."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from towtank.kernels.activations import GELU_CUBIC, GELU_SCALE
from towtank.kernels.records import Allocate, Launch, Sizes, Tile

Tensors = Sequence[torch.Tensor]
_BLOCK = 2048


@triton.jit
def _swiglu(gate, up, y, elements, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < elements
    g = tl.load(gate + place, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + place, (g * tl.sigmoid(g) * u).to(y.dtype.element_ty), mask=inside)


@triton.jit
def _swiglu_backward(gradient, gate, up, gate_gradient, up_gradient, elements, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < elements
    given = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gate + place, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + place, mask=inside, other=0.0).to(tl.float32)
    s = tl.sigmoid(g)
    back = given * u * (s + g * s * (1.0 - s))
    tl.store(gate_gradient + place, back.to(gate_gradient.dtype.element_ty), mask=inside)
    tl.store(up_gradient + place, (given * g * s).to(up_gradient.dtype.element_ty), mask=inside)


@triton.jit
def _tanh(x):
    # by a sigmoid, which neither overflows nor needs a library of the device
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit
def _gelu(x, y, elements, SCALE: tl.constexpr, CUBIC: tl.constexpr, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < elements
    v = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    result = 0.5 * v * (1.0 + _tanh(SCALE * (v + CUBIC * v * v * v)))
    tl.store(y + place, result.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _gelu_backward(
    gradient, x, x_gradient, elements, SCALE: tl.constexpr, CUBIC: tl.constexpr, BLOCK: tl.constexpr
):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < elements
    given = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
    v = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    t = _tanh(SCALE * (v + CUBIC * v * v * v))
    slope = SCALE * (1.0 + 3.0 * CUBIC * v * v)
    back = given * 0.5 * (1.0 + t + v * (1.0 - t * t) * slope)
    tl.store(x_gradient + place, back.to(x_gradient.dtype.element_ty), mask=inside)


def _launch_swiglu(inputs: Tensors, sizes: Sizes, tile: Tile, allocate: Allocate) -> tuple[torch.Tensor, ...]:
    gate, up = (each.contiguous() for each in inputs)
    y = allocate(*gate.shape, dtype=gate.dtype)
    _swiglu[(triton.cdiv(y.numel(), _BLOCK),)](gate, up, y, y.numel(), _BLOCK)
    return (y,)


def _launch_swiglu_backward(
    inputs: Tensors, sizes: Sizes, tile: Tile, allocate: Allocate
) -> tuple[torch.Tensor, ...]:
    gradient, gate, up = (each.contiguous() for each in inputs)
    outputs = tuple(allocate(*gate.shape, dtype=gate.dtype) for _ in range(2))
    programs = triton.cdiv(gate.numel(), _BLOCK)
    _swiglu_backward[(programs,)](gradient, gate, up, *outputs, gate.numel(), _BLOCK)
    return outputs


def _launch_gelu(inputs: Tensors, sizes: Sizes, tile: Tile, allocate: Allocate) -> tuple[torch.Tensor, ...]:
    x = inputs[0].contiguous()
    y = allocate(*x.shape, dtype=x.dtype)
    _gelu[(triton.cdiv(x.numel(), _BLOCK),)](x, y, x.numel(), GELU_SCALE, GELU_CUBIC, _BLOCK)
    return (y,)


def _launch_gelu_backward(
    inputs: Tensors, sizes: Sizes, tile: Tile, allocate: Allocate
) -> tuple[torch.Tensor, ...]:
    gradient, x = (each.contiguous() for each in inputs)
    back = allocate(*x.shape, dtype=x.dtype)
    programs = triton.cdiv(x.numel(), _BLOCK)
    _gelu_backward[(programs,)](gradient, x, back, x.numel(), GELU_SCALE, GELU_CUBIC, _BLOCK)
    return (back,)


LAUNCHERS: dict[str, Launch] = {
    "swiglu": _launch_swiglu,
    "swiglu_backward": _launch_swiglu_backward,
    "gelu": _launch_gelu,
    "gelu_backward": _launch_gelu_backward,
}
