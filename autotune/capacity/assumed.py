"""Ranges of inputs that are assumed, not given: they are uncertain even where the user names no range."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

from towtank.autotune.capacity.draws import acts
from towtank.autotune.capacity.facts import Reliability, reliability
from towtank.autotune.capacity.request import Operation, Uncertainty
from towtank.autotune.capacity.run.records import TrainingJob

RESTART = (0.5, 2.0)
"""Factors of a restart whose time is assumed."""
_ALIKE = ("meta-rsc1-a100", "meta-rsc2-a100")
"""Two clusters of the same devices and people, whose failure rates were published together."""


@dataclass(frozen=True, slots=True)
class AssumedRanges:
    """Factors from and to by input, and a sentence for each that says why."""

    ranges: Mapping[str, tuple[float, float]]
    words: tuple[str, ...]


def assumed_ranges(operation: Operation, job: TrainingJob, given: Uncertainty) -> AssumedRanges:
    """Ranges of what was assumed of a run, unless a range is given or nothing hangs on it.

    Published failure rates are of other nodes than these: they are drawn as far apart as those of two clusters of the
    same people.
    """
    ranges, words = dict[str, tuple[float, float]](), []
    if operation.failures_per_node_day is None and _open("failure_rate", job, given):
        ranges["failure_rate"] = failure_range()
        words.append(
            f"failures are drawn from {ranges['failure_rate'][0]:.2f} to {ranges['failure_rate'][1]:.2f} times as "
            f"often as published: so far apart are {' and '.join(_ALIKE)} (--range failure_rate=1..1 leaves it out)"
        )
    if operation.restart_s is None and _open("restart", job, given):
        ranges["restart"] = RESTART
        words.append(
            f"the time of a restart is assumed, and drawn from {RESTART[0]:g} to {RESTART[1]:g} times it (--restart)"
        )
    return AssumedRanges(ranges, tuple(words))


def failure_range() -> tuple[float, float]:
    """Factors between which the failure rates of two such clusters lie about their geometric mean."""
    rates = sorted(_per_node_day(reliability(name)) for name in _ALIKE)
    factor = sqrt(rates[1] / rates[0])
    return 1 / factor, factor


def _per_node_day(one: Reliability) -> float:
    return sum(cause.interruptions for cause in one.causes) / one.nodes / one.days


def _open(name: str, job: TrainingJob, given: Uncertainty) -> bool:
    return name not in given.ranges and acts(job, name)
