"""Expert part of a layer: routed experts, and those that every token visits."""

from dataclasses import dataclass
from typing import Any

import torch

from towtank.executor.distributed.grid import apply
from towtank.executor.distributed.weights import Weight
from towtank.executor.layers.batch import MicroBatch
from towtank.executor.layers.blocks import add
from towtank.executor.layers.experts.routed import RoutedExperts
from towtank.executor.layers.feed_forward import FeedForward
from towtank.executor.layers.phases import forward_phase
from towtank.executor.measured import recorder
from towtank.simulator.operations import Phase


@dataclass(slots=True)
class ExpertsPart:
    """Sum of routed and shared experts."""

    name: str
    """Of the layer, such as layer.3."""
    routed: RoutedExperts
    shared: FeedForward | None = None
    gate: Weight | None = None
    """[hidden]: the shared experts count sigmoid(x w) times (Qwen2-MoE)."""

    def __call__(self, x: torch.Tensor, batch: MicroBatch) -> torch.Tensor:
        """Outputs of [tokens, hidden]."""
        routed = self.routed(x, batch)
        if self.shared is None:
            return routed
        shared = self.shared(x, batch)
        if self.gate is not None:
            shared = apply(_Gate, shared, x, self.gate, f"{self.name}.shared.token-gate")
        return add(routed, shared, f"{self.name}.shared.add")


class _Gate(torch.autograd.Function):
    """y sigmoid(x w), token by token."""

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, x: torch.Tensor, weight: Weight, name: str) -> torch.Tensor:
        ctx.told = weight, name
        with recorder.operation(name, "elementwise", forward_phase()):
            open_ = (x @ weight.value).sigmoid_()[:, None]
            ctx.save_for_backward(y, x, open_)
            return y * open_

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        y, x, open_ = ctx.saved_tensors
        weight, name = ctx.told
        with recorder.operation(name, "elementwise", Phase.BACKWARD):
            of_logit = (gradients[0] * y).sum(-1, keepdim=True) * open_ * (1 - open_)
            dx = of_logit * weight.value
        weight.accumulate((of_logit * x).sum(0), name)
        return gradients[0] * open_, dx, None, None
