"""One step's passes in the order of the plan's schedule, and the messages between pipeline stages.

The order is the one that the simulator times (`simulator.schedules`); a pipeline of one stage is gradient
accumulation. Each stage has one message under way towards it in each direction: the receive for its next forward and
its next backward pass is posted before the pass before it begins, so that a transfer needs nobody's attention. With
this a sender that waits (plan.overlap.pipeline false) cannot lock up with its neighbour.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from towtank.executor.measured.recorder import Waitable
from towtank.simulator.schedules import Phase, schedule

_MOST_SENT = 2
"""Messages under way in one direction: the one that its receiver works on next, and the one after it."""


class Pass(NamedTuple):
    """One pass of a micro-batch through a chunk of this stage."""

    phase: Phase
    chunk: int
    micro_batch: int


class Arrival(Protocol):
    """A message under way to this stage."""

    def wait(self) -> Any:
        """The tensor, once it is here."""


class Transport(Protocol):
    """Messages to and from the neighbours of a stage. Messages of one phase arrive in the order they were sent."""

    def send(self, made_by: Pass, tensor: Any) -> Waitable:
        """Begin to send what a pass of this stage made to the stage that needs it."""

    def receive(self, needed_by: Pass) -> Arrival:
        """Begin to receive what a pass of this stage needs."""


class Compute(Protocol):
    """What the passes of a stage do."""

    def forward(self, one: Pass, hidden: Any, *, last: bool) -> Any:
        """Hidden states after the chunk; `hidden` is None where the model begins. `last`: the loss follows."""

    def backward(self, one: Pass, gradient: Any) -> Any:
        """Gradient of what the forward pass was given, None where the model begins; `gradient` is that of its
        result, None for the loss."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Place of this process in the pipeline, and the sizes of the pipeline."""

    index: int
    num_stages: int
    num_chunks: int
    num_micro_batches: int
    schedule: str

    def passes(self) -> tuple[Pass, ...]:
        """Passes of this stage in order; raises ScheduleError where the schedule cannot run this pipeline."""
        slots = schedule(self.schedule, self.num_stages, self.num_chunks, self.num_micro_batches)
        rows = (slots.phase[self.index], slots.chunk[self.index], slots.micro_batch[self.index])
        return tuple(
            Pass(Phase(phase), chunk, micro_batch)
            for phase, chunk, micro_batch in zip(*(row.tolist() for row in rows), strict=True)
        )

    def begins(self, chunk: int) -> bool:
        """Whether the model begins with this chunk."""
        return self.index == 0 and chunk == 0

    def ends(self, chunk: int) -> bool:
        """Whether the model ends with this chunk."""
        return self.index == self.num_stages - 1 and chunk == self.num_chunks - 1

    def receives(self, one: Pass) -> bool:
        """Whether a pass needs a message from another stage."""
        return not (self.ends(one.chunk) if one.phase is Phase.BACKWARD else self.begins(one.chunk))

    def sends(self, one: Pass) -> bool:
        """Whether a pass makes a message for another stage."""
        return not (self.begins(one.chunk) if one.phase is Phase.BACKWARD else self.ends(one.chunk))

    def sender(self, needed_by: Pass) -> tuple[int, Pass]:
        """Stage and pass that make what a pass of this stage needs."""
        step = 1 if needed_by.phase is Phase.BACKWARD else -1
        chunk_shift, index = divmod(self.index + step, self.num_stages)
        return index, needed_by._replace(chunk=needed_by.chunk + chunk_shift)


@dataclass(slots=True)
class _Inbox:
    """Messages that this stage will need in one direction: the next one is always under way."""

    transport: Transport
    needed: Iterator[Pass]
    under_way: list[Arrival] = field(default_factory=list)

    def post(self) -> None:
        """Begin to receive the next message, if there is one."""
        for one in self.needed:
            self.under_way.append(self.transport.receive(one))
            return

    def take(self) -> Any:
        """Wait for the oldest message, and begin to receive the one after it."""
        tensor = self.under_way.pop(0).wait()
        self.post()
        return tensor


@dataclass(slots=True)
class _Outbox:
    """Messages that this stage has sent in one direction and whose memory may still be read.

    Beyond a few the oldest is waited for, so that memory does not pile up at a stage that runs ahead; its receiver
    asked for it when it took the message before, so nobody waits for long.
    """

    most: int
    """Messages that may be under way."""
    under_way: deque[Waitable] = field(default_factory=deque)

    def add(self, message: Waitable) -> None:
        """Keep a message that is under way."""
        self.under_way.append(message)
        if len(self.under_way) > self.most:
            self.under_way.popleft().wait()

    def empty(self) -> None:
        """Wait for all messages."""
        while self.under_way:
            self.under_way.popleft().wait()


def run_passes(
    stage: Stage,
    passes: Sequence[Pass],
    compute: Compute,
    transport: Transport,
    *,
    overlap_sends: bool = True,
) -> None:
    """Run the passes of a stage in order.

    Args:
        stage: place of this process.
        passes: `stage.passes()`.
        compute: runs one pass.
        transport: messages to and from other stages.
        overlap_sends: whether the next pass begins while a message is still under way (plan.overlap.pipeline).
    """
    inboxes = {
        phase: _Inbox(transport, iter([one for one in passes if one.phase is phase and stage.receives(one)]))
        for phase in Phase
    }
    for inbox in inboxes.values():
        inbox.post()
    outboxes = {phase: _Outbox(_MOST_SENT if overlap_sends else 0) for phase in Phase}
    for one in passes:
        given = inboxes[one.phase].take() if stage.receives(one) else None
        if one.phase is Phase.FORWARD:
            made = compute.forward(one, given, last=stage.ends(one.chunk))
        else:
            made = compute.backward(one, given)
        if stage.sends(one):
            outboxes[one.phase].add(transport.send(one, made))
        del given, made
    for outbox in outboxes.values():
        outbox.empty()
