"""Figures of error: pure functions of results."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, median

from towtank.validation.evaluate import Result
from towtank.validation.grouping import grouped
from towtank.validation.rows import Run

_CONFIGURATION = tuple(
    column
    for column in Run.__dataclass_fields__
    if column not in ("id", "gate", "source_locator", "source_kind", "notes")
    and column
    not in ("step_time_s", "tokens_per_s_per_gpu", "tflops_per_gpu", "mfu_pct", "hfu_pct", "peak_mem_gib")
)
"""Columns that are not a measurement, nor where the row stands in its source."""
_ALIKE = 1e-9
"""Relative difference of two predicted rates below which they are equal."""


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors of step time of a group of rows, as fractions. None: no row could be judged."""

    rows: int
    """Rows that print a step time."""
    expressed: int
    """Of them, rows that could be predicted."""
    median: float | None
    mean: float | None
    bias: float | None
    """Median of the signed errors."""
    p90: float | None
    spearman: float | None
    """Rank correlation of predicted and measured step time."""
    null_median: float | None
    """Median error of the null model: a constant fraction of peak, fitted per device on the same rows."""
    null_mean: float | None

    @property
    def coverage(self) -> float:
        """Share of the rows that could be expressed."""
        return self.expressed / self.rows if self.rows else 0.0

    @property
    def skill(self) -> float | None:
        """Our mean error over that of the null model; below 1 is better than it."""
        return self.mean / self.null_mean if self.mean is not None and self.null_mean else None

    @property
    def skill_median(self) -> float | None:
        """Our median error over that of the null model."""
        return self.median / self.null_median if self.median is not None and self.null_median else None


def errors_of(results: Iterable[Result]) -> Errors:
    """Errors of step time of a group. Rows without a measured step time are not counted."""
    timed = [result for result in results if result.run.step_time_s is not None]
    judged = [result for result in timed if result.error is not None]
    signed = [result.error for result in judged if result.error is not None]
    absolute = sorted(abs(error) for error in signed)
    null = [abs(error) for error in null_errors(judged)]
    predicted = [result.predicted_step_time_s or 0.0 for result in judged]
    measured = [result.run.step_time_s or 0.0 for result in judged]
    return Errors(
        rows=len(timed),
        expressed=len(judged),
        median=median(absolute) if absolute else None,
        mean=fmean(absolute) if absolute else None,
        bias=median(signed) if signed else None,
        p90=quantile(absolute, 0.9) if absolute else None,
        spearman=spearman(predicted, measured),
        null_median=median(null) if null else None,
        null_mean=fmean(null) if null else None,
    )


def fraction_of_peak(result: Result) -> float:
    """Measured model FLOP/s of one device over its dense peak in the row's precision."""
    measured = result.run.step_time_s
    assert measured
    return result.model_flop / (measured * result.num_devices * result.peak_flop_per_s)


def null_errors(judged: Sequence[Result]) -> list[float]:
    """Signed errors of a constant fraction of peak: per device the median of the same rows.

    t = model FLOP / (devices x peak x fraction), so that the error is (own fraction) / (that of the device) - 1.
    """
    fractions = {id(result): fraction_of_peak(result) for result in judged}
    typical = {
        device: median(fractions[id(result)] for result in group)
        for device, group in grouped(judged, lambda result: result.run.device).items()
    }
    return [fractions[id(result)] / typical[result.run.device] - 1 for result in judged]


def quantile(ordered: Sequence[float], level: float) -> float:
    """Quantile of sorted values, linear between neighbours."""
    place = level * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share the mean of theirs."""
    order = sorted(range(len(values)), key=lambda index: values[index])
    out = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for place in range(start, end + 1):
            out[order[place]] = (start + end) / 2 + 1
        start = end + 1
    return out


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation: Pearson's of the ranks.

    None for fewer than 3 values or where one side is constant.
    """
    if len(first) < 3:
        return None
    a, b = ranks(first), ranks(second)
    mean_a, mean_b = fmean(a), fmean(b)
    covariance = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    spread = math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))
    return covariance / spread if spread else None


def rate_predicted(result: Result) -> float:
    """Predicted model FLOP/s of one device: what configurations of one sweep compete in."""
    assert result.predicted_step_time_s
    return result.model_flop / (result.predicted_step_time_s * result.num_devices)


def rate_measured(result: Result) -> float:
    """Measured model FLOP/s of one device."""
    assert result.run.step_time_s
    return result.model_flop / (result.run.step_time_s * result.num_devices)


def rank_correlation(sweep: Sequence[Result]) -> float | None:
    """Spearman's correlation of predicted and measured rate within a sweep."""
    return spearman([rate_predicted(result) for result in sweep], [rate_measured(result) for result in sweep])


def best_plan_loss(sweep: Sequence[Result]) -> float:
    """How far the plan predicted best is behind the measured best: (best rate) / (its measured rate) - 1."""
    chosen = max(sweep, key=rate_predicted)
    return max(rate_measured(result) for result in sweep) / rate_measured(chosen) - 1


def pairs_ordered(sweep: Sequence[Result], resolution: float) -> tuple[int, int]:
    """Pairs whose order by rate is predicted right, and all pairs that differ by more than `resolution`.

    Two measurements of what the rows say is one configuration, and which is predicted alike, are no pair; other
    pairs that are predicted alike are not ordered right.
    """
    right = total = 0
    for one, other in combinations(sweep, 2):
        measured = math.log(rate_measured(one) / rate_measured(other))
        predicted = math.log(rate_predicted(one) / rate_predicted(other))
        alike = abs(predicted) < _ALIKE
        if abs(measured) <= math.log1p(resolution) or (alike and configuration(one) == configuration(other)):
            continue
        total += 1
        right += not alike and predicted * measured > 0
    return right, total


def configuration(result: Result) -> tuple[object, ...]:
    """What a row says about model, plan and software; rows that agree in all of it repeat one measurement."""
    return tuple(getattr(result.run, column) for column in _CONFIGURATION)


def slope_per_doubling(results: Iterable[Result], smallest: int = 64) -> float | None:
    """Least-squares slope of the signed error over log2(devices), of runs on `smallest` devices or more."""
    points = [
        (math.log2(result.num_devices), result.error)
        for result in results
        if result.error is not None and result.num_devices >= smallest
    ]
    if len({x for x, _ in points}) < 2:
        return None
    mean_x, mean_y = fmean(x for x, _ in points), fmean(y for _, y in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def best_half(sweep: Sequence[Result], share: float = 0.5) -> list[Result]:
    """Rows of a sweep that reach at least `share` of its best measured rate."""
    best = max(rate_measured(result) for result in sweep)
    return [result for result in sweep if rate_measured(result) >= share * best]


def memory_errors(results: Iterable[Result]) -> list[float]:
    """Signed errors of peak memory of the rows that print it."""
    return [result.memory_error for result in results if result.memory_error is not None]


def flagged_as_failing(results: Sequence[Result]) -> float | None:
    """Share of the rows that are predicted not to fit, or whose plan is not legal."""
    return fmean(result.fits is not True for result in results) if results else None


def predicted_to_fit(results: Iterable[Result]) -> float | None:
    """Share of the expressed rows that are predicted to fit."""
    fits = [result.fits is True for result in results if result.status == "ok"]
    return fmean(fits) if fits else None
