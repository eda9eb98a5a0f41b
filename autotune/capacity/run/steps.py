"""Times of steps along a run whose step time changes."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from math import floor

from towtank.autotune.capacity.run.records import Stretch


class StepClock:
    """How long steps take undisturbed, from any step on.

    Plain numbers: a run asks some ten thousand times, each for one value, and an array of one costs more than its
    arithmetic.
    """

    def __init__(self, stretches: Sequence[Stretch]) -> None:
        self._ends = [0, *accumulate(stretch.steps for stretch in stretches)]
        self._times = [0.0, *accumulate(stretch.steps * stretch.step_time_s for stretch in stretches)]
        self._step_times = [stretch.step_time_s for stretch in stretches]
        self.steps = self._ends[-1]
        self.longest_s = max(self._step_times)

    def _at(self, step: int) -> float:
        """Time at which so many steps are done."""
        place = min(bisect_right(self._ends, step) - 1, len(self._step_times) - 1)
        return self._times[place] + (step - self._ends[place]) * self._step_times[place]

    def steps_alike(self, step: int) -> int:
        """Steps after `step` that take as long as the next."""
        return self._ends[bisect_right(self._ends, step)] - step

    def seconds(self, step: int, steps: int) -> float:
        """Seconds of so many steps after `step`, all within the run."""
        return self._at(step + steps) - self._at(step)

    def steps_within(self, step: int, seconds: float) -> int:
        """Whole steps after `step` that end within so many seconds."""
        if seconds <= 0:
            return 0
        # a hair more, so that a step that ends just in time is not lost to rounding
        end = self._at(step) + seconds * (1 + 1e-12)
        if end >= self._times[-1]:
            return self.steps - step
        place = bisect_right(self._times, end) - 1
        done = self._ends[place] + (end - self._times[place]) / self._step_times[place]
        return floor(done + 1e-9) - step
