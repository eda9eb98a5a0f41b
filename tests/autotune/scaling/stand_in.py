"""A search of one plan, which workers find too."""

import os
import signal
import time

from towtank.autotune.search.records import Counts, RankedPlan, SearchResult
from towtank.autotune.task import TuningTask
from towtank.simulator.errors import PlanError
from towtank.simulator.plan import Plan


def one_plan(task: TuningTask, budget_s: float | None) -> SearchResult:
    """Data parallelism over all devices; on 6 devices no plan is legal, on 10 none fits, on 12 there is an error."""
    if task.devices == 12:
        raise PlanError(["no luck with 12"], "stand-in")
    plan = Plan(data=task.devices, zero_stage=1, global_batch=task.global_batch, recompute="full")
    ranked = (RankedPlan(1, plan, 1.0, 1.0, 1.0, proven=budget_s is None),)
    fits = task.devices not in (6, 10)
    return SearchResult(
        task=task,
        counts=Counts(legal=0 if task.devices == 6 else 7, do_not_fit=0, pruned=0, simulated=1),
        plans=ranked if fits else (),
        stopped=None if budget_s is None else "budget",
        gap=0.0 if budget_s is None else 0.25,
        memory_limit_bytes=80 * 2**30,
        closest=None if fits else plan,
        closest_peak_bytes=None if fits else 83 * 2**30,
        elapsed_s=0.0,
    )


def interrupted_at_4(task: TuningTask, budget_s: float | None) -> SearchResult:
    """The user presses Ctrl-C while the second point is searched."""
    if task.devices == 4:
        raise KeyboardInterrupt
    return one_plan(task, budget_s)


def killed_at_8(task: TuningTask, budget_s: float | None) -> SearchResult:
    """The operating system ends the process that searches the point of 8 devices."""
    if task.devices == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return one_plan(task, budget_s)


def endless_at_8(task: TuningTask, budget_s: float | None) -> SearchResult:
    """The search of the point of 8 devices goes on for ever."""
    while task.devices == 8:
        time.sleep(60)
    return one_plan(task, budget_s)
