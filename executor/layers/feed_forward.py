"""Dense feed-forward part: projection up, activation, projection down."""

from typing import Any

import torch
from torch.nn import functional

from towtank.executor.distributed.grid import apply
from towtank.executor.layers.batch import MicroBatch
from towtank.executor.layers.linear import Linear
from towtank.executor.layers.phases import forward_phase
from towtank.executor.measured import recorder
from towtank.simulator.operations import Phase


def activation(x: torch.Tensor, name: str, *, gated: bool) -> torch.Tensor:
    """Activation of [tokens, columns]: GELU (tanh form), or SiLU of the left half of columns times the right half."""
    y: torch.Tensor = apply(_Gated if gated else _Gelu, x, name)
    return y


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, name: str) -> torch.Tensor:
        ctx.name = name
        ctx.save_for_backward(x)
        with recorder.operation(name, "elementwise", forward_phase()):
            return functional.gelu(x, approximate="tanh")

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        with recorder.operation(ctx.name, "elementwise", Phase.BACKWARD):
            return torch.ops.aten.gelu_backward(gradients[0], x, approximate="tanh"), None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, name: str) -> torch.Tensor:
        ctx.name = name
        ctx.save_for_backward(x)
        with recorder.operation(name, "elementwise", forward_phase()):
            gate, up = x.chunk(2, -1)
            return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        dy = gradients[0]
        with recorder.operation(ctx.name, "elementwise", Phase.BACKWARD):
            gate, up = x.chunk(2, -1)
            dx = torch.empty_like(x)
            of_gate, of_up = dx.chunk(2, -1)
            torch.mul(functional.silu(gate), dy, out=of_up)
            torch.ops.aten.silu_backward.grad_input(dy * up, gate, grad_input=of_gate)
            return dx, None


class FeedForward:
    """Two linear layers and the activation between them."""

    def __init__(self, name: str, up: Linear, down: Linear, *, gated: bool) -> None:
        self.up, self.down, self._gated = up, down, gated
        self._activation = f"{name}.activation"

    def __call__(self, x: torch.Tensor, batch: MicroBatch) -> torch.Tensor:
        """Outputs of [tokens, local features]."""
        return self.down(activation(self.up(x), self._activation, gated=self._gated))
