"""Plans that are left to simulate, in the order of their bounds, and what is known of their step times."""

from dataclasses import dataclass, field
from heapq import heappush, heapreplace

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.space.table import PlanTable

FIRST_ROUND, LARGEST_ROUND = 32, 2048
"""Plans of a round; in between, half of what was simulated so far."""


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
            size = min(LARGEST_ROUND, max(FIRST_ROUND, self.next // 2))
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
