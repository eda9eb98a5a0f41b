"""Who simulates: this process, or several of them that got the task once."""

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.search.simulate import StepClock
from towtank.autotune.space.table import PlanTable
from towtank.autotune.task import TuningTask
from towtank.simulator.plan import Plan
from towtank.simulator.predict import EngineName, predict

Places = NDArray[np.intp]
Done = tuple[Places, list[float]]
"""Places in a table, and the step times in seconds of the plans there."""

_PIECES_OF_A_WORKER = 4
"""Pieces of a round for each worker: they even out what plans of different cost take."""
_LARGEST_PIECE = 64
"""Plans that a worker finishes before it hears of a stop."""
_LOOK_S = 0.2
"""Seconds between two looks at the clock while workers are busy."""


class Alone:
    """All in this process."""

    def __init__(self, task: TuningTask) -> None:
        self._clock = StepClock(task)

    def times(self, table: PlanTable, places: Places, going: Callable[[], bool]) -> Iterator[Done]:
        """One plan after the other."""
        for place in places:
            if not going():
                return
            yield np.array([place]), [self._clock.seconds(table.plan(int(place)))]

    def references(self, plans: Sequence[Plan], engine: EngineName) -> list[float]:
        """One plan after the other."""
        return [_reference(self._clock.task, plan, engine) for plan in plans]


class Workers:
    """Processes that each have a clock of their own."""

    def __init__(self, task: TuningTask, number: int) -> None:
        self._number = number
        # spawned, not forked: a caller may have threads
        self._pool = ProcessPoolExecutor(
            number, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(task,)
        )
        for _ in range(number):
            self._pool.submit(_wake)

    def times(self, table: PlanTable, places: Places, going: Callable[[], bool]) -> Iterator[Done]:
        """Pieces as they are done; raises BrokenProcessPool where a worker has died."""
        size = min(_LARGEST_PIECE, -(-len(places) // (self._number * _PIECES_OF_A_WORKER)))
        pieces = [places[first : first + size] for first in range(0, len(places), size)]
        waiting = {self._pool.submit(_times, table.take(piece)): piece for piece in pieces}
        try:
            while waiting:
                done, _ = wait(waiting, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
                for piece in done:
                    yield waiting.pop(piece), piece.result()
                if not going():
                    _cancel(waiting)
                    return
        except KeyboardInterrupt:
            _cancel(waiting)
            raise

    def bounds(self, table: PlanTable, limit_s: float) -> NDArray[np.float64]:
        """A part of the table for each worker; plans that are alike stand beside each other."""
        parts = np.array_split(np.arange(table.num_rows), self._number)
        waiting = [self._pool.submit(_worker_bounds, table.take(part), limit_s) for part in parts]
        return np.concatenate([each.result() for each in waiting])

    def references(self, plans: Sequence[Plan], engine: EngineName) -> list[float]:
        """One plan for each worker at a time."""
        return [each.result() for each in [self._pool.submit(_worker_reference, p, engine) for p in plans]]

    def close(self) -> None:
        """Stop the processes; what they are busy with is lost."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _cancel(waiting: dict[Future[list[float]], Places]) -> None:
    for each in waiting:
        each.cancel()


_worker_clock: StepClock | None = None


def _start_worker(task: TuningTask) -> None:
    """The task comes once; an interrupt of the user is for the process that started us."""
    global _worker_clock
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker_clock = StepClock(task)


def _wake() -> None:
    """Let a process start and load what it will need."""
    import towtank.autotune.search.kernels.pipeline  # noqa: F401


def _times(table: PlanTable) -> list[float]:
    assert _worker_clock is not None
    return [_worker_clock.seconds(table.plan(row)) for row in range(table.num_rows)]


def _worker_bounds(table: PlanTable, limit_s: float) -> NDArray[np.float64]:
    assert _worker_clock is not None
    return _bounds(_worker_clock.task, table, limit_s)


def _bounds(task: TuningTask, table: PlanTable, limit_s: float) -> NDArray[np.float64]:
    """Tight bounds; where plans have experts, of those only whose work alone is not above a limit."""
    from towtank.autotune.judge.bound import step_bound_s, work_bound_s

    if task.model.experts is None or limit_s == np.inf:
        return step_bound_s(task, table)
    found = work_bound_s(task, table)
    left = np.flatnonzero(found <= limit_s)
    found[left] = np.maximum(found[left], step_bound_s(task, table.take(left)))
    return found


def _worker_reference(plan: Plan, engine: EngineName) -> float:
    assert _worker_clock is not None
    return _reference(_worker_clock.task, plan, engine)


def _reference(task: TuningTask, plan: Plan, engine: EngineName) -> float:
    found = predict(
        task.model, task.machine, plan, stack=task.stack, engine=engine, profile_dirs=task.profile_dirs
    )
    return found.step_time_s


class Crew:
    """Begins alone, calls workers once there is enough to do, and goes on alone where they cannot be had."""

    def __init__(self, task: TuningTask, workers: int) -> None:
        self._task = task
        self._workers = workers
        self._alone: Alone | None = None
        self._pool: Workers | None = None

    def call(self) -> None:
        """Start the workers, who get ready while this process does something else."""
        if self._pool is None and self._workers > 1:
            try:
                self._pool = Workers(self._task, self._workers)
            except (OSError, NotImplementedError):  # no further processes, or no semaphores to talk to them
                self._workers = 1

    def times(self, table: PlanTable, places: Places, going: Callable[[], bool]) -> Iterator[Done]:
        """Step times of the plans at `places`, in pieces; ends early once `going()` is false."""
        if not len(places):
            return
        left = set(places.tolist())
        if self._pool is not None:
            try:
                for done, seconds in self._pool.times(table, places, going):
                    left.difference_update(done.tolist())
                    yield done, seconds
                return
            except BrokenProcessPool:
                self._workers, self._pool = 1, None
        yield from self._myself().times(table, np.array(sorted(left), np.intp), going)

    def bounds(self, table: PlanTable, limit_s: float = np.inf) -> NDArray[np.float64]:
        """Lower bounds of step times in seconds, shape [rows]; not as tight as can be once above a limit."""
        if self._pool is not None:
            try:
                return self._pool.bounds(table, limit_s)
            except BrokenProcessPool:
                self._workers, self._pool = 1, None
        return _bounds(self._task, table, limit_s)

    def references(self, plans: Sequence[Plan], engine: EngineName) -> list[float]:
        """Step times in seconds by another engine."""
        if self._pool is not None:
            try:
                return self._pool.references(plans, engine)
            except BrokenProcessPool:
                self._workers, self._pool = 1, None
        return self._myself().references(plans, engine)

    def close(self) -> None:
        """Let go of processes."""
        if self._pool is not None:
            self._pool.close()

    def _myself(self) -> Alone:
        if self._alone is None:
            self._alone = Alone(self._task)
        return self._alone
