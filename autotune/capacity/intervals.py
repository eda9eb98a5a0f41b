"""The best time between checkpoints by simulation, beside the closed forms."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from towtank.autotune.capacity.errors import CapacityError
from towtank.autotune.capacity.run.closed_forms import daly_interval_s, young_interval_s
from towtank.autotune.capacity.run.monte_carlo import simulate_many
from towtank.autotune.capacity.run.records import Stretch, TrainingJob

FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)
"""Multiples of Daly's interval that are simulated."""
FAILURES = 300
"""Failures of the simulated part of the run, so that luck averages out and long runs do not take long."""


@dataclass(frozen=True, slots=True)
class IntervalStudy:
    """Times of work between two checkpoints."""

    young_s: float
    daly_s: float
    simulated: tuple[tuple[float, float], ...]
    """Interval in seconds, and the goodput with it."""

    @property
    def best_s(self) -> float:
        """The simulated interval of the highest goodput."""
        return max(self.simulated, key=lambda one: one[1])[0]


@lru_cache(maxsize=8)
def interval_study(job: TrainingJob, seed: int = 0, runs: int = 4) -> IntervalStudy | None:
    """Simulate intervals around Daly's; None without failures, or where a checkpoint stops nothing.

    The run is as many of its last steps as about FAILURES failures strike. All intervals see the same luck; those
    with which the run would never end are left out.
    """
    cost, rate = job.checkpoints.blocking_s, job.failures_per_s
    if cost <= 0 or rate <= 0:
        return None
    young, daly = young_interval_s(cost, 1 / rate), daly_interval_s(cost, 1 / rate)
    last = job.stretches[-1]
    steps = max(1, round(FAILURES / runs / rate / last.step_time_s))
    simulated = []
    for count in sorted({max(1, round(daly * factor / last.step_time_s)) for factor in FACTORS}):
        cut = replace(
            job,
            stretches=(Stretch(steps, last.step_time_s),),
            checkpoints=replace(job.checkpoints, interval_steps=count),
        )
        try:
            found = simulate_many(cut, runs, seed).runs
        except CapacityError:
            continue
        simulated.append((count * last.step_time_s, float(np.mean([run.goodput for run in found]))))
    return IntervalStudy(young, daly, tuple(simulated)) if simulated else None
