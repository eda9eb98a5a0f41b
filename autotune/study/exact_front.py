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
from towtank.simulator.plan import Plan


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
    devices: tuple[int, ...]
    """Numbers of devices that the legal plans occupy."""
    memory_margin: float = 0.0
    """Share of their predicted peak that the plans leave free."""

    @property
    def exact(self) -> bool:
        """Whether no legal plan that fits is better in any measure than all of these."""
        return self.counts.open == 0


Report = Callable[[int, int], None]
"""Called with the numbers of plans looked at and of all that fit."""
Going = Callable[[int], bool]
"""Asked with the number of plans simulated so far whether to go on."""

_BLOCK = 8192
"""Plans that are looked at in one go."""


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
    going: Going | None = None,
    report: Report | None = None,
) -> Front:
    """The Pareto front of all legal plans that fit.

    Args:
        task: what is searched.
        measures: what is measured.
        devices: numbers of devices instead of the task's.
        prices: what the user knows and the machine's profile does not.
        going: where it says no, the front is that of the plans simulated, and not exact.
        report: is told how far it is.

    Raises:
        TuningError: no plan is legal; UnknownFigure: the machine's profile lacks a figure.
    """
    the_prices = prices or Prices()
    numbers = tuple(devices) or (task.devices,)
    tasks = [replace(task, devices=number) for number in numbers]
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
    plans, simulated, left = exact_front(optimistic, measures, simulate, going=going, report=report)
    legal = sum(part.legal for part in parts)
    counts = FrontCounts(
        legal, legal - len(optimistic), len(optimistic) - simulated - left, simulated, open=left
    )
    return Front(tuple(measures), counts, tuple(plans), numbers, task.memory_margin)


def _part(task: TuningTask, measures: Sequence[Measure], prices: Prices) -> _Part:
    from towtank.autotune.judge.bound import step_bound_s
    from towtank.autotune.judge.memory import peak_memory_bytes
    from towtank.autotune.space.enumerate import legal_plans

    table = legal_plans(task)
    memory = peak_memory_bytes(task, table)
    fits = np.flatnonzero(memory <= task.memory_limit_bytes())
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
    going: Going | None = None,
    report: Report | None = None,
) -> tuple[list[FrontPlan], int, int]:
    """The Pareto front, how many plans were simulated, and how many are left that could be on it.

    Plans are simulated by their optimistic figures [plans, measures], best first measure first. One is left out only
    where a plan simulated before is no worse in any measure than its optimistic figures, and so than its true ones:
    what is left out adds nothing to the front. Of plans with the same figures one is in it. Ctrl-C ends the
    simulations as `going` does.
    """
    costs = costs_of(optimistic, measures)
    order = np.lexsort(costs.T[::-1])
    done = _Done(measures)
    simulated = 0
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        for place in np.flatnonzero(~matched(costs[block], done.costs)).tolist():
            row = int(block[place])
            if matched(costs[row : row + 1], done.costs)[0]:
                continue
            if (going is not None and not going(simulated)) or not done.add(simulate, row):
                left = ~matched(costs[order[start + place :]], done.costs)
                return done.front(), simulated, int(left.sum())
            simulated += 1
            if report is not None:
                report(start + place, len(order))
    return done.front(), simulated, 0


class _Done:
    """Simulated plans that no other is at least as good as."""

    def __init__(self, measures: Sequence[Measure]) -> None:
        self._measures = measures
        self._plans: list[FrontPlan] = []
        self.costs = np.empty((0, len(measures)))

    def add(self, simulate: Callable[[int], FrontPlan], row: int) -> bool:
        """Simulate a plan and take it in; False if Ctrl-C came in between."""
        try:
            plan = simulate(row)
        except KeyboardInterrupt:
            return False
        cost = costs_of([plan.values], self._measures)
        if not matched(cost, self.costs)[0]:
            stay = np.logical_not((cost <= self.costs).all(axis=1))
            self._plans = [self._plans[index] for index in np.flatnonzero(stay)] + [plan]
            self.costs = np.vstack([self.costs[stay], cost])
        return True

    def front(self) -> list[FrontPlan]:
        """The plans in the order of the first measure."""
        return [self._plans[int(index)] for index in front(self.costs)]


def matched(costs: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """For each of `costs` [rows, measures] whether one of `others` is no worse in any measure; shape [rows]."""
    found: NDArray[np.bool_] = np.zeros(len(costs), np.bool_)
    for other in others:
        found |= (other <= costs).all(axis=1)
    return found
