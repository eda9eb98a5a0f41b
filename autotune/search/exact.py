"""Exact search: branch and bound over the whole space, with a proof for every plan of the answer.

Memory of all legal plans is judged at once (`judge`); those that fit get lower bounds of their step times
(`narrowing`). Plans are simulated in the order of their bounds until the next bound is above the step time of the
last plan of the answer: whatever is left is slower.
Plans go in rounds whose size depends on nothing but what was done so far. So the answer and its counts are the same
with any number of processes, unless a budget or the user stops the search.
"""

import os
import time
from dataclasses import dataclass, field, replace
from heapq import heappush, heapreplace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.search.narrowing import narrowed
from towtank.autotune.search.pool import Crew
from towtank.autotune.search.records import Counts, Progress, RankedPlan, Report, SearchResult
from towtank.autotune.space.table import PlanTable
from towtank.autotune.task import TuningTask
from towtank.simulator.predict import EngineName

_FIRST_ROUND, _LARGEST_ROUND = 32, 2048
"""Plans of a round; in between, half of what was simulated so far."""
_LONG_QUEUE = 600
"""Plans left to simulate that are worth the start of workers."""


class Budget:
    """The time that a search may take from when this is made."""

    def __init__(self, seconds: float | None) -> None:
        self._began = time.monotonic()
        self._seconds = seconds

    @property
    def elapsed_s(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._began

    def left(self) -> bool:
        """Whether there is time left."""
        return self._seconds is None or self.elapsed_s < self._seconds


@dataclass(slots=True, eq=False)
class Queue:
    """Plans that fit in the order of their bounds, and what is known of their step times."""

    table: PlanTable
    bound_s: NDArray[np.float64]
    """In rising order."""
    memory_bytes: NDArray[np.float64]
    top: int
    step_time_s: NDArray[np.float64] = field(init=False)
    """Not a number where a plan was not simulated."""
    next: int = 0
    """First plan of the next round."""
    _best: list[float] = field(default_factory=list)
    """The best step times so far as a heap of their negatives."""

    def __post_init__(self) -> None:
        self.step_time_s = np.full(len(self.bound_s), np.nan)

    @property
    def limit_s(self) -> float:
        """Step time of the last plan of the answer so far: a plan whose bound is above it does not come in."""
        return -self._best[0] if len(self._best) == self.top else np.inf

    @property
    def best_s(self) -> float | None:
        """Best step time so far."""
        return -max(self._best) if self._best else None

    @property
    def end(self) -> int:
        """First plan whose bound is above the limit."""
        return int(np.searchsorted(self.bound_s, self.limit_s, side="right"))

    def round(self) -> NDArray[np.intp]:
        """Places of the plans to simulate next; none left: the search is done."""
        while self.next < self.end:
            size = min(_LARGEST_ROUND, max(_FIRST_ROUND, self.next // 2))
            first, self.next = self.next, min(self.next + size, self.end)
            unknown = np.flatnonzero(np.isnan(self.step_time_s[first : self.next]))
            if len(unknown):
                return unknown + first
        return np.empty(0, np.intp)

    def note(self, places: NDArray[np.intp], seconds: list[float]) -> None:
        """Take in step times."""
        self.step_time_s[places] = seconds
        for each in seconds:
            if len(self._best) < self.top:
                heappush(self._best, -each)
            elif each < self.limit_s:
                heapreplace(self._best, -each)

    def num_simulated(self) -> int:
        """Plans whose step time is known."""
        return int(np.count_nonzero(~np.isnan(self.step_time_s)))

    def num_open(self) -> int:
        """Plans that were not simulated although their bound is not above the limit."""
        return int(np.count_nonzero(np.isnan(self.step_time_s[: self.end])))

    def smallest_open_s(self) -> float:
        """Smallest bound of a plan that was not simulated; infinite if there is none."""
        unknown = np.flatnonzero(np.isnan(self.step_time_s))
        return float(self.bound_s[unknown[0]]) if len(unknown) else np.inf

    def winners(self) -> NDArray[np.intp]:
        """Places of the best plans; of equal ones that which needs less memory, then the one listed first."""
        found = np.flatnonzero(self.step_time_s <= self.limit_s)
        order = np.lexsort((found, self.memory_bytes[found], self.step_time_s[found]))
        return found[order[: self.top]]


def tune(
    task: TuningTask,
    *,
    top: int = 10,
    budget_s: float | None = None,
    workers: int | None = None,
    progress: Report | None = None,
    finalists: int = 0,
    finalists_engine: EngineName = "simpy",
) -> SearchResult:
    """The best plans of a task, proven under the compiled engine.

    Args:
        task: what is searched.
        top: plans in the answer.
        budget_s: seconds after which the search stops with what it has; the answer says how far it can be behind.
        workers: processes that simulate; None: one a core.
        progress: is told now and then how far the search is.
        finalists: how many of the best plans `finalists_engine` puts on the clock too.

    Ctrl-C after the first plans were simulated stops the search and keeps what is done.

    Raises:
        TuningError: the constraints make no sense; UnknownFigure: the machine's profile lacks a figure.
    """
    if top < 1 or finalists < 0:
        raise ValueError(f"top = {top} must be 1 or more and finalists = {finalists} 0 or more")
    budget, tell = Budget(budget_s), progress or (lambda progress: None)
    crew = Crew(task, workers or os.cpu_count() or 1)
    try:
        judged = _judge(task, top, crew, budget, tell)
        if judged.queue is None:
            return _nothing_fits(task, judged, budget)
        stopped = "interrupt" if judged.interrupted else _simulate(judged.queue, crew, budget, tell)
        result = _result(task, judged, judged.queue, stopped, budget)
        if finalists and stopped != "interrupt" and budget.left():
            tell(Progress("finalists", result.counts.simulated, result.counts.simulated, judged.queue.best_s))
            result = _with_references(result, crew, finalists, finalists_engine)
        return replace(result, elapsed_s=budget.elapsed_s)
    finally:
        crew.close()


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """The space after memory and bounds."""

    table: PlanTable
    memory_bytes: NDArray[np.float64]
    limit_bytes: float
    num_fitting: int
    queue: Queue | None
    """Plans that fit and that the bounds leave; None where no plan fits."""
    interrupted: bool = False
    """Whether the user stopped it."""


def _judge(task: TuningTask, top: int, crew: Crew, budget: Budget, tell: Report) -> _Judged:
    """All legal plans, their memory, and the bounds of those that fit."""
    from towtank.autotune.judge.memory import peak_memory_bytes
    from towtank.autotune.space.enumerate import legal_plans

    tell(Progress("plans", 0, 0, None))
    table = legal_plans(task)
    tell(Progress("memory and bounds", 0, table.num_rows, None))
    limit = task.memory_limit_bytes()
    memory = peak_memory_bytes(task, table)
    fitting = np.flatnonzero(memory <= limit)
    if not len(fitting):
        return _Judged(table, memory, limit, 0, None)
    fit = table.take(fitting)
    left = narrowed(task, fit, top, crew, budget.left, tell)
    queue = Queue(fit.take(left.rows), left.bound_s, memory[fitting[left.rows]], top)
    known_places = np.flatnonzero(np.isin(left.rows, [*left.seconds]))
    queue.note(known_places, [left.seconds[int(row)] for row in left.rows[known_places]])
    return _Judged(table, memory, limit, len(fitting), queue, left.interrupted)


def _simulate(
    queue: Queue, crew: Crew, budget: Budget, tell: Report
) -> Literal["budget", "interrupt"] | None:
    """Put plans on the clock until the bounds say that the rest is slower; what stopped it before, if anything."""
    done = queue.num_simulated()

    def going() -> bool:
        return done == 0 or budget.left()

    try:
        while len(places := queue.round()):
            if queue.next > _FIRST_ROUND and queue.end - queue.next > _LONG_QUEUE:
                crew.call()
            for some, seconds in crew.times(queue.table, places, going):
                queue.note(some, seconds)
                done += len(some)
                tell(Progress("simulation", done, queue.end, queue.best_s))
            if not budget.left():
                break
    except KeyboardInterrupt:
        if not done:
            raise
        return "interrupt"
    return "budget" if queue.num_open() else None


def _result(
    task: TuningTask,
    judged: _Judged,
    queue: Queue,
    stopped: Literal["budget", "interrupt"] | None,
    budget: Budget,
) -> SearchResult:
    smallest = queue.smallest_open_s()
    simulated, num_open = queue.num_simulated(), queue.num_open()
    plans = tuple(
        RankedPlan(
            rank=rank,
            plan=queue.table.plan(int(place)),
            step_time_s=float(queue.step_time_s[place]),
            peak_memory_bytes=float(queue.memory_bytes[place]),
            bound_s=float(queue.bound_s[place]),
            proven=bool(queue.step_time_s[place] <= smallest),
        )
        for rank, place in enumerate(queue.winners(), start=1)
    )
    return SearchResult(
        task=task,
        counts=Counts(
            legal=judged.table.num_rows,
            do_not_fit=judged.table.num_rows - judged.num_fitting,
            pruned=judged.num_fitting - simulated - num_open,
            simulated=simulated,
            open=num_open,
        ),
        plans=plans,
        stopped=stopped,
        gap=max(0.0, plans[0].step_time_s / smallest - 1) if plans else np.inf,
        memory_limit_bytes=judged.limit_bytes,
        closest=None,
        closest_peak_bytes=None,
        elapsed_s=budget.elapsed_s,
    )


def _nothing_fits(task: TuningTask, judged: _Judged, budget: Budget) -> SearchResult:
    """The answer where no plan fits, or there is none at all."""
    rows = judged.table.num_rows
    closest = int(np.argmin(judged.memory_bytes)) if rows else None
    return SearchResult(
        task=task,
        counts=Counts(legal=rows, do_not_fit=rows, pruned=0, simulated=0),
        plans=(),
        stopped=None,
        gap=np.inf,
        memory_limit_bytes=judged.limit_bytes,
        closest=None if closest is None else judged.table.plan(closest),
        closest_peak_bytes=None if closest is None else float(judged.memory_bytes[closest]),
        elapsed_s=budget.elapsed_s,
    )


def _with_references(result: SearchResult, crew: Crew, finalists: int, engine: EngineName) -> SearchResult:
    """The first plans with their step times by the reference engine."""
    first = result.plans[:finalists]
    try:
        seconds = crew.references([each.plan for each in first], engine)
    except KeyboardInterrupt:
        return replace(result, stopped="interrupt")
    found = tuple(replace(each, reference_s=time_s) for each, time_s in zip(first, seconds, strict=True))
    return replace(result, plans=found + result.plans[len(first) :])
