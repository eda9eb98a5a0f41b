"""Layer norm and RMS norm of a hidden state whose features may be split over y.

The statistics are then sums over y of two numbers a token, forward (sum, sum of squares) and backward (the two sums
that a norm's gradient needs). The residual stream passes through the norm's backward pass, where both gradients meet.
"""

from typing import Any, NamedTuple

import torch

from towtank.executor.distributed import collectives
from towtank.executor.distributed.grid import apply
from towtank.executor.distributed.mesh import Group
from towtank.executor.distributed.weights import Weight
from towtank.executor.layers.phases import forward_phase
from towtank.executor.measured import recorder
from towtank.simulator.operations import Phase

EPSILON = 1e-5
ELEMENTWISE = "elementwise"


class Norm:
    """A norm over the last dimension of [..., local features]."""

    def __init__(
        self, name: str, weight: Weight, bias: Weight | None, y: Group, *, centred: bool, residual: str = ""
    ) -> None:
        """Describe a norm.

        Args:
            name: in the Program, such as layer.3.mlp.norm.
            weight: [local features].
            bias: the same, or None.
            y: group over which features are split.
            centred: layer norm, which takes off the mean; otherwise RMS norm.
            residual: name under which the two gradients of the input are added, if the input goes on beside the norm.
        """
        self.name, self.weight, self.bias, self.y = name, weight, bias, y
        self.centred, self.residual = centred, residual
        self.width = weight.rows * y.size
        self._reduce = f"{name}.all-reduce"
        self._in_library = centred and y.size == 1
        """Whether a token is whole here and PyTorch has the norm."""

    @property
    def _bias_value(self) -> torch.Tensor | None:
        return None if self.bias is None else self.bias.value

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The norm of x."""
        normed: torch.Tensor = apply(_Norm, x, self)[0]
        return normed

    def beside(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The norm of x, and x itself for the residual addition."""
        normed, same = apply(_Norm, x, self)
        return normed, same

    def _sum(self, *columns: torch.Tensor, phase: Phase) -> torch.Tensor:
        """Numbers per token, [number, ..., 1], summed over y."""
        return collectives.all_reduce(torch.stack(columns), self.y, self._reduce, phase)

    def forward(self, x: torch.Tensor, phase: Phase) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The norm, the mean (zero where not centred) and the inverse deviation of each token."""
        with recorder.operation(self.name, ELEMENTWISE, phase):
            if self._in_library:
                y, mean, inverse = torch.native_layer_norm(
                    x, [self.width], self.weight.value, self._bias_value, EPSILON
                )
                return y, mean, inverse
            wide = _wide(x)
            squares = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
            total = wide.sum(-1, keepdim=True) if self.centred else torch.zeros_like(squares)
        if self.y.size > 1:
            total, squares = self._sum(total, squares, phase=phase)
        with recorder.operation(self.name, ELEMENTWISE, phase):
            mean = total / self.width
            # of numbers that are nearly the same, rounding may leave less than nothing
            inverse = (squares / self.width - mean.square()).clamp_(min=0.0).add_(EPSILON).rsqrt_()
            y = (wide - mean).mul_(inverse) if self.centred else wide * inverse
            y = y.mul_(self.weight.value)
            if self.bias is not None:
                y = y.add_(self.bias.value)
            return y.to(x.dtype), mean, inverse

    def backward(
        self, dy: torch.Tensor, x: torch.Tensor, mean: torch.Tensor, inverse: torch.Tensor
    ) -> torch.Tensor:
        """Gradient of x; those of weight and bias go to them.

        With n = (x - mean) inverse and g = dy weight: dx = inverse (g - mean(g) - n mean(g n)), without mean(g) where
        the norm takes off no mean.
        """
        back = Phase.BACKWARD
        with recorder.operation(self.name, ELEMENTWISE, back):
            if self._in_library:
                return self._library(dy, x, mean, inverse)
            dy, wide = _wide(dy), _wide(x)
            n = (wide - mean).mul_(inverse) if self.centred else wide * inverse
            g = dy * self.weight.value
            along = (g * n).sum(-1, keepdim=True)
            flat = g.sum(-1, keepdim=True) if self.centred else along
        if self.y.size > 1:
            along, flat = self._sum(along, flat, phase=back)
        with recorder.operation(self.name, ELEMENTWISE, back):
            self._parameters(dy, n)
            if self.centred:
                g = g.sub_(flat / self.width)
            return g.sub_(n.mul_(along / self.width)).mul_(inverse).to(x.dtype)

    def _parameters(self, dy: torch.Tensor, n: torch.Tensor) -> None:
        columns = dy.shape[-1]
        self.weight.accumulate((dy * n).view(-1, columns).sum(0), self.name)
        if self.bias is not None:
            self.bias.accumulate(dy.reshape(-1, columns).sum(0), self.name)

    def _library(
        self, dy: torch.Tensor, x: torch.Tensor, mean: torch.Tensor, inverse: torch.Tensor
    ) -> torch.Tensor:
        wanted = [True, True, self.bias is not None]
        dx, of_weight, of_bias = torch.ops.aten.native_layer_norm_backward(
            dy, x, [self.width], mean, inverse, self.weight.value, self._bias_value, wanted
        )
        self.weight.accumulate(of_weight, self.name)
        if self.bias is not None:
            self.bias.accumulate(of_bias, self.name)
        gradient: torch.Tensor = dx
        return gradient


def _wide(x: torch.Tensor) -> torch.Tensor:
    """At least fp32."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


class _Saved(NamedTuple):
    x: torch.Tensor
    mean: torch.Tensor
    inverse: torch.Tensor


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, norm: Norm) -> tuple[torch.Tensor, torch.Tensor]:
        y, mean, inverse = norm.forward(x, forward_phase())
        ctx.norm = norm
        ctx.save_for_backward(*_Saved(x, mean, inverse))
        ctx.set_materialize_grads(False)
        return y, x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        norm: Norm = ctx.norm
        of_norm, of_residual = gradients
        dx = norm.backward(of_norm.contiguous(), *ctx.saved_tensors)
        if of_residual is not None:
            with recorder.operation(norm.residual or norm.name, ELEMENTWISE, Phase.BACKWARD):
                dx = dx.add_(of_residual)
        return dx, None
