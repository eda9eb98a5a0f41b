"""Many runs with different luck, and what can be said about them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from towtank.autotune.capacity.run.records import PARTS, RunOutcome, TrainingJob
from towtank.autotune.capacity.run.simulation import simulate


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Simulated runs of one job, in the order of their random streams."""

    runs: tuple[RunOutcome, ...]

    def chance_within(self, seconds: float) -> float:
        """Share of the runs that ended within so many seconds."""
        return float(np.mean([run.elapsed_s <= seconds for run in self.runs]))

    def mean_parts_s(self) -> dict[str, float]:
        """Mean time by what it was spent on, in the order of PARTS; parts without any time are left out."""
        means = {part: float(np.mean([run.parts_s.get(part, 0.0) for run in self.runs])) for part in PARTS}
        return {part: seconds for part, seconds in means.items() if seconds > 0}

    @property
    def mean_goodput(self) -> float:
        """Mean share of the held time that was training that counted."""
        return float(np.mean([run.goodput for run in self.runs]))


def simulate_many(
    job: TrainingJob, runs: int, seed: int, progress: Callable[[int], None] | None = None
) -> Outcomes:
    """Simulate a job again and again, each time with its own random stream.

    `progress` is told how many runs are done.

    Raises:
        CapacityError: the run could never end.
    """
    return simulate_each([job] * runs, seed, progress)


def simulate_each(
    jobs: Sequence[TrainingJob], seed: int, progress: Callable[[int], None] | None = None
) -> Outcomes:
    """Simulate jobs that differ, such as draws of uncertain inputs, each with its own random stream.

    Raises:
        CapacityError: one of them could never end.
    """
    outcomes = []
    for job, stream in zip(jobs, np.random.SeedSequence(seed).spawn(len(jobs)), strict=True):
        outcomes.append(simulate(job, np.random.default_rng(stream)))
        if progress is not None:
            progress(len(outcomes))
    return Outcomes(tuple(outcomes))
