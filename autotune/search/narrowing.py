"""Which plans are left to simulate: coarse bounds of all, tight ones of those that a few simulated plans leave.

A tight bound of a plan costs about as much as to simulate it where plans share little, as with experts. The coarse
bounds cost next to nothing. So plans get their tight bounds in the order of their coarse ones, in batches; the most
promising of each batch go on the clock at once; and a plan whose coarse bound is above the step time of the last plan
of the answer so far needs no other bound. Batches depend on nothing but the bounds and step times.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.search.pool import Crew
from towtank.autotune.search.records import Progress, Report
from towtank.autotune.space.table import PlanTable
from towtank.autotune.task import TuningTask

_FIRST_BATCH, _LARGEST_BATCH = 2048, 32768
"""Plans that get tight bounds at once; each batch is twice the one before. The largest takes some seconds and bounds
how far a budget is exceeded."""
_COARSE_BLOCK = 1 << 18
"""Plans that get coarse bounds between two looks at the clock."""
_PROBES = 16
"""Plans of a batch that are simulated at once."""
_LONG_WAY = 3 * 16384
"""Plans left to bound that are worth the start of workers."""


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

    def batch(self) -> NDArray[np.intp]:
        """Rows that get tight bounds now; returns those to simulate at once."""
        rows = np.sort(self.order[self.next : min(self.next + self.size, self.end)])
        self.next += len(rows)
        self.size = min(2 * self.size, _LARGEST_BATCH)
        self.bound_s[rows] = np.maximum(self.bound_s[rows], self.crew.bounds(self.table.take(rows)))
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
    going: Callable[[], bool],
    tell: Report,
    known: Known | None = None,
) -> Narrowed:
    """Plans of a table that can be among the `top` fastest, with lower bounds of their step times.

    All are left where fewer than `top` were simulated. Once `going()` is false, plans keep their coarse bounds, and
    those without one get the floor of `known`. Ctrl-C ends it too, if there are step times by then.

    Raises:
        UnknownFigure: the machine's profile lacks a figure that a plan needs.
    """
    known = known or Known({}, None)
    if table.num_rows <= _FIRST_BATCH and going():
        found = _Narrowing(crew, table, top, crew.bounds(table), seconds=known.seconds)
        return found.result(interrupted=False)
    coarse = np.zeros(table.num_rows)
    try:
        _coarse_bounds(task, table, known.floor_s, going, coarse)
    except KeyboardInterrupt:
        if not known.seconds:
            raise
        return _Narrowing(crew, table, top, coarse, seconds=known.seconds).result(interrupted=True)
    found = _Narrowing(crew, table, top, coarse, seconds=known.seconds)
    try:
        while found.next < found.end and going():
            for places, seconds in crew.times(table, found.batch(), going):
                found.seconds.update(zip(places.tolist(), seconds, strict=True))
            if found.end - found.next > _LONG_WAY:
                crew.call()
            best = min(found.seconds.values(), default=None)
            tell(Progress("memory and bounds", found.next, found.end, best))
    except KeyboardInterrupt:
        if not found.seconds:
            raise
        return found.result(interrupted=True)
    return found.result(interrupted=False)


def _coarse_bounds(
    task: TuningTask,
    table: PlanTable,
    floor_s: Callable[[], float] | None,
    going: Callable[[], bool],
    bounds: NDArray[np.float64],
) -> None:
    """Set the bounds: all at once, or block by block while `going()` where there is a floor for the rest."""
    from towtank.autotune.judge.coarse import coarse_bound_s

    size = table.num_rows if floor_s is None else _COARSE_BLOCK
    for first in range(0, table.num_rows, size):
        if floor_s is not None and not going():
            bounds[first:] = floor_s()
            return
        part = slice(first, first + size)
        bounds[part] = coarse_bound_s(task, table.take(part))
