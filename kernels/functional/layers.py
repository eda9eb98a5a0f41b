"""Norms, activations and rotary embedding."""

from collections.abc import Mapping
from typing import Any

import torch

from towtank.kernels.activations import library_gelu, library_swiglu
from towtank.kernels.functional.choice import apply, backend_of, run
from towtank.kernels.norms import differentiable
from towtank.kernels.rotary import BASE

_NONE: Mapping[str, int] = {}


def rms_norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float = 1e-5) -> torch.Tensor:
    """y = x / sqrt(mean(x^2) + e) w over the last dimension; differentiable in x and w.

    `epsilon` is rounded to parts per billion.
    """
    sizes = {"epsilon_ppb": round(epsilon * 1e9)}
    if backend_of("rms_norm", x.dtype, x.device.type) == "library":
        return differentiable((x, weight), sizes)
    return _by_rows("rms_norm", sizes, x, weight)


def layer_norm(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, epsilon: float = 1e-5
) -> torch.Tensor:
    """y = (x - mean(x)) / sqrt(var(x) + e) w + b over the last dimension; differentiable in x, w and b.

    `epsilon` is rounded to parts per billion.
    """
    sizes = {"epsilon_ppb": round(epsilon * 1e9)}
    if backend_of("layer_norm", x.dtype, x.device.type) == "library":
        return differentiable((x, weight, bias), sizes)
    return _by_rows("layer_norm", sizes, x, weight, bias)


def swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """y = g sigmoid(g) u, element by element; differentiable in both."""
    if backend_of("swiglu", gate.dtype, gate.device.type) == "library":
        return library_swiglu((gate, up), _NONE)
    y: torch.Tensor = apply(_Pair, "swiglu", _NONE, gate, up)
    return y


def gelu(x: torch.Tensor) -> torch.Tensor:
    """GELU as GPT uses it, by a hyperbolic tangent; differentiable."""
    if backend_of("gelu", x.dtype, x.device.type) == "library":
        return library_gelu((x,), _NONE)
    y: torch.Tensor = apply(_Pair, "gelu", _NONE, x)
    return y


def rotary(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the pairs (x_i, x_{i + d/2}) of x [batch, sequence, heads, d]; differentiable in x.

    cos and sin are [sequence, d/2]: see `rotary_angles`.
    """
    y: torch.Tensor = apply(_Rotary, x, cos, sin)
    return y


def rotary_angles(
    positions: torch.Tensor, head_dim: int, base: float = BASE, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin [sequence, d/2] of position times base^(-2i/d); worked out in float64, so that they are the same
    whichever part of a sequence they are made for."""
    pairs = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float64) / head_dim
    angles = torch.outer(positions.double(), base**-pairs)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _by_rows(name: str, sizes: Mapping[str, int], x: torch.Tensor, *vectors: torch.Tensor) -> torch.Tensor:
    """An operation whose kernels take matrices."""
    y: torch.Tensor = apply(_Pair, name, sizes, x.reshape(-1, x.shape[-1]), *vectors)
    return y.view(x.shape)


class _Pair(torch.autograd.Function):
    """A kernel and its backward kernel, which takes the gradient and the inputs."""

    @staticmethod
    def forward(ctx: Any, name: str, sizes: Mapping[str, int], *inputs: torch.Tensor) -> torch.Tensor:
        ctx.name, ctx.sizes = name, sizes
        ctx.save_for_backward(*inputs)
        return run(name, name, inputs, sizes)[0]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs = (gradients[0], *ctx.saved_tensors)
        return (None, None, *run(ctx.name, f"{ctx.name}_backward", inputs, ctx.sizes))


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return run("rotary", "rotary", (x, cos, sin), _NONE)[0]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (*run("rotary", "rotary_backward", (gradients[0], *ctx.saved_tensors), _NONE), None, None)
