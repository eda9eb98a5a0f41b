"""Memory and bounds of all plans of a task; with a budget, of as many as it allows, after a look at a few of them."""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.search.budget import Budget
from towtank.autotune.search.narrowing import Known, narrowed
from towtank.autotune.search.pool import Crew
from towtank.autotune.search.queue import Queue
from towtank.autotune.search.records import Progress, Report
from towtank.autotune.space.table import PlanTable
from towtank.autotune.task import TuningTask

if TYPE_CHECKING:
    from towtank.autotune.search.probing import Probes

_SMALL = 20_000
"""Plans that are judged in about a second, so that a budget needs no probes."""
_BLOCK = 1 << 18
"""Plans whose memory is judged between two looks at the clock."""
_ROUNDS = 4
"""Rounds of probes at most: what they find comes early."""
_SHARE = 0.5
"""Share of a budget for the list of plans and the probes."""
_LIST_S = 2.0
"""Seconds that the list of plans may take whatever the budget: without it there are no counts."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """The space after memory and bounds."""

    table: PlanTable
    """All legal plans, or those that were looked at."""
    memory_bytes: NDArray[np.float64]
    """Not a number where it was not worked out."""
    limit_bytes: float
    queue: Queue | None
    """Plans that fit and that the bounds leave; None where no plan fits."""
    rest_s: float = np.inf
    """Lower bound of the step times of plans whose memory is not known, or that were not listed."""
    listed: bool = True
    """Whether the table holds all legal plans."""
    interrupted: bool = False
    """Whether the user stopped it."""

    @property
    def do_not_fit(self) -> int:
        """Plans that need too much memory."""
        return int(np.count_nonzero(self.memory_bytes > self.limit_bytes))

    @property
    def num_fitting(self) -> int:
        """Plans that fit."""
        return int(np.count_nonzero(self.memory_bytes <= self.limit_bytes))

    @property
    def num_unknown(self) -> int:
        """Plans whose memory is not known."""
        return int(np.count_nonzero(np.isnan(self.memory_bytes)))


def judge(task: TuningTask, top: int, crew: Crew, budget: Budget, tell: Report) -> Judged:
    """All legal plans, their memory, and the bounds of those that fit.

    With a budget, a few plans of a large space are simulated first; what it leaves no time for is counted, and
    bounded by a floor.
    """
    from towtank.autotune.space.enumerate import legal_plans, listed

    tell(Progress("plans", 0, 0, None))
    search = _Search(task, top, crew, budget, tell)
    if budget.seconds is None or _is_small(task):
        return search.all_of(legal_plans(task))
    table = listed(task, lambda: budget.within(_SHARE, _LIST_S))
    probes = search.probes()
    if probes.best_s() is None:  # few plans fit: the clock can wait
        return search.all_of(legal_plans(task) if table is None else table)
    return search.only(probes) if table is None else search.part_of(table, probes)


def _is_small(task: TuningTask) -> bool:
    from towtank.autotune.space.enumerate import sampled

    return sampled(task, _SMALL, 0)[1]


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    """What all steps of judging need."""

    task: TuningTask
    top: int
    crew: Crew
    budget: Budget
    tell: Report

    def probes(self) -> "Probes":
        """A few plans on the clock."""
        from towtank.autotune.search.probing import probed

        def tell(best_s: float | None) -> None:
            self.tell(Progress("probes", 0, 0, best_s))

        return probed(self.task, self.crew, _ROUNDS, lambda: self.budget.within(_SHARE), tell)

    def all_of(self, table: PlanTable) -> Judged:
        """The whole space: memory of all plans whatever it takes."""
        from towtank.autotune.judge.memory import peak_memory_bytes

        self.tell(Progress("memory", 0, table.num_rows, None))
        return self.bounded(table, peak_memory_bytes(self.task, table), {})

    def part_of(self, table: PlanTable, probes: "Probes") -> Judged:
        """As much of the space as the budget allows, and the probes."""
        from towtank.autotune.judge.memory import peak_memory_bytes

        memory = np.full(table.num_rows, np.nan)
        interrupted, block_s = probes.interrupted, 0.0
        try:
            for first in range(0, table.num_rows, _BLOCK):
                self.tell(Progress("memory", first, table.num_rows, probes.best_s()))
                if interrupted or not self.budget.left(block_s):
                    break
                part, began_s = slice(first, first + _BLOCK), self.budget.elapsed_s
                memory[part] = peak_memory_bytes(self.task, table.take(part))
                block_s = max(block_s, self.budget.elapsed_s - began_s)
        except KeyboardInterrupt:
            interrupted = True
        known = {}
        for plan, bytes_, seconds in probes.timed():
            row = table.row_of(plan)
            assert row is not None  # all legal plans are in the table
            memory[row], known[row] = bytes_, seconds
        return self.bounded(table, memory, known, interrupted=interrupted)

    def only(self, probes: "Probes") -> Judged:
        """What was looked at of a space that the budget left no time to list."""
        table, memory, seconds = probes.merged()
        known = {int(row): float(seconds[row]) for row in np.flatnonzero(~np.isnan(seconds))}
        return self.bounded(table, memory, known, listed=False, interrupted=probes.interrupted)

    def bounded(
        self,
        table: PlanTable,
        memory: NDArray[np.float64],
        seconds: dict[int, float],
        *,
        listed: bool = True,
        interrupted: bool = False,
    ) -> Judged:
        """The plans that fit with their bounds; `seconds`: step times that are known, by row."""
        from towtank.autotune.judge.coarse import compute_floor_s

        limit = self.task.memory_limit_bytes()
        fitting = np.flatnonzero(memory <= limit)
        if not len(fitting):
            return Judged(table, memory, limit, None)
        floor_s = cache(lambda: compute_floor_s(self.task)) if seconds else None
        rest_s = floor_s() if floor_s and (np.isnan(memory).any() or not listed) else np.inf
        fit = table.take(fitting)
        known = Known({int(np.searchsorted(fitting, row)): each for row, each in seconds.items()}, floor_s)

        def going(needed_s: float) -> bool:
            return not interrupted and self.budget.left(needed_s)

        left = narrowed(self.task, fit, self.top, self.crew, going, self.tell, known)
        queue = Queue(fit.take(left.rows), left.bound_s, memory[fitting[left.rows]], self.top)
        places = np.flatnonzero(np.isin(left.rows, [*left.seconds]))
        queue.note(places, [left.seconds[int(row)] for row in left.rows[places]])
        return Judged(table, memory, limit, queue, rest_s, listed, interrupted or left.interrupted)
