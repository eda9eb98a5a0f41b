"""The exact Pareto front of an enumerated space: every plan is simulated that could be on it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.space.table import PlanTable
from towtank.autotune.study.measures import Prices, need_busy_share, optimistic_values, values_of
from towtank.autotune.study.pareto import costs_of, front
from towtank.autotune.study.plan_clock import PlanClock
from towtank.autotune.study.records import Measure
from towtank.autotune.task import TuningTask
from towtank.hardware_profiles.records import known
from towtank.simulator.plan import Plan

MOST_SIMULATED = 20_000
"""Plans that are simulated before the front is given up as too long to be exact."""


@dataclass(frozen=True, slots=True)
class FrontCounts:
    """What became of the legal plans: `legal` is the sum of the others."""

    legal: int
    do_not_fit: int
    pruned: int
    """Plans that are better in no measure than a simulated plan, even at their bounds."""
    simulated: int
    open: int = 0
    """Plans that could be on the front and were not simulated."""


@dataclass(frozen=True, slots=True)
class FrontPlan:
    """One plan of a Pareto front with a figure for each measure."""

    plan: Plan
    values: tuple[float, ...]
    step_time_s: float
    peak_memory_bytes: float


@dataclass(frozen=True, slots=True)
class Front:
    """A Pareto front, by ascending first measure where less is better, descending otherwise."""

    measures: tuple[Measure, ...]
    counts: FrontCounts
    plans: tuple[FrontPlan, ...]

    @property
    def exact(self) -> bool:
        """Whether no legal plan that fits is better in any measure than all of these."""
        return self.counts.open == 0


Report = Callable[[int, int], None]
"""Called with the numbers of plans looked at and of all that fit."""


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Plans of one number of devices that fit, with figures that they cannot beat [plans, measures]."""

    clock: PlanClock
    table: PlanTable
    optimistic: NDArray[np.float64]
    legal: int


def space_front(
    task: TuningTask,
    measures: Sequence[Measure],
    *,
    devices: Sequence[int] = (),
    prices: Prices | None = None,
    most: int = MOST_SIMULATED,
    report: Report | None = None,
) -> Front:
    """The Pareto front of all legal plans that fit.

    Args:
        task: what is searched.
        measures: what is measured.
        devices: numbers of devices instead of the task's.
        prices: what the user knows and the machine's profile does not.
        most: plans to simulate before giving up; the front is then that of those simulated, and not exact.
        report: is told how far it is.

    Raises:
        TuningError: no plan is legal; UnknownFigure: the machine's profile lacks a figure.
    """
    the_prices = prices or Prices()
    tasks = [replace(task, devices=number) for number in devices or (task.devices,)]
    parts = [_part(each, measures, the_prices) for each in tasks]
    share = need_busy_share(measures)

    def simulate(place: int) -> FrontPlan:
        part = 0
        while place >= parts[part].table.num_rows:
            place -= parts[part].table.num_rows
            part += 1
        plan = parts[part].table.plan(place)
        found = parts[part].clock.simulate(plan, share)
        values = values_of(measures, found, task.machine, the_prices)
        return FrontPlan(plan, values, found.step_time_s, found.peak_memory_bytes)

    optimistic = np.concatenate([part.optimistic for part in parts])
    plans, simulated, left = exact_front(optimistic, measures, simulate, most=most, report=report)
    legal = sum(part.legal for part in parts)
    counts = FrontCounts(
        legal, legal - len(optimistic), len(optimistic) - simulated - left, simulated, open=left
    )
    return Front(tuple(measures), counts, tuple(plans))


def _part(task: TuningTask, measures: Sequence[Measure], prices: Prices) -> _Part:
    from towtank.autotune.judge.bound import step_bound_s
    from towtank.autotune.judge.memory import peak_memory_bytes
    from towtank.autotune.space.enumerate import legal_plans

    table = legal_plans(task)
    device = task.machine.device
    capacity = known(
        device, "memory_capacity", device.memory_capacity_bytes, needed_for="the check of memory"
    )
    memory = peak_memory_bytes(task, table)
    fits = np.flatnonzero(memory <= capacity)
    fitting = table.take(fits)
    optimistic = optimistic_values(
        measures,
        task.machine,
        prices,
        devices=task.devices,
        tokens=task.global_batch * (task.sequence or task.model.sequence),
        bound_s=step_bound_s(task, fitting) if len(fits) else np.empty(0),
        memory_bytes=memory[fits],
    )
    return _Part(PlanClock(task), fitting, optimistic, table.num_rows)


def exact_front(
    optimistic: NDArray[np.float64],
    measures: Sequence[Measure],
    simulate: Callable[[int], FrontPlan],
    *,
    most: int = MOST_SIMULATED,
    report: Report | None = None,
) -> tuple[list[FrontPlan], int, int]:
    """The Pareto front, how many plans were simulated, and how many are left that could be on it.

    Plans are simulated by their optimistic figures [plans, measures], best first measure first. One is left out only
    where a plan simulated before is no worse in any measure than its optimistic figures, and so than its true ones:
    what is left out adds nothing to the front. Of plans with the same figures one is in it.
    """
    costs = costs_of(optimistic, measures)
    order = np.lexsort(costs.T[::-1])
    found: list[FrontPlan] = []
    kept = np.empty((0, len(measures)))
    simulated = left = 0
    for place, row in enumerate(order):
        if matched(costs[row], kept):
            continue
        if simulated == most:
            left += 1
            continue
        candidate = simulate(int(row))
        simulated += 1
        if report is not None:
            report(place, len(order))
        cost = costs_of([candidate.values], measures)
        if matched(cost[0], kept):
            continue
        stay = np.logical_not((cost <= kept).all(axis=1)).tolist()
        found = [plan for plan, stays in zip(found, stay, strict=True) if stays] + [candidate]
        kept = np.vstack([kept[stay], cost])
    return [found[int(index)] for index in front(kept)], simulated, left


def matched(costs: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    """Whether one of `others` [rows, measures] is no worse than `costs` in any measure."""
    return bool((others <= costs).all(axis=1).any())
