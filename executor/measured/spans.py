"""One step of one rank: from the moments noted to seconds by operation."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from towtank.simulator.operations import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from towtank.executor.measured.clocks import Clock

LAUNCH_S: Final = 5e-4
"""Longest way of the host from one operation to the next that counts as the launch of that one, as the launch is part
of a predicted operation. What is longer is no way of ours: a scheduler that gives the core to somebody else does so
for longer, and work that has no name is not to hide here."""


class Key(NamedTuple):
    """Identity of an operation in a record."""

    name: str
    kind: str
    phase: Phase


class Message(NamedTuple):
    """A message between two ranks: who waits for whom is seen by matching both ends."""

    source: int
    target: int
    sends: bool
    """Whether this rank is the source."""


class UnderWay(Protocol):
    """Work beside compute: what is known of it when the step is over."""

    key: Key
    message: Message | None
    completion: "Callable[[], float | None]"
    """Seconds from the issue to completion, where the library tells."""


class Mark(NamedTuple):
    """A moment at which an operation begins (with `key`) or the innermost one ends (without)."""

    moment: Any
    key: Key | None = None
    issued: UnderWay | None = None
    """The asynchronous work that is issued or waited for here."""
    waits: bool = False


@dataclass(slots=True)
class Seconds:
    """Time of one operation over a step."""

    total: float = 0.0
    """Running, hidden or not."""
    exposed: float = 0.0
    """On the compute stream: running, issuing or waiting."""


class Slice(NamedTuple):
    """One run of an operation on the process's clock, in seconds; `hidden` runs beside compute."""

    key: Key
    start_s: float
    finish_s: float
    hidden: bool = False


class Wait(NamedTuple):
    """One end of a message between stages: when a sender had issued it, or from when to when a receiver waited."""

    key: Key
    source: int
    target: int
    sends: bool
    start_s: float
    finish_s: float

    @property
    def name(self) -> str:
        """Name of the message, the same at both ends."""
        return self.key.name


@dataclass(frozen=True, slots=True)
class StepMeasurement:
    """One step of one rank."""

    number: int
    start_s: float
    """On the clock of the process."""
    seconds: float
    operations: dict[Key, Seconds]
    waits: tuple[Wait, ...] = ()
    slices: tuple[Slice, ...] = ()

    @property
    def named_s(self) -> float:
        """Seconds of the compute stream under named operations."""
        return sum(one.exposed for one in self.operations.values())


@dataclass(slots=True)
class _Open:
    """An operation that has begun."""

    mark: Mark
    start_s: float
    launch_s: float = 0.0
    inside_s: float = 0.0


class _Sum:
    """Adds up the marks of one step."""

    def __init__(self, keep_slices: bool) -> None:
        self.keep_slices = keep_slices
        self.operations: dict[Key, Seconds] = {}
        self.waits: list[Wait] = []
        self.slices: list[Slice] = []
        self.begun: dict[int, float] = {}
        """Second of issue by the identity of the work."""

    def add(self, opened: _Open, finish_s: float) -> None:
        mark = opened.mark
        assert mark.key is not None
        own = finish_s - opened.start_s - opened.inside_s + opened.launch_s
        entry = self.operations.setdefault(mark.key, Seconds())
        entry.exposed += own
        if mark.issued is None:
            entry.total += own
        elif mark.waits:
            self._waited(mark.key, entry, mark.issued, opened.start_s, finish_s)
        else:
            self._issued(entry, mark.issued, opened.start_s, own)
        if self.keep_slices:
            self.slices.append(Slice(mark.key, opened.start_s, finish_s))

    def _issued(self, entry: Seconds, issued: UnderWay, start_s: float, own: float) -> None:
        """The call that starts it: all that is known where nobody tells the completion."""
        self.begun[id(issued)] = start_s
        completion = issued.completion()
        entry.total += own if completion is None else completion
        message = issued.message
        if message is not None and message.sends:
            self.waits.append(Wait(issued.key, message.source, message.target, True, start_s, start_s))

    def _waited(self, key: Key, entry: Seconds, issued: UnderWay, start_s: float, finish_s: float) -> None:
        completion, begun = issued.completion(), self.begun.get(id(issued))
        if completion is None or begun is None:  # unknown, or issued in the step before
            entry.total += finish_s - start_s
        elif self.keep_slices:
            self.slices.append(Slice(key, begun, begun + completion, hidden=True))
        message = issued.message
        if message is not None and not message.sends:
            self.waits.append(Wait(issued.key, message.source, message.target, False, start_s, finish_s))


def measure(
    number: int, begin: Any, end: Any, marks: list[Mark], clock: "Clock", keep_slices: bool
) -> StepMeasurement:
    """Sum up a step.

    Every second of the compute stream is counted once: what runs inside an operation is taken out of it, and the way
    from one operation to the next (up to LAUNCH_S) is part of the next one.
    `Seconds.total` of work beside compute reaches from issue to completion; where the library does not tell the
    completion (sends and receives of gloo), it is the time in the calls, which is a lower bound.
    """
    seconds = clock.resolve([begin, end, *(mark.moment for mark in marks)])
    sums = _Sum(keep_slices)
    stack: list[_Open] = []
    ended = seconds[0]
    for mark, at in zip(marks, seconds[2:], strict=True):
        if mark.key is not None:
            way = at - ended if not stack else 0.0
            stack.append(_Open(mark, at, way if way <= LAUNCH_S else 0.0))
            continue
        opened = stack.pop()
        sums.add(opened, at)
        if stack:
            stack[-1].inside_s += at - opened.start_s
        else:
            ended = at
    return StepMeasurement(
        number, seconds[0], seconds[1] - seconds[0], sums.operations, tuple(sums.waits), tuple(sums.slices)
    )
