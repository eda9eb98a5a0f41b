"""Times of steps along a run whose step time changes."""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from towtank.autotune.capacity.run.records import Stretch


class StepClock:
    """How long steps take undisturbed, from any step on."""

    def __init__(self, stretches: Sequence[Stretch]) -> None:
        self._ends = np.array([0, *accumulate(stretch.steps for stretch in stretches)], dtype=float)
        times = [stretch.steps * stretch.step_time_s for stretch in stretches]
        self._times = np.array([0.0, *accumulate(times)])
        self.longest_s = max(stretch.step_time_s for stretch in stretches)

    def seconds(self, step: int, steps: int) -> float:
        """Seconds of so many steps after `step`."""
        begin, end = np.interp([step, step + steps], self._ends, self._times)
        return float(end - begin)

    def steps_within(self, step: int, seconds: float) -> int:
        """Whole steps after `step` that end within so many seconds."""
        if seconds <= 0:
            return 0
        begin = np.interp(step, self._ends, self._times)
        # a hair more, so that a step that ends just in time is not lost to rounding
        end = float(np.interp(begin + seconds * (1 + 1e-12), self._times, self._ends))
        return int(np.floor(end + 1e-9)) - step
