"""Results as samples of residuals."""

import math
from collections.abc import Iterable, Sequence

from towtank.validation.conformal import Sample, held_out
from towtank.validation.evaluate import Result
from towtank.validation.figures import Figure, figure_of
from towtank.validation.grouping import definitions, group_of, in_group, interval_settings


def samples_of(results: Iterable[Result]) -> list[Sample]:
    """One sample for each judged run that is complete enough (gate is not 0)."""
    return [
        Sample(result.features, -math.log1p(result.error), group_of(result.run))
        for result in results
        if result.error is not None and result.features is not None and result.run.gate is not False
    ]


def interval_figures(results: Sequence[Result]) -> list[Figure]:
    """Coverage and half-width of intervals on groups that were held out, with and without the erratic sweep."""
    calm = [result for result in results if not in_group(result, "chaotic")]
    return [*_held_out(results, ""), *_held_out(calm, "_calm")]


def _held_out(results: Sequence[Result], suffix: str) -> list[Figure]:
    samples = samples_of(results)
    found = held_out(samples, interval_settings(), definitions()["intervals"]["folds"])
    coverage, width = found if found is not None else (None, None)
    rows = len(samples) if found else 0
    return [
        figure_of(f"interval_coverage{suffix}", coverage, rows),
        figure_of(f"interval_half_width{suffix}", width, rows),
    ]
