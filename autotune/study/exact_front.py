"""The exact Pareto front of an enumerated space: every plan is simulated that could be on it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.study.pareto import costs_of, front
from towtank.autotune.study.records import Measure
from towtank.simulator.plan import Plan


@dataclass(frozen=True, slots=True)
class FrontCounts:
    """What became of the plans: `plans` is the sum of the others."""

    plans: int
    do_not_fit: int
    pruned: int
    """Plans that a simulated plan dominates even at their bounds."""
    simulated: int


@dataclass(frozen=True, slots=True)
class FrontPlan:
    """One plan of a Pareto front with a figure for each measure."""

    plan: Plan
    values: tuple[float, ...]
    step_time_s: float
    peak_memory_bytes: float


@dataclass(frozen=True, slots=True)
class Candidates:
    """Plans that fit, with what is known of them before they are simulated."""

    optimistic: NDArray[np.float64]
    """For each measure a figure that the plan cannot beat; shape [plans, measures]."""
    plan: Callable[[int], Plan]
    """The plan of a row."""


def exact_front(
    candidates: Candidates,
    measures: Sequence[Measure],
    simulate: Callable[[Plan], FrontPlan],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[FrontPlan], int]:
    """The Pareto front of all candidates, and how many of them were simulated.

    Plans are simulated by ascending bound of the first measure. One is left out only where a plan simulated before
    dominates its optimistic figures, and so its true ones: what is left out cannot be on the front.

    Args:
        candidates: plans with their optimistic figures.
        measures: what is measured; the first gives the order.
        simulate: puts a plan on the clock.
        progress: called with the numbers of plans looked at and of all.
    """
    optimistic = costs_of(candidates.optimistic, measures)  # type: ignore[arg-type]
    order = np.lexsort(optimistic.T[::-1])
    found: list[FrontPlan] = []
    kept = np.empty((0, len(measures)))
    simulated = 0
    for place, row in enumerate(order):
        if progress is not None:
            progress(place, len(order))
        if dominated(optimistic[row], kept):
            continue
        candidate = simulate(candidates.plan(int(row)))
        simulated += 1
        found.append(candidate)
        kept = np.vstack([kept, costs_of([candidate.values], measures)])
        best = np.sort(front(kept))
        found, kept = [found[int(index)] for index in best], kept[best]
    return [found[int(index)] for index in front(kept)], simulated


def dominated(costs: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    """Whether one of `others` [rows, measures] is no worse than `costs` in all measures and better in one."""
    no_worse = (others <= costs).all(axis=1)
    return bool((no_worse & (others < costs).any(axis=1)).any())
