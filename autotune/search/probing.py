"""A first answer long before a large space is judged: the best of a few drawn plans, then the best on its grid.

Plans that lie apart share little, so that some hundred of them take as long to judge as thousands on one grid. So a
round draws a few from the whole space, and then judges all plans on the grids of the best ones that it has not looked
at yet.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.judge.coarse import coarse_bound_s
from towtank.autotune.judge.memory import peak_memory_bytes
from towtank.autotune.search.pool import Crew
from towtank.autotune.space.enumerate import GRID, on_grid_of, sampled
from towtank.autotune.space.table import PlanTable, united
from towtank.autotune.task import TuningTask
from towtank.simulator.plan import Plan

_DRAWN = 384
"""Plans that a round draws."""
_BOUNDED, _BOUNDED_ON_GRID = 48, 512
"""Those of least coarse bounds that get tight ones: plans drawn, plans on a grid."""
_TIMED, _TIMED_ON_GRID = 6, 8
"""Those of least tight bounds that are simulated."""
_GRIDS = 3
"""Grids of a round."""


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """Plans that were looked at."""

    table: PlanTable
    memory_bytes: NDArray[np.float64]
    seconds: NDArray[np.float64]
    """Step times; not a number where a plan was not simulated."""

    def timed(self) -> NDArray[np.intp]:
        """Rows that were simulated."""
        return np.flatnonzero(~np.isnan(self.seconds))


@dataclass(slots=True)
class Probes:
    """All looks at a space."""

    task: TuningTask
    crew: Crew
    looks: list[_Look] = field(default_factory=list)
    interrupted: bool = False
    """Whether the user stopped it."""
    _grids: set[tuple[int, ...]] = field(default_factory=set)

    def best_s(self) -> float | None:
        """Best step time so far."""
        return min((seconds for _, _, seconds in self.timed()), default=None)

    def timed(self) -> list[tuple[Plan, float, float]]:
        """Plans that were simulated, each once, with memory in bytes and step time, fastest first."""
        found = {
            look.table.plan(int(row)): (float(look.memory_bytes[row]), float(look.seconds[row]))
            for look in self.looks
            for row in look.timed()
        }
        return sorted(((plan, *figures) for plan, figures in found.items()), key=lambda one: one[2])

    def look_at(self, table: PlanTable, bounded: int, timed: int) -> None:
        """Judge all plans of a table, bound some of them tightly, simulate a few."""
        memory = peak_memory_bytes(self.task, table)
        fit = np.flatnonzero(memory <= self.task.memory_limit_bytes())
        seconds = np.full(table.num_rows, np.nan)
        if len(fit):
            coarse = coarse_bound_s(self.task, table.take(fit))
            few = fit[np.sort(np.argsort(coarse, kind="stable")[:bounded])]
            bound = self.crew.bounds(table.take(few))
            best = few[np.argsort(bound, kind="stable")[:timed]]
            for places, each in self.crew.times(table, best, lambda: True):
                seconds[places] = each
        self.looks.append(_Look(table, memory, seconds))

    def next_grid(self) -> PlanTable | None:
        """All plans on the grid of the fastest plan whose grid was not looked at."""
        for plan, _, _ in self.timed():
            grid = tuple(getattr(plan, name) for name in GRID)
            if grid not in self._grids:
                self._grids.add(grid)
                return on_grid_of(self.task, plan)
        return None

    def merged(self) -> tuple[PlanTable, NDArray[np.float64], NDArray[np.float64]]:
        """Every plan that was looked at once, with memory in bytes and step time."""
        table = united([each.table for each in self.looks])
        memory = np.concatenate([each.memory_bytes for each in self.looks])
        seconds = np.concatenate([each.seconds for each in self.looks])
        order = np.argsort(np.isnan(seconds), kind="stable")  # a look that has simulated a plan counts
        codes = np.stack([table.codes[name][order] for name in table.codes])
        first = np.sort(order[np.unique(codes, axis=1, return_index=True)[1]])
        return table.take(first), memory[first], seconds[first]


def probed(
    task: TuningTask,
    crew: Crew,
    rounds: int,
    going: Callable[[], bool],
    tell: Callable[[float | None], None],
) -> Probes:
    """Look at a few plans of a large space: one round, and more while `going()`.

    `tell` is told the best step time after each look. Ctrl-C ends it, if there are step times by then.

    Raises:
        UnknownFigure: the machine's profile lacks a figure that a plan needs.
    """
    probes = Probes(task, crew)
    try:
        for number in range(rounds):
            if number and not going():
                break
            _round(probes, number, going, tell)
    except KeyboardInterrupt:
        if probes.best_s() is None:
            raise
        probes.interrupted = True
    return probes


def _round(
    probes: Probes, number: int, going: Callable[[], bool], tell: Callable[[float | None], None]
) -> None:
    """Plans drawn from the whole space, then the grids of the best; in the first round one grid in any case."""
    drawn, _ = sampled(probes.task, _DRAWN, number)
    if drawn is not None:
        probes.look_at(drawn, _BOUNDED, _TIMED)
        tell(probes.best_s())
    for grid in range(_GRIDS):
        if (number or grid) and not going():
            return
        if (near := probes.next_grid()) is None:
            return
        probes.look_at(near, _BOUNDED_ON_GRID, _TIMED_ON_GRID)
        tell(probes.best_s())
