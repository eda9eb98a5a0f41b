"""Weights for the next step where ZeRO 1 or 2 shards the states: every device gathers what the others have updated.

With plan.overlap.parameter_gather the gathers run beside the first forward passes of the next step, in the order of
the layers and two buckets ahead; otherwise they follow the optimizer.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from towtank.executor.distributed import collectives
from towtank.executor.measured import recorder
from towtank.executor.measured.recorder import PARAMETER_GATHER, Waitable
from towtank.executor.step.states import States
from towtank.simulator.operations import Phase

_AHEAD = 2
"""Gathers under way at once: more would only hold memory."""


@dataclass(slots=True, eq=False)
class _UnderWay:
    states: States
    whole: torch.Tensor
    handle: Waitable
    phase: Phase


class ParameterGather:
    """Gathers the weights of all buckets whose states are sharded."""

    def __init__(self, states: Sequence[States], *, overlapped: bool) -> None:
        """`states` in the order in which the forward pass needs them."""
        self._all = [one for one in states if one.bucket.shards > 1]
        self._overlapped = overlapped
        self._left: deque[States] = deque()
        self._under_way: deque[_UnderWay] = deque()

    def weights_changed(self) -> None:
        """The optimizer is done: gather now, or when the next step begins."""
        self._left = deque(self._all)
        if not self._overlapped:
            while self._left:
                self._start(self._left.popleft(), Phase.OPTIMIZER)
                self._finish()

    def begin(self) -> None:
        """A step begins: the first gathers leave."""
        while self._left and len(self._under_way) < _AHEAD:
            self._start(self._left.popleft(), Phase.FORWARD)

    def need(self, place: int) -> None:
        """The weights of a place of the model (a layer, FIRST or LAST) are about to be used."""
        while self._is_pending(place):
            self.begin()
            self._finish()
            self.begin()

    def finish(self) -> None:
        """Gather whatever is left, so that all weights may be read."""
        while self._left or self._under_way:
            self.begin()
            self._finish()

    def _is_pending(self, place: int) -> bool:
        under_way = any(place in one.states.bucket.model_places for one in self._under_way)
        return under_way or any(place in one.bucket.model_places for one in self._left)

    def _start(self, states: States, phase: Phase) -> None:
        group = states.bucket.how.scatter
        assert group is not None
        whole, handle = collectives.start_all_gather(
            states.working, group, f"{states.bucket.name}.parameter-gather", phase, PARAMETER_GATHER
        )
        self._under_way.append(_UnderWay(states, whole, handle, phase))

    def _finish(self) -> None:
        """Wait for the oldest gather and give its weights to their users."""
        one = self._under_way.popleft()
        one.handle.wait()
        bucket = one.states.bucket
        with recorder.operation(f"{bucket.name}.parameter-gather", PARAMETER_GATHER, one.phase):
            bucket.collect(one.whole.view(bucket.shards, bucket.elements))
