"""Messages between pipeline stages over torch.distributed.

Each direction has a communicator of its own, and so has the way from the last stage back to the first under
interleaving: with one for all, two neighbours that send to each other at once would wait for each other (the calls of
one communicator run one after the other on a GPU).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from towtank.executor.distributed.mesh import Mesh
from towtank.executor.measured import recorder
from towtank.executor.measured.recorder import SEND, Waitable
from towtank.executor.measured.spans import Message
from towtank.executor.step.pipeline import Pass, Stage
from towtank.simulator.operations import Phase as StepPhase
from towtank.simulator.schedules import Phase

_NAME = {Phase.FORWARD: "send-forward", Phase.BACKWARD: "send-backward"}
_PHASE = {Phase.FORWARD: StepPhase.FORWARD, Phase.BACKWARD: StepPhase.BACKWARD}


@dataclass(slots=True)
class _Arrival:
    tensor: torch.Tensor
    handle: Waitable

    def wait(self) -> torch.Tensor:
        """The tensor, once it is here."""
        self.handle.wait()
        return self.tensor


class PipelineMessages:
    """Sends and receives of one stage: hidden states forward, their gradients backward."""

    def __init__(self, stage: Stage, mesh: Mesh, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Make the communicators. All processes of the run call this together.

        Args:
            stage: place of this process.
            mesh: its groups.
            shape: of every message.
            dtype: of every message.
        """
        self._stage, self._mesh = stage, mesh
        self._empty: Callable[[], torch.Tensor] = partial(torch.empty, shape, dtype=dtype, device=mesh.device)
        self._groups: dict[tuple[Phase, bool], Any] = {}
        for phase in Phase:
            for around in (False, True)[: 2 if stage.num_chunks > 1 else 1]:
                purpose = f"{_NAME[phase]}{' around' if around else ''}"
                self._groups[phase, around] = mesh.another("pipeline", purpose).process_group

    def send(self, made_by: Pass, tensor: torch.Tensor) -> Waitable:
        """Begin to send what a pass of this stage made to the stage that needs it."""
        step = 1 if made_by.phase is Phase.FORWARD else -1
        target = self._stage.index + step
        group = self._group(made_by.phase, self._stage.index, target)
        rank = self._mesh.stage_rank(target % self._stage.num_stages)
        start = partial(dist.isend, tensor.contiguous(), rank, group=group)
        return _issue(made_by.phase, start, Message(self._mesh.rank, rank, sends=True))

    def receive(self, needed_by: Pass) -> _Arrival:
        """Begin to receive what a pass of this stage needs."""
        source, _ = self._stage.sender(needed_by)
        step = 1 if needed_by.phase is Phase.FORWARD else -1
        group = self._group(needed_by.phase, source, source + step)
        rank = self._mesh.stage_rank(source)
        tensor = self._empty()
        start = partial(dist.irecv, tensor, rank, group=group)
        return _Arrival(tensor, _issue(needed_by.phase, start, Message(rank, self._mesh.rank, sends=False)))

    def _group(self, phase: Phase, source: int, target: int) -> Any:
        """Communicator of the way from stage `source` to `target`, which may be one beyond either end."""
        return self._groups[phase, not 0 <= target < self._stage.num_stages]


def _issue(phase: Phase, start: Callable[[], Any], message: Message) -> Waitable:
    return recorder.issue(_NAME[phase], SEND, _PHASE[phase], start, message)
