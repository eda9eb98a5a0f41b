"""What a search answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from towtank.autotune.task import TuningTask
from towtank.simulator.plan import Plan


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the legal plans: `legal` is the sum of the others."""

    legal: int
    do_not_fit: int
    """Plans that need more memory than the device has, with the task's margin to spare."""
    pruned: int
    """Plans that fit and whose lower bound is above the step time of the last plan of the result."""
    simulated: int
    """Plans put on the clock by the compiled engine."""
    open: int = 0
    """Plans that a stopped search has not judged, or not simulated: they may be better."""


@dataclass(frozen=True, slots=True)
class RankedPlan:
    """One of the best plans, from rank 1."""

    rank: int
    plan: Plan
    step_time_s: float
    """By the compiled engine."""
    peak_memory_bytes: float
    """Of the fullest stage, per device."""
    bound_s: float
    """Lower bound of the step time that the search went by."""
    proven: bool
    """Whether no plan that was left out can be faster."""
    reference_s: float | None = None
    """Step time by the engine of the finalists; None for the others."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Best plans of a space. Every one of them fits; none at all where no plan does."""

    task: TuningTask
    counts: Counts
    plans: tuple[RankedPlan, ...]
    stopped: Literal["budget", "interrupt"] | None
    """What ended the search before its proof."""
    gap: float
    """Step time of the winner over the smallest lower bound of an open plan, less 1: what the winner can be behind
    the best at most. 0 where it is proven, infinite where nothing was simulated yet."""
    memory_limit_bytes: float
    """Largest predicted peak that fits: the memory of a device less the task's margin."""
    closest: Plan | None
    """Where no plan fits: the one that lacks the least memory."""
    closest_peak_bytes: float | None
    elapsed_s: float
    listed: bool = True
    """Whether all legal plans were listed; if not, the counts are those of the plans that were looked at."""

    @property
    def proven(self) -> bool:
        """Whether the winner is proven: no legal plan that fits is faster under the compiled engine."""
        return bool(self.plans) and self.gap == 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a search is."""

    stage: Literal["plans", "probes", "memory", "memory and bounds", "simulation", "finalists"]
    done: int
    """Plans simulated; before that, plans with tight bounds; of memory, plans whose memory is known."""
    of: int
    """Plans that are left to simulate or to bound, as far as known; of memory, all."""
    best_s: float | None
    """Step time of the best so far."""


Report = Callable[[Progress], None]
"""Called now and then with how far the search is."""
