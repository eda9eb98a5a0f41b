"""Messages from each member of a group to the next one, all at once."""

from typing import Any, Final

import torch
import torch.distributed as dist

from towtank.executor.distributed.mesh import Group
from towtank.executor.measured import recorder
from towtank.simulator.operations import Phase

PAIR: Final = 0
GRADIENTS: Final = 1
"""Tags: keys and values, and their gradients, are on their way at once."""


class Shifted:
    """A message on its way round; `wait` gives what has come from the member before."""

    def __init__(self, sent: torch.Tensor, came: torch.Tensor, works: list[Any]) -> None:
        self._sent = sent  # held until it has left
        self._came = came
        self._works = works

    def wait(self) -> torch.Tensor:
        """Wait for both directions."""
        for work in self._works:
            work.wait()
        self._works = []
        return self._came


class _All:
    """Several pieces of work as one."""

    def __init__(self, works: list[Any]) -> None:
        self._works = works

    def wait(self) -> None:
        """Wait for each."""
        for work in self._works:
            work.wait()


def shift(group: Group, sent: torch.Tensor, tag: int, name: str, phase: Phase) -> Shifted:
    """Send a tensor to the next member of the group, and receive one of the same shape from the one before.

    Args:
        group: of any size; of one, the tensor comes back at once.
        sent: not to be changed before the wait.
        tag: one for each message that is under way at once between the same members.
        name: of the part of the layer; the message is noted as NAME.ring.
        phase: part of the step.
    """
    if group.size == 1:
        return Shifted(sent, sent, [])
    sent = sent.contiguous()
    came = torch.empty_like(sent)
    following = group.ranks[(group.index + 1) % group.size]
    before = group.ranks[(group.index - 1) % group.size]

    def start() -> _All:
        ends = [
            dist.P2POp(dist.isend, sent, following, group.process_group, tag),
            dist.P2POp(dist.irecv, came, before, group.process_group, tag),
        ]
        return _All(dist.batch_isend_irecv(ends))

    # the Program has one operation for all turns, under the name of the collective that they amount to
    return Shifted(sent, came, [recorder.issue(f"{name}.ring", "all-gather context", phase, start)])
