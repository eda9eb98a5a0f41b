"""What the recorder makes of moments, with a clock that the test turns itself."""

from typing import Any

import pytest

from towtank.executor.measured import recorder as recording
from towtank.executor.measured.clocks import HostClock
from towtank.executor.measured.recorder import Recorder
from towtank.executor.measured.spans import LAUNCH_S, Key, Message, StepMeasurement
from towtank.simulator.operations import Phase


class TurnedClock:
    """Seconds move only when the test says so."""

    def __init__(self) -> None:
        self.second = 0.0
        self.completions: dict[int, float] = {}

    def start(self) -> None:
        pass

    def now(self) -> float:
        return self.second

    def resolve(self, moments: list[Any]) -> list[float]:
        return [float(moment) for moment in moments]

    def watch(self, work: Any, begin: float) -> Any:
        return lambda: work.seconds

    def turn(self, seconds: float) -> None:
        self.second += seconds


class Work:
    """A collective whose wait takes a given time, and that completes so long after its issue."""

    def __init__(self, clock: TurnedClock, wait_s: float, seconds: float | None) -> None:
        self.clock, self.wait_s, self.seconds = clock, wait_s, seconds

    def wait(self) -> str:
        self.clock.turn(self.wait_s)
        return "result"


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def recorder(clock: TurnedClock) -> Recorder:
    return Recorder(clock, keep_slices=True)


def times(step: StepMeasurement) -> dict[tuple[str, str], tuple[float, float]]:
    return {(key.name, key.phase): (one.total, one.exposed) for key, one in step.operations.items()}


def test_an_operation_inside_another_one_is_counted_once(recorder: Recorder, clock: TurnedClock) -> None:
    with recording.recording(recorder), recording.step(7):
        clock.turn(1)  # under no name
        with recording.operation("a", "matmul", Phase.FORWARD):
            clock.turn(2)
            with recording.operation("a.all-reduce", "all-reduce tensor_x", Phase.FORWARD):
                clock.turn(4)
            clock.turn(8)
    (step,) = recorder.steps
    assert (step.number, step.seconds, step.named_s) == (7, 15, 14)
    assert times(step) == {("a", "forward"): (10, 10), ("a.all-reduce", "forward"): (4, 4)}


def test_the_way_to_an_operation_is_its_launch_unless_it_is_too_long(
    recorder: Recorder, clock: TurnedClock
) -> None:
    with recording.recording(recorder), recording.step(0):
        for way in (LAUNCH_S / 2, LAUNCH_S / 4, 3 * LAUNCH_S):
            clock.turn(way)
            with recording.operation("a", "matmul", Phase.FORWARD):
                clock.turn(1)
                clock.turn(way)
                with recording.operation("b", "matmul", Phase.FORWARD):  # inside: the way is that of `a`
                    clock.turn(2)
    (step,) = recorder.steps
    found = times(step)
    inside = (0.5 + 0.25 + 3) * LAUNCH_S
    assert found["a", "forward"] == pytest.approx((3 + 0.75 * LAUNCH_S + inside,) * 2, rel=1e-12)
    assert found["b", "forward"] == pytest.approx((6, 6), rel=1e-12)
    assert step.seconds - step.named_s == pytest.approx(3 * LAUNCH_S, rel=1e-6)
    assert step.slices[1].finish_s - step.slices[1].start_s == pytest.approx(3 + LAUNCH_S / 2, rel=1e-12)


def test_work_beside_compute_is_exposed_only_while_it_is_issued_or_waited_for(
    recorder: Recorder, clock: TurnedClock
) -> None:
    def start() -> Work:
        clock.turn(0.5)
        return Work(clock, wait_s=1.5, seconds=6.0)

    with recording.recording(recorder), recording.step(0):
        reduction = recording.issue("g", "all-reduce data", Phase.BACKWARD, start)
        with recording.operation("m", "matmul", Phase.BACKWARD):
            clock.turn(4)
        assert reduction.wait() == "result"
    (step,) = recorder.steps
    assert times(step) == {("g", "backward"): (6, 2), ("m", "backward"): (4, 4)}
    assert step.named_s == step.seconds == 6
    assert [(one.start_s, one.finish_s) for one in step.slices if one.hidden] == [(0, 6)]


def test_without_a_completion_the_calls_are_all_that_is_known(recorder: Recorder, clock: TurnedClock) -> None:
    message = Message(source=1, target=0, sends=False)
    with recording.recording(recorder), recording.step(0):
        receive = recording.issue("r", "send pipeline", Phase.FORWARD, lambda: Work(clock, 2, None), message)
        clock.turn(10)
        receive.wait()
    (step,) = recorder.steps
    assert times(step) == {("r", "forward"): (2, 2)}
    (wait,) = step.waits
    assert (wait.source, wait.target, wait.sends, wait.start_s, wait.finish_s) == (1, 0, False, 10, 12)


def test_a_sender_notes_when_it_issued(recorder: Recorder, clock: TurnedClock) -> None:
    clock.turn(3)
    with recording.recording(recorder), recording.step(0):
        clock.turn(2)
        send = recording.issue(
            "s", "send pipeline", Phase.FORWARD, lambda: Work(clock, 0, None), Message(0, 1, True)
        )
        send.wait()
    assert [(one.name, one.sends, one.start_s) for one in recorder.steps[0].waits] == [("s", True, 5)]


def test_work_of_the_step_before_is_waited_for_in_this_one(recorder: Recorder, clock: TurnedClock) -> None:
    with recording.recording(recorder):
        with recording.step(0):
            gather = recording.issue("p", "x", Phase.OPTIMIZER, lambda: Work(clock, 2, 9))
        with recording.step(1):
            gather.wait()
    assert times(recorder.steps[1]) == {("p", "optimizer"): (2, 2)}


def test_forward_passes_that_run_again_are_recomputation(recorder: Recorder, clock: TurnedClock) -> None:
    with recording.recording(recorder), recording.step(0):
        for again in (False, True):
            with recording.recomputing() if again else recording.operation("b", "m", Phase.BACKWARD):
                for phase in (Phase.FORWARD, Phase.BACKWARD):
                    with recording.operation("a", "matmul", phase):
                        clock.turn(1 + again)
        with recording.operation("a", "matmul", Phase.FORWARD):
            clock.turn(16)
    found = times(recorder.steps[0])
    assert found["a", "forward"] == (17, 17)
    assert found["a", "recompute"] == (2, 2)
    assert found["a", "backward"] == (3, 3)


def test_a_step_that_fails_leaves_nothing_and_the_next_one_is_whole(
    recorder: Recorder, clock: TurnedClock
) -> None:
    with recording.recording(recorder):
        with (
            pytest.raises(ZeroDivisionError),
            recording.step(0),
            recording.operation("a", "m", Phase.FORWARD),
        ):
            raise ZeroDivisionError
        with recording.step(1):
            clock.turn(1)
    assert [(one.number, one.seconds, one.operations) for one in recorder.steps] == [(1, 1, {})]


def test_without_a_recorder_work_is_returned_as_it_is(clock: TurnedClock) -> None:
    work = Work(clock, 0, 0)
    assert recording.current() is None
    assert recording.issue("a", "b", Phase.FORWARD, lambda: work) is work
    assert recording.issue("a", "b", Phase.FORWARD, lambda: None).wait() is None
    with recording.step(0), recording.recomputing(), recording.operation("a", "b", Phase.FORWARD):
        clock.turn(1)


def test_the_host_clock_tells_when_a_future_completes() -> None:
    class Future:
        def add_done_callback(self, done: Any) -> None:
            done(self)

    class Collective:
        def get_future(self) -> Future:
            return Future()

    class Send:
        def get_future(self) -> Future:
            raise RuntimeError("Work::getFuture not implemented.")

    clock = HostClock()
    begin = clock.now()
    told = clock.watch(Collective(), begin)()
    assert told is not None and 0 <= told < 1
    assert clock.watch(Send(), begin)() is None
    assert clock.resolve([2_000_000_000]) == [2.0]


def test_equal_names_share_a_key(recorder: Recorder) -> None:
    assert recorder.span(Key("a", "b", Phase.FORWARD)) is recorder.span(Key("a", "b", Phase.FORWARD))
