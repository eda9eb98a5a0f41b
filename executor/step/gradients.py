"""Sums of gradients at the end of a step: over data, replicas and tied tables, bucket by bucket.

With plan.overlap.data_gradients the buckets of a layer leave while the last backward pass is still in the layers
before it; otherwise all gradients of the stage are one bucket, summed when the passes are over.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from towtank.executor.distributed import collectives
from towtank.executor.distributed.buckets import LAST
from towtank.executor.distributed.mesh import Group
from towtank.executor.distributed.partial_sums import sum_partials
from towtank.executor.measured.recorder import GRADIENT_NORM, GRADIENT_REDUCTION, Waitable, operation
from towtank.executor.step.states import States
from towtank.simulator.operations import Phase

if TYPE_CHECKING:
    from towtank.executor.distributed.scatters import Scatters


class _Chain:
    """Collectives of one bucket, of which each needs the result of the one before."""

    def __init__(self, steps: Iterator[Waitable]) -> None:
        self._steps = steps
        self._under_way = next(steps, None)

    def advance(self) -> bool:
        """Wait for the collective under way and begin the next one; whether there was one."""
        if self._under_way is None:
            return False
        self._under_way.wait()
        self._under_way = next(self._steps, None)
        return self._under_way is not None

    def finish(self) -> None:
        """Run what is left."""
        while self.advance():
            pass


class GradientSums:
    """Sums the gradients of all buckets once a step."""

    def __init__(
        self,
        states: Sequence[States],
        scatters: "Scatters",
        x: Group,
        *,
        overlapped: bool,
        frees_gradients: bool = False,
    ) -> None:
        """Prepare the sums.

        Args:
            states: of all buckets of this device, in the order of the model.
            scatters: reductions over the weight shards that may be under way.
            x: group over which partial gradients are completed.
            overlapped: whether buckets are by layer and leave under the last backward pass.
            frees_gradients: whether weights give up the memory of their gradients once these are reduced (ZeRO 2);
                buckets are by layer then too, and leave one by one.
        """
        self._states, self._scatters, self._x = list(states), scatters, x
        self._overlapped, self._frees = overlapped, frees_gradients
        if frees_gradients:  # the first step needs no more memory than the others
            for each in self._states:
                self._free(each)
        self._left: list[States] = []
        self._chains: list[_Chain] = []
        self._lag: list[States] = []
        self.last_pass = False
        """Whether the backward pass that runs is the last one of its chunk: buckets of its layers may leave."""

    @staticmethod
    def _free(states: States) -> None:
        for weight in states.bucket.weights if states.bucket.how.scatter is not None else ():
            weight.free_gradient()

    def begin(self) -> None:
        """Begin a step: whatever gradients were there are of the step before."""
        self._left = list(self._states)
        self.last_pass = False
        for states in self._states:
            for weight in states.bucket.weights:
                weight.forget_gradient()

    def layer_finished(self, layer: int) -> None:
        """The backward pass has come through a layer: its gradients are made, though their scatters may be under way.

        What leaves now are the buckets of the layer that finished before it, whose scatters had a layer's time.
        """
        if not (self.last_pass and (self._overlapped or self._frees)):
            return
        for chain in self._chains:
            chain.advance()
        for states in self._lag:
            self._leave(states)
        self._lag = [states for states in self._left if _is_ready(states, layer)]
        if not self._scatters.busy:
            for states in self._lag:
                self._leave(states)
            self._lag = []

    def finish(self) -> None:
        """Sum what is left, and wait for all of it."""
        for states in [*self._lag, *reversed(self._left)]:
            if states in self._left:
                self._leave(states)
        self._lag = []
        for chain in self._chains:
            chain.finish()
        self._chains = []
        parts = [
            (part.of(states.gradient), part.partial)
            for states in self._states
            if states.gradient is not None
            for part in states.bucket.parts
            if part.partial > 1
        ]
        sum_partials(parts, self._x)

    def _leave(self, states: States) -> None:
        self._left.remove(states)
        self._scatters.settle(states.bucket.weights)
        for weight in states.bucket.weights:
            weight.finish_gradient()
        self._chains.append(_Chain(self._steps(states)))
        if not self._overlapped:
            self._chains[-1].finish()

    def _steps(self, states: States) -> Iterator[Waitable]:
        """Start the collectives of a bucket one after the other."""
        how, name = states.bucket.how, states.bucket.name
        if how.scatter is None:
            assert states.gradient is not None
            yield from self._sum(states.gradient, how.before, name)
            return
        with operation(f"{name}.gradient-reduce", GRADIENT_REDUCTION, Phase.BACKWARD):
            whole = states.bucket.spread({weight: weight.gradient for weight in states.bucket.weights})
        if self._frees:
            self._free(states)
        yield from self._sum(whole, how.before, name)
        part, handle = collectives.start_reduce_scatter(
            whole, how.scatter, f"{name}.gradient-reduce", Phase.BACKWARD, GRADIENT_REDUCTION
        )
        yield handle
        states.gradient = part.view(-1)
        yield from self._sum(states.gradient, how.after, name)

    def _sum(self, flat: torch.Tensor, groups: Sequence[Group], name: str) -> Iterator[Waitable]:
        for group in groups:
            # tables of first and last stage: the simulator counts their sum with the norm
            tied = group.name == "ends"
            kind = GRADIENT_NORM if tied else GRADIENT_REDUCTION
            what = "tied-gradient" if tied else "gradient-reduce"
            yield collectives.start_all_reduce(flat, group, f"{name}.{what}", Phase.BACKWARD, kind)


def _is_ready(states: States, layer: int) -> bool:
    """Whether the gradients of a bucket are complete when the last backward pass has come through `layer`.

    Its own are, and those of what comes after the last layer. The embedding's are the very last. A table that another
    stage holds too waits for the end: that stage gets there only with what this one still has to send.
    """
    return states.bucket.model_places <= {layer, LAST} and all(
        weight.holds_gradient and not weight.tied for weight in states.bucket.weights
    )
