"""The recorder: what a device does in a step and when, under the names of the Program.

Code of the executor names what it does with `operation`, `issue` and `step`. Without a recorder these cost a look at
a variable; with one they note two moments each, and the step is summed up when it ends. Moments are those of the
stream that computes: the process's clock on a CPU, events on a GPU (`towtank.executor.measured.clocks`).

Only one place of a step has each moment: an operation inside another one is taken out of it, so all operations
together are as long as what they cover. The host's way to an operation is its launch and counts with it, as in a
prediction, unless it is too long for that (`spans.LAUNCH_S`); what is under no name is a row of its own. A collective
that runs beside compute has two times: from its issue to its completion, and the part that the compute stream spends
in issuing it or in waiting for it (exposed).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from towtank.executor.measured.clocks import Clock, HostClock, Moment
from towtank.executor.measured.spans import Key, Mark, Message, StepMeasurement, measure
from towtank.simulator.operations import Phase

GRADIENT_REDUCTION = "gradient reduction data"
"""Kind of whatever sums gradients over copies of weights at the end of the step."""
PARAMETER_GATHER = "parameter all-gather data"
"""Kind of the gather of updated parameters (ZeRO 1 and 2)."""
GRADIENT_NORM = "gradient norm"
OPTIMIZER = "optimizer"
SEND = "send pipeline"
"""Kind of activations and their gradients between stages, at both ends."""


class Waitable(Protocol):
    """What an asynchronous collective returns."""

    def wait(self) -> Any:
        """Return when the result may be used by the compute stream."""


class Recorder:
    """Notes the steps of one rank. `keep_slices` keeps every operation's beginning and end, for a trace."""

    def __init__(self, clock: Clock | None = None, *, keep_slices: bool = False) -> None:
        self.clock = clock or HostClock()
        self.keep_slices = keep_slices
        self.steps: list[StepMeasurement] = []
        self.marks: list[Mark] = []
        self.recomputes = False
        self._spans: dict[Key, _Span] = {}

    def span(self, key: Key) -> "_Span":
        """A context that notes its beginning and its end."""
        found = self._spans.get(key)
        if found is None:
            found = self._spans[key] = _Span(self, key)
        return found

    def key(self, name: str, kind: str, phase: Phase) -> Key:
        """Name, kind and phase; what runs again for a backward pass is recomputation."""
        if self.recomputes and phase is Phase.FORWARD:
            phase = Phase.RECOMPUTE
        return Key(name, kind, phase)

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Note one step, and sum it up when it ends; a step that fails leaves nothing."""
        self.clock.start()
        self.marks = []
        begin = self.clock.now()
        yield
        end = self.clock.now()
        self.steps.append(measure(number, begin, end, self.marks, self.clock, self.keep_slices))
        self.marks = []


class _Span:
    """One name's context; without state, so it may be entered again inside itself."""

    __slots__ = ("_key", "_recorder")

    def __init__(self, recorder: Recorder, key: Key) -> None:
        self._recorder = recorder
        self._key = key

    def __enter__(self) -> None:
        recorder = self._recorder
        recorder.marks.append(Mark(recorder.clock.now(), self._key))

    def __exit__(self, *_: object) -> None:
        recorder = self._recorder
        recorder.marks.append(Mark(recorder.clock.now()))


class Issued:
    """A collective under way; `wait` once."""

    __slots__ = ("_recorder", "_work", "begin", "completion", "key", "message")

    def __init__(self, recorder: Recorder, key: Key, begin: Moment, message: Message | None) -> None:
        self._recorder = recorder
        self.key = key
        self._work: Any = None
        self.begin = begin
        self.message = message
        self.completion: Callable[[], float | None] = lambda: None
        """Seconds from the issue to completion, where the library tells; asked when the step is over."""

    def start(self, start: Callable[[], Any]) -> None:
        """Call `start` and watch what it returns."""
        self._work = start()
        self.completion = self._recorder.clock.watch(self._work, self.begin)

    def wait(self) -> Any:
        """Wait for the collective; the time counts as exposed."""
        recorder = self._recorder
        recorder.marks.append(Mark(recorder.clock.now(), self.key, self, waits=True))
        try:
            return self._work.wait() if self._work is not None else None
        finally:
            recorder.marks.append(Mark(recorder.clock.now()))
            self._work = None


_NOTHING: AbstractContextManager[None] = nullcontext()
_current: Recorder | None = None


def current() -> Recorder | None:
    """The recorder in force, if any."""
    return _current


@contextmanager
def recording(recorder: Recorder | None) -> Iterator[None]:
    """Put a recorder (or none) in force for this process."""
    global _current
    before, _current = _current, recorder
    try:
        yield
    finally:
        _current = before


def operation(name: str, kind: str, phase: Phase) -> AbstractContextManager[None]:
    """Context of one operation that the compute stream runs, or of a blocking collective.

    Args:
        name: full name in the Program, such as `layer.3.mlp.up.forward`.
        kind: as `simulator.operations.Operation.kind`, or a kind of this module for what is outside of passes.
        phase: part of the step; a forward pass inside `recomputing` becomes recomputation by itself.
    """
    recorder = _current
    return _NOTHING if recorder is None else recorder.span(recorder.key(name, kind, phase))


def issue(
    name: str, kind: str, phase: Phase, start: Callable[[], Any], message: Message | None = None
) -> Waitable:
    """Start something that runs beside compute, and return what waits for it.

    Args:
        name: full name in the Program.
        kind: as in `operation`.
        phase: part of the step.
        start: starts the work and returns it, such as `lambda: dist.all_reduce(x, async_op=True)`; what it returns
            has `wait`, or is None where nothing has to be waited for.
        message: the two ends, for sends and receives of a pipeline.
    """
    recorder = _current
    if recorder is None:
        work: Waitable | None = start()
        return _DONE if work is None else work
    key = recorder.key(name, kind, phase)
    begin = recorder.clock.now()
    issued = Issued(recorder, key, begin, message)
    recorder.marks.append(Mark(begin, key, issued))
    try:
        issued.start(start)
    finally:
        recorder.marks.append(Mark(recorder.clock.now()))
    return issued


class _Done:
    """Nothing to wait for."""

    def wait(self) -> None:
        """Return at once."""


_DONE = _Done()


@contextmanager
def recomputing() -> Iterator[None]:
    """Mark forward passes inside as recomputation."""
    recorder = _current
    if recorder is None:
        yield
        return
    before, recorder.recomputes = recorder.recomputes, True
    try:
        yield
    finally:
        recorder.recomputes = before


def step(number: int) -> AbstractContextManager[None]:
    """Context of one whole training step."""
    return _NOTHING if _current is None else _current.step(number)
