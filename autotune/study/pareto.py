"""Which of several outcomes are best."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.study.records import Finished, Measure


def costs_of(
    values: Sequence[Sequence[float]] | NDArray[np.float64], measures: Sequence[Measure]
) -> NDArray[np.float64]:
    """Figures turned so that less is better; shape [rows, measures]."""
    sign = np.array([1.0 if measure.direction == "minimize" else -1.0 for measure in measures])
    costs: NDArray[np.float64] = np.asarray(values, np.float64).reshape(-1, len(measures)) * sign
    return costs


def front(costs: NDArray[np.float64]) -> NDArray[np.intp]:
    """Rows that no other row dominates (no worse in all, better in one), by ascending first column.

    Rows with the same costs do not dominate each other, so all of them are in the front. Rows are taken in
    lexicographic order: whatever dominates a row comes before it, so one pass against the front so far is enough.
    """
    order = np.lexsort(costs.T[::-1])
    kept = np.empty_like(costs)
    chosen: list[int] = []
    for row in order:
        others = kept[: len(chosen)]
        no_worse = (others <= costs[row]).all(axis=1)
        if not (no_worse & (others < costs[row]).any(axis=1)).any():
            kept[len(chosen)] = costs[row]
            chosen.append(int(row))
    return np.array(chosen, np.intp)


def best_of(finished: Sequence[Finished], measures: Sequence[Measure]) -> list[Finished]:
    """All, best first, with one measure; the Pareto front with several."""
    if not finished:
        return []
    costs = costs_of([trial.outcome.values for trial in finished], measures)
    rows = np.argsort(costs[:, 0], kind="stable") if len(measures) == 1 else front(costs)
    return [finished[int(row)] for row in rows]
