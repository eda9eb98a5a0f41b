"""One linear layer on AxoNN's grid (Singh et al., SC'24, Algorithm 1), of which Megatron and FSDP are corners.

A normal layer has its output features split over x and its input features over y; a transposed one the other way
round. Forward: gather the weight over its shards, multiply, sum over y (transposed: x). Backward: gather again, input
gradient, its sum over x (transposed: y) beside the weight gradient, whose reduction over the shards runs beside what
follows.
"""

from typing import Any, Protocol

import torch

from towtank.executor.distributed import collectives
from towtank.executor.distributed.grid import Grid, apply
from towtank.executor.distributed.weights import Weight
from towtank.executor.layers.phases import forward_phase
from towtank.executor.measured import recorder
from towtank.simulator.operations import Phase

MATMUL = "matmul"


class Gathers(Protocol):
    """A part of a layer with a weight to gather, and the parts whose weights it gathers ahead."""

    then_forward: "Gathers | None"
    then_recompute: "Gathers | None"
    then_backward: "Gathers | None"

    def prefetch(self, phase: Phase) -> None:
        """Begin to gather the weight."""


class Linear:
    """A linear layer as one device runs it; inputs are [tokens, local input features]."""

    def __init__(
        self,
        name: str,
        weight: Weight,
        grid: Grid,
        *,
        bias: Weight | None = None,
        transposed: bool = False,
        reduce_forward: bool = True,
        reduce_backward: bool = True,
        keeps: int = 0,
    ) -> None:
        """Describe the layer.

        Args:
            name: in the Program, such as layer.3.mlp.up.
            weight: [local outputs, local inputs].
            grid: groups and switches.
            bias: [local outputs], or None.
            transposed: whether x splits the inputs.
            reduce_forward: False where the sum of outputs is left to a later collective.
            reduce_backward: False where the gather of inputs and the sum of their gradients is somebody else's.
            keeps: how often the weight is still gathered from forward passes when the backward pass comes (1 where
                the layer is recomputed, 1 more where it is cached).
        """
        self.name, self.weight, self.grid, self.bias = name, weight, grid, bias
        self.transposed, self.reduce_forward, self.reduce_backward = (
            transposed,
            reduce_forward,
            reduce_backward,
        )
        self.keeps = keeps
        self.then_forward: Gathers | None = None
        """Whose weight is gathered ahead when this layer's forward multiply begins."""
        self.then_recompute: Gathers | None = None
        self.then_backward: Gathers | None = None
        self._sums = grid.x if transposed else grid.y
        """Group over which outputs are summed."""
        self._back = grid.y if transposed else grid.x
        """Group over which input gradients are summed."""
        self._gathers_input = grid.split and not transposed and reduce_backward
        self._scatters_output = grid.split and transposed and reduce_forward
        names = (
            "forward", "dgrad", "wgrad", "all-gather", "all-reduce", "reduce-scatter", "input.all-gather",
            "dgrad.all-reduce", "dgrad.reduce-scatter",
        )  # fmt: skip
        self._names = {part: f"{name}.{part}" for part in names}

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs [tokens, local outputs]; under sequence parallelism tokens are split where features are not."""
        y: torch.Tensor = apply(_Linear, x, self)
        return y

    def prefetch(self, phase: Phase) -> None:
        """Begin to gather the weight."""
        self.weight.prefetch(self.name, phase)

    # ---- forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs, without autograd."""
        phase, names = forward_phase(), self._names
        weight = self.weight.acquire(self.name, phase)
        following = self.then_forward if phase is Phase.FORWARD else self.then_recompute
        if following is not None:
            following.prefetch(phase)
        if self._gathers_input:
            x = collectives.all_gather(x, self.grid.x, names["all-gather"], phase)
        with recorder.operation(names["forward"], MATMUL, phase):
            y = self._multiply(x, weight)
        if phase is Phase.FORWARD and self.keeps < 2:
            self.weight.release()
        if not self.reduce_forward:
            return y
        if self._scatters_output:
            return collectives.reduce_scatter(y, self.grid.x, names["reduce-scatter"], phase)
        return collectives.all_reduce(y, self._sums, names["all-reduce"], phase)

    def _multiply(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Of the members whose outputs are summed, the first adds the bias."""
        if self.bias is not None and self._sums.index == 0:
            return torch.addmm(self.bias.value, x, weight.t())
        return torch.mm(x, weight.t())

    # ---- backward

    def backward(self, x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
        """Gradient of the inputs; those of weight and bias go to them."""
        back, names, grid = Phase.BACKWARD, self._names, self.grid
        weight = self.weight.acquire(self.name, back)
        if self.then_backward is not None:
            self.then_backward.prefetch(back)
        if self._scatters_output:
            dy = collectives.all_gather(dy, grid.x, names["all-gather"], back)
        handle = collectives.DONE
        if self._gathers_input:
            x, handle = self._gather_input(x)
        with recorder.operation(names["dgrad"], MATMUL, back):
            dx = torch.mm(dy, weight)
        del weight
        self.weight.release(1 + self.keeps)
        handle.wait()
        dx, handle = self._reduce_input_gradient(dx)
        self._weight_gradient(x, dy)
        handle.wait()
        return dx

    def _gather_input(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """The input was kept in parts (Korthikanti et al., arXiv 2205.05198, section 4.2.2)."""
        name = self._names["input.all-gather"]
        if self.grid.overlap_reduce:
            return collectives.start_all_gather(x, self.grid.x, name, Phase.BACKWARD)
        return collectives.all_gather(x, self.grid.x, name, Phase.BACKWARD), collectives.DONE

    def _reduce_input_gradient(self, dx: torch.Tensor) -> tuple[torch.Tensor, Any]:
        back, names, group = Phase.BACKWARD, self._names, self._back
        if not self.reduce_backward or group.size == 1:
            return dx, collectives.DONE
        if self._gathers_input:
            if self.grid.overlap_reduce:
                return collectives.start_reduce_scatter(dx, group, names["dgrad.reduce-scatter"], back)
            part = collectives.reduce_scatter(dx, group, names["dgrad.reduce-scatter"], back)
            return part, collectives.DONE
        if self.grid.overlap_reduce:
            return dx, collectives.start_all_reduce(dx, group, names["dgrad.all-reduce"], back)
        return collectives.all_reduce(dx, group, names["dgrad.all-reduce"], back), collectives.DONE

    def _weight_gradient(self, x: torch.Tensor, dy: torch.Tensor) -> None:
        with recorder.operation(self._names["wgrad"], MATMUL, Phase.BACKWARD):
            buffer = self.weight.gradient_buffer(dy.dtype)
            torch.mm(dy.t(), x, out=buffer[: self.weight.rows])
            if self.bias is not None:
                self.bias.accumulate(dy.sum(0), self._names["wgrad"], MATMUL)
        self.weight.add_gradient(buffer, self.name)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, linear: Linear) -> torch.Tensor:
        ctx.linear = linear
        ctx.save_for_backward(x)
        return linear.forward(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        linear: Linear = ctx.linear
        return linear.backward(x, gradients[0].contiguous()), None


class _Shared:
    """What several linear layers of a parallel block leave to one place, at the input or at the output of all."""

    def __init__(self, name: str, grid: Grid, function: type[torch.autograd.Function]) -> None:
        self.name, self.grid, self._function = name, grid, function

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """`x` as the other side needs it; itself where x is 1."""
        if self.grid.x.size == 1:
            return x
        made: torch.Tensor = apply(self._function, x, self)
        return made

    def gathered(self, x: torch.Tensor, phase: Phase) -> torch.Tensor:
        """All tokens, of this rank's tokens under sequence parallelism."""
        if self.grid.split:
            return collectives.all_gather(x, self.grid.x, f"{self.name}.all-gather", phase)
        return x

    def summed(self, x: torch.Tensor, name: str, phase: Phase) -> torch.Tensor:
        """The sum over x; of this rank's tokens under sequence parallelism."""
        if self.grid.split:
            return collectives.reduce_scatter(x, self.grid.x, f"{name}.reduce-scatter", phase)
        return collectives.all_reduce(x.clone(), self.grid.x, f"{name}.all-reduce", phase)


class ParallelInput(_Shared):
    """Input of several normal layers that leave its gather, and the sum of its gradients, to this."""

    def __init__(self, name: str, grid: Grid) -> None:
        super().__init__(name, grid, _ParallelInput)


class ParallelOutput(_Shared):
    """Sum over x of what transposed layers have left to it."""

    def __init__(self, name: str, grid: Grid) -> None:
        super().__init__(name, grid, _ParallelOutput)


class _ParallelInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, at: _Shared) -> torch.Tensor:
        ctx.at = at
        return at.gathered(x, forward_phase()) if at.grid.split else x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return ctx.at.summed(gradients[0], f"{ctx.at.name}.dgrad", Phase.BACKWARD), None


class _ParallelOutput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, at: _Shared) -> torch.Tensor:
        ctx.at = at
        return at.summed(y, at.name, forward_phase())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return ctx.at.gathered(gradients[0], Phase.BACKWARD), None
