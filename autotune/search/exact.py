"""Exact search: branch and bound over the whole space, with a proof for every plan of the answer.

Memory of all legal plans is judged at once (`judging`); those that fit get lower bounds of their step times
(`narrowing`). Plans are simulated in the order of their bounds until the next bound is above the step time of the
last plan of the answer: whatever is left is slower. A search with a budget simulates a few plans before all that
(`probing`).
Plans go in rounds whose size depends on nothing but what was done so far. So the answer and its counts are the same
with any number of processes, unless a budget or the user stops the search.
"""

import os
from dataclasses import replace
from typing import Literal

import numpy as np

from towtank.autotune.search.budget import Budget
from towtank.autotune.search.judging import Judged, judge
from towtank.autotune.search.pool import Crew
from towtank.autotune.search.queue import FIRST_ROUND
from towtank.autotune.search.records import Counts, Progress, RankedPlan, Report, SearchResult
from towtank.autotune.task import TuningTask
from towtank.simulator.predict import EngineName

_LONG_QUEUE = 600
"""Plans left to simulate that are worth the start of workers."""


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
        judged = judge(task, top, crew, budget, tell)
        stopped = _simulate(judged, crew, budget, tell)
        result = _result(task, judged, stopped, budget)
        if finalists and result.plans and stopped != "interrupt" and budget.left():
            simulated = result.counts.simulated
            tell(Progress("finalists", simulated, simulated, result.plans[0].step_time_s))
            result = _with_references(result, crew, finalists, finalists_engine)
        return replace(result, elapsed_s=budget.elapsed_s)
    finally:
        crew.close()


def _simulate(
    judged: Judged, crew: Crew, budget: Budget, tell: Report
) -> Literal["budget", "interrupt"] | None:
    """Put plans on the clock until the bounds say that the rest is slower; what stopped it before, if anything."""
    queue = judged.queue
    if judged.interrupted or queue is None:
        return "interrupt" if judged.interrupted else None
    done = queue.num_simulated()

    def going() -> bool:
        return done == 0 or budget.left()

    try:
        while len(places := queue.round()):
            if queue.next > FIRST_ROUND and queue.end - queue.next > _LONG_QUEUE:
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
    return "budget" if queue.num_open() or judged.num_unknown or not judged.listed else None


def _result(
    task: TuningTask, judged: Judged, stopped: Literal["budget", "interrupt"] | None, budget: Budget
) -> SearchResult:
    queue = judged.queue
    if queue is None:
        return _nothing_fits(task, judged, budget)
    smallest = min(queue.smallest_open_s(), judged.rest_s)
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
            do_not_fit=judged.do_not_fit,
            pruned=judged.num_fitting - simulated - num_open,
            simulated=simulated,
            open=num_open + judged.num_unknown,
        ),
        plans=plans,
        stopped=stopped,
        gap=max(0.0, plans[0].step_time_s / smallest - 1) if plans else np.inf,
        memory_limit_bytes=judged.limit_bytes,
        closest=None,
        closest_peak_bytes=None,
        elapsed_s=budget.elapsed_s,
        listed=judged.listed,
    )


def _nothing_fits(task: TuningTask, judged: Judged, budget: Budget) -> SearchResult:
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
