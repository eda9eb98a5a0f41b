"""Uncertain inputs: one draw for each simulated run, and which of them matter."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.capacity.delivery import delivery
from towtank.autotune.capacity.request import INPUTS, Uncertainty
from towtank.autotune.capacity.run.records import FailureCause, Stretch, TrainingJob

NORMAL_95 = 1.6448536269514722
"""Quantile of the standard normal distribution at 95 %: an interval of 90 % ends there on both sides."""


@dataclass(frozen=True, slots=True)
class StepInterval:
    """Interval of 90 % of the step time, as factors of the predicted one."""

    low: float
    high: float


def draw_factors(interval: StepInterval, uncertainty: Uncertainty) -> dict[str, NDArray[np.float64]]:
    """Factors of each uncertain input, [runs] each.

    The step time is drawn from two half log-normal distributions whose 5 and 95 % quantiles are the interval's ends
    (they meet at the prediction, or at the end of the interval next to it), delivery from the distribution that was
    fitted to published runs (`delivery`); other inputs evenly in the logarithm of their range.
    """
    rng = np.random.default_rng(np.random.SeedSequence(uncertainty.seed, spawn_key=(1,)))
    drawn: dict[str, NDArray[np.float64]] = {}
    for name in INPUTS:
        if name in uncertainty.ranges:
            low, high = np.log(uncertainty.ranges[name])
            drawn[name] = np.exp(rng.uniform(low, high, uncertainty.runs))
        elif name == "step_time":
            normal = rng.standard_normal(uncertainty.runs)
            low, high = np.log(interval.low), np.log(interval.high)
            middle = np.clip(0.0, low, high)
            widths = np.where(normal < 0, middle - low, high - middle) / NORMAL_95
            drawn[name] = np.exp(middle + normal * widths)
        elif name == "delivery":
            drawn[name] = delivery().factors(rng.random(uncertainty.runs))
    return drawn


def job_with(job: TrainingJob, factors: Mapping[str, float]) -> TrainingJob:
    """The run with inputs multiplied by the factors of one draw."""
    step, rate = (
        factors.get("step_time", 1.0) * factors.get("delivery", 1.0),
        factors.get("failure_rate", 1.0),
    )
    restart, allocation = factors.get("restart", 1.0), job.allocation
    start = allocation.start_s * (restart if starts_as_restarts(job) else 1.0)
    return replace(
        job,
        stretches=tuple(Stretch(one.steps, one.step_time_s * step) for one in job.stretches),
        causes=tuple(
            FailureCause(one.name, one.per_node_s * rate, one.per_job_s * rate, one.breaks_node)
            for one in job.causes
        ),
        recovery=replace(job.recovery, restart_s=job.recovery.restart_s * restart),
        checkpoints=replace(job.checkpoints, write_s=job.checkpoints.write_s / factors.get("storage", 1.0)),
        allocation=replace(allocation, queue_s=allocation.queue_s * factors.get("queue", 1.0), start_s=start),
    )


def starts_as_restarts(job: TrainingJob) -> bool:
    """Whether each job takes as long to start as a restart does."""
    return job.allocation.start_s == job.recovery.restart_s > 0


def acts(job: TrainingJob, name: str) -> bool:
    """Whether an input changes the run at all, such as a failure rate where anything fails."""
    if name == "restart":
        return job.failures_per_s > 0 or job.stragglers is not None or starts_as_restarts(job)
    return job_with(job, {name: 2.0}) != job


def importance(
    factors: Mapping[str, NDArray[np.float64]], elapsed_s: NDArray[np.float64]
) -> list[tuple[str, float]]:
    """Spearman's rank correlation of each input with the elapsed time, the strongest first.

    See `luck` for how strong one is without any dependence.
    """
    from scipy.stats import spearmanr

    found = []
    for name, values in factors.items():
        if np.ptp(values) > 0 and np.ptp(elapsed_s) > 0:
            found.append((name, float(spearmanr(values, elapsed_s).statistic)))
    return sorted(found, key=lambda one: -abs(one[1]))


def luck(runs: int) -> float:
    """Rank correlation that inputs without any influence stay below in 95 % of such studies: 1.96 / sqrt(n - 1)."""
    return 1.959964 / float(np.sqrt(runs - 1))
