"""Which plans are left to simulate: coarse bounds of all, tight ones of those that a few simulated plans leave.

A tight bound of a plan costs about as much as to simulate it where plans share little, as with experts: there a bound
by the work of a plan alone comes before (`pool`). The coarse bounds cost next to nothing. So plans get their tight
bounds in the order of their coarse ones, in batches; the most promising of each batch go on the clock at once; and a
plan whose coarse bound is above the step time of the last plan of the answer so far needs no other bound. Batches
depend on nothing but the bounds and step times, unless a budget ends them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.search.pool import Crew
from towtank.autotune.search.records import Progress, Report
from towtank.autotune.space.table import PlanTable
from towtank.autotune.task import TuningTask

_FIRST_BATCH, _LARGEST_BATCH, _LARGEST_OF_EXPERTS = 2048, 32768, 131072
"""Plans that get tight bounds at once; each batch is twice the one before, unless a budget leaves no time for it.
Plans with experts share more in larger batches."""
_COARSE_BLOCK, _LARGE_COARSE_BLOCK = 1 << 18, 1 << 19
"""Plans that get coarse bounds between two looks at the clock, and where there is none."""
_PROBES = 16
"""Plans of a batch that are simulated at once."""
_LONG_WAY = 3 * 16384
"""Plans left to bound that are worth the start of workers."""


Going = Callable[[float], bool]
"""Whether there is time left for something that takes so many seconds."""


@dataclass(frozen=True, slots=True, eq=False)
class Narrowed:
    """Plans that the bounds leave, in the order of their bounds."""

    rows: NDArray[np.intp]
    """In the table."""
    bound_s: NDArray[np.float64]
    """Of these rows."""
    seconds: dict[int, float]
    """Step times that are known, by row of the table."""
    interrupted: bool
    """Whether the user stopped it."""


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is known before."""

    seconds: dict[int, float]
    """Step times by row of the table."""
    floor_s: Callable[[], float] | None
    """A bound of all plans, for those that a budget leaves without one of their own; None: every plan gets one."""


@dataclass(slots=True, eq=False)
class _Narrowing:
    """Bounds and step times as far as they are known."""

    crew: Crew
    table: PlanTable
    top: int
    bound_s: NDArray[np.float64]
    order: NDArray[np.intp] = field(init=False)
    """Rows in the order of the coarse bounds."""
    coarse_s: NDArray[np.float64] = field(init=False)
    """Coarse bounds in this order."""
    next: int = 0
    """First place in the order whose tight bound is not known."""
    size: int = _FIRST_BATCH
    row_s: float = 0.0
    """Seconds that a plan of the last batch took."""
    seconds: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.order = np.argsort(self.bound_s, kind="stable")
        self.coarse_s = self.bound_s[self.order]
        self.size = _FIRST_BATCH

    @property
    def limit_s(self) -> float:
        """Step time of the last plan of the answer so far."""
        return sorted(self.seconds.values())[self.top - 1] if len(self.seconds) >= self.top else np.inf

    @property
    def end(self) -> int:
        """First place in the order whose coarse bound is above the limit."""
        return int(np.searchsorted(self.coarse_s, self.limit_s, side="right"))

    def grow(self, largest: int, going: Going) -> bool:
        """Make the next batch larger, or small enough for the time that is left; whether there is time at all."""
        self.size = min(2 * self.size, largest)
        while self.size > _FIRST_BATCH and not going(self.row_s * min(self.size, self.end - self.next)):
            self.size //= 2
        return going(self.row_s * min(self.size, self.end - self.next))

    def batch(self) -> NDArray[np.intp]:
        """Rows that get tight bounds now; returns those to simulate at once."""
        rows = np.sort(self.order[self.next : min(self.next + self.size, self.end)])
        self.next += len(rows)
        began = time.monotonic()
        bound_s = self.crew.bounds(self.table.take(rows), self.limit_s)
        self.row_s = (time.monotonic() - began) / max(1, len(rows))
        self.bound_s[rows] = np.maximum(self.bound_s[rows], bound_s)
        rows = rows[[int(row) not in self.seconds for row in rows]] if self.seconds else rows
        probes = rows[np.argsort(self.bound_s[rows], kind="stable")[:_PROBES]]
        return probes[self.bound_s[probes] <= self.limit_s]

    def result(self, *, interrupted: bool) -> Narrowed:
        """Rows that were simulated or can still be among the best."""
        stay = np.union1d(np.flatnonzero(self.bound_s <= self.limit_s), np.array([*self.seconds], np.intp))
        rows = stay[np.argsort(self.bound_s[stay], kind="stable")]
        return Narrowed(rows, self.bound_s[rows], self.seconds, interrupted)


def narrowed(
    task: TuningTask,
    table: PlanTable,
    top: int,
    crew: Crew,
    going: Going,
    tell: Report,
    known: Known | None = None,
) -> Narrowed:
    """Plans of a table that can be among the `top` fastest, with lower bounds of their step times.

    All are left where fewer than `top` were simulated. Once `going` says that there is no time left, plans keep their
    coarse bounds, and those without one get the floor of `known`. Ctrl-C ends it too, if there are step times.

    Raises:
        UnknownFigure: the machine's profile lacks a figure that a plan needs.
    """
    known = known or Known({}, None)
    largest = _LARGEST_BATCH if task.model.experts is None else _LARGEST_OF_EXPERTS
    if table.num_rows <= _FIRST_BATCH and going(0.0):
        found = _Narrowing(crew, table, top, crew.bounds(table, np.inf), seconds=known.seconds)
        return found.result(interrupted=False)
    coarse = np.zeros(table.num_rows)
    try:
        _coarse_bounds(task, table, known.floor_s, going, tell, coarse)
    except KeyboardInterrupt:
        if not known.seconds or known.floor_s is None:
            raise
        coarse = np.maximum(coarse, known.floor_s())  # plans that were not reached have none of their own
        return _Narrowing(crew, table, top, coarse, seconds=known.seconds).result(interrupted=True)
    found = _Narrowing(crew, table, top, coarse, seconds=known.seconds)
    try:
        more = going(0.0)
        while found.next < found.end and more:
            for places, seconds in crew.times(table, found.batch(), lambda: going(0.0)):
                found.seconds.update(zip(places.tolist(), seconds, strict=True))
            if found.end - found.next > _LONG_WAY:
                crew.call()
            best = min(found.seconds.values(), default=None)
            tell(Progress("memory and bounds", found.next, found.end, best))
            more = found.grow(largest, going)
    except KeyboardInterrupt:
        if not found.seconds:
            raise
        return found.result(interrupted=True)
    return found.result(interrupted=False)


def _coarse_bounds(
    task: TuningTask,
    table: PlanTable,
    floor_s: Callable[[], float] | None,
    going: Going,
    tell: Report,
    bounds: NDArray[np.float64],
) -> None:
    """Set the bounds block by block, while `going` where there is a floor for the rest."""
    from towtank.autotune.judge.coarse import coarse_bound_s

    size = _LARGE_COARSE_BLOCK if floor_s is None else _COARSE_BLOCK
    for first in range(0, table.num_rows, size):
        tell(Progress("compute", first, table.num_rows, None))
        if floor_s is not None and not going(0.0):
            bounds[first:] = floor_s()
            return
        part = slice(first, first + size)
        bounds[part] = coarse_bound_s(task, table.take(part))
