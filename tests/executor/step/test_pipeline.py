"""Pipeline passes: the simulator's order, the right message at the right pass, and no lock-up."""

import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest

from towtank.executor.step.pipeline import Arrival, Pass, Stage, run_passes
from towtank.simulator.schedules import Phase, schedule

PIPELINES = [
    ("gpipe", 1, 1, 3),
    ("1f1b", 1, 1, 4),
    ("gpipe", 3, 1, 4),
    ("1f1b", 2, 1, 1),
    ("1f1b", 4, 1, 6),
    ("1f1b", 4, 1, 2),
    ("interleaved", 2, 2, 4),
    ("interleaved", 2, 3, 2),
    ("interleaved", 3, 2, 6),
]
LONGEST_S = 60.0
"""For a message; only a lock-up takes so long."""


class Post:
    """One message of a rendezvous: it is there only when somebody has asked for it."""

    def __init__(self) -> None:
        self.tensor: Any = None


class Meeting:
    """Messages between threads as NCCL has them: per pair of stages and direction in order, and a send is over only
    once its receive is posted."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.channels: dict[tuple[int, int, Phase], tuple[queue.Queue[Post], queue.Queue[Post]]] = {}

    def channel(self, source: int, target: int, phase: Phase) -> tuple[queue.Queue[Post], queue.Queue[Post]]:
        with self.lock:
            return self.channels.setdefault((source, target, phase), (queue.Queue(), queue.Queue()))


class Wait:
    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act

    def wait(self) -> Any:
        return self.act()


class Line:
    """The transport of one stage."""

    def __init__(self, stage: Stage, meeting: Meeting) -> None:
        self.stage, self.meeting = stage, meeting
        self.received: list[Pass] = []

    def send(self, made_by: Pass, tensor: Any) -> Wait:
        step = 1 if made_by.phase is Phase.FORWARD else -1
        target = (self.stage.index + step) % self.stage.num_stages
        posted, arrived = self.meeting.channel(self.stage.index, target, made_by.phase)
        taken = Post()
        taken.tensor = tensor
        arrived.put(taken)

        def finish() -> None:
            posted.get(timeout=LONGEST_S)  # the receiver must have asked

        return Wait(finish)

    def receive(self, needed_by: Pass) -> Arrival:
        source, _ = self.stage.sender(needed_by)
        posted, arrived = self.meeting.channel(source, self.stage.index, needed_by.phase)
        posted.put(Post())
        self.received.append(needed_by)
        return Wait(lambda: arrived.get(timeout=LONGEST_S).tensor)


class Affine:
    """Chunk v of the model multiplies by v + 2; the loss of micro-batch m weighs m + 1. Gradients by hand."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.kept: dict[tuple[int, int], float] = {}
        self.gradient = [0.0] * stage.num_chunks
        self.done: list[Pass] = []
        self.loss = 0.0

    def factor(self, chunk: int) -> float:
        return chunk * self.stage.num_stages + self.stage.index + 2.0

    def forward(self, one: Pass, hidden: float | None, *, last: bool) -> float:
        given = one.micro_batch + 1.0 if hidden is None else hidden
        self.kept[one.chunk, one.micro_batch] = given
        self.done.append(one)
        made = given * self.factor(one.chunk)
        if last:
            self.loss += (one.micro_batch + 1.0) * made
        return made

    def backward(self, one: Pass, gradient: float | None) -> float:
        after = one.micro_batch + 1.0 if gradient is None else gradient
        self.gradient[one.chunk] += after * self.kept.pop((one.chunk, one.micro_batch))
        self.done.append(one)
        return after * self.factor(one.chunk)


def run(pipeline: tuple[str, int, int, int], *, overlap: bool) -> list[Affine]:
    kind, num_stages, chunks, micro_batches = pipeline
    meeting = Meeting()
    stages = [Stage(index, num_stages, chunks, micro_batches, kind) for index in range(num_stages)]
    computes = [Affine(stage) for stage in stages]
    errors: list[BaseException] = []

    def work(stage: Stage, compute: Affine) -> None:
        try:
            run_passes(stage, stage.passes(), compute, Line(stage, meeting), overlap_sends=overlap)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=each) for each in zip(stages, computes, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=2 * LONGEST_S)
    if errors or any(thread.is_alive() for thread in threads):
        raise AssertionError(f"locked up: {errors}")
    return computes


@pytest.mark.parametrize("overlap", [True, False], ids=["overlapped", "blocking"])
@pytest.mark.parametrize("pipeline", PIPELINES, ids=str)
def test_gradients_and_order(pipeline: tuple[str, int, int, int], overlap: bool) -> None:
    kind, num_stages, chunks, micro_batches = pipeline
    computes = run(pipeline, overlap=overlap)
    product = 1.0
    for virtual in range(num_stages * chunks):
        product *= virtual + 2.0
    squares = sum((m + 1.0) ** 2 for m in range(micro_batches))
    assert computes[-1].loss == pytest.approx(product * squares, rel=1e-12)
    slots = schedule(kind, num_stages, chunks, micro_batches)
    for index, compute in enumerate(computes):
        assert not compute.kept
        for chunk in range(chunks):
            by_hand = product * squares / compute.factor(chunk)
            assert compute.gradient[chunk] == pytest.approx(by_hand, rel=1e-12)
        order = [(int(one.phase), one.chunk, one.micro_batch) for one in compute.done]
        rows = zip(slots.phase[index], slots.chunk[index], slots.micro_batch[index], strict=True)
        assert order == [tuple(int(value) for value in row) for row in rows]


def test_sender_of_what_a_pass_needs() -> None:
    first, last = Stage(0, 3, 2, 3, "interleaved"), Stage(2, 3, 2, 3, "interleaved")
    assert first.sender(Pass(Phase.FORWARD, 1, 2)) == (2, Pass(Phase.FORWARD, 0, 2))
    assert last.sender(Pass(Phase.FORWARD, 1, 2)) == (1, Pass(Phase.FORWARD, 1, 2))
    assert last.sender(Pass(Phase.BACKWARD, 0, 1)) == (0, Pass(Phase.BACKWARD, 1, 1))
    assert first.begins(0) and not first.begins(1) and last.ends(1) and not last.ends(0)


def test_one_message_ahead() -> None:
    """A stage asks for the message of its next forward pass before the pass before it begins."""
    stage = Stage(1, 2, 1, 3, "1f1b")
    asked: list[Pass] = []
    seen: list[int] = []

    class Watch:
        def send(self, made_by: Pass, tensor: Any) -> Wait:
            return Wait(lambda: None)

        def receive(self, needed_by: Pass) -> Arrival:
            asked.append(needed_by)
            return Wait(lambda: 1.0)

    class Count(Affine):
        def forward(self, one: Pass, hidden: float | None, *, last: bool) -> float:
            seen.append(len(asked))
            return super().forward(one, hidden, last=last)

    run_passes(stage, stage.passes(), Count(stage), Watch())
    assert seen == [2, 3, 3]


@pytest.mark.parametrize(("overlap", "most"), [(True, 2), (False, 0)])
def test_few_messages_are_held(overlap: bool, most: int) -> None:
    """A stage that runs ahead waits for what it has sent: here the first of five, with eight micro-batches."""
    stage = Stage(0, 5, 1, 8, "gpipe")
    sent: list[str] = []
    held: list[int] = []

    class Watch:
        def send(self, made_by: Pass, tensor: Any) -> Wait:
            sent.append("sent")
            return Wait(lambda: sent.remove("sent"))

        def receive(self, needed_by: Pass) -> Arrival:
            return Wait(lambda: 1.0)

    class Count(Affine):
        def forward(self, one: Pass, hidden: float | None, *, last: bool) -> float:
            held.append(len(sent))
            return super().forward(one, hidden, last=last)

    run_passes(stage, stage.passes(), Count(stage), Watch(), overlap_sends=overlap)
    assert max(held) == most and len(held) == 8
    assert not sent
