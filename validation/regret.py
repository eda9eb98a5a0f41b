"""What a choice by prediction costs: the best of the measured configurations of a sweep against the one predicted best.

As a search does, the choice is made among the configurations that are predicted to fit.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from towtank.validation.evaluate import Result
from towtank.validation.grouping import sweeps
from towtank.validation.statistics import configuration, quantile, rate_measured, rate_predicted

_SMALLEST_SWEEP = 3
"""Configurations from which on there is a choice worth the name."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The configuration of a sweep that is predicted best, and the one that was measured best."""

    sweep: str
    configurations: int
    chosen: str
    """Row of the one predicted best."""
    best: str
    """Row of the one measured best."""
    loss: float
    """Measured rate of the best over that of the chosen, less 1."""

    @property
    def family(self) -> str:
        """Name of the sweep without what tells its parts apart."""
        return self.sweep.split(", ")[0]


@dataclass(frozen=True, slots=True)
class Loss:
    """Losses of several choices, as fractions."""

    sweeps: int
    median: float
    p90: float
    worst: float


def choices(results: Sequence[Result]) -> tuple[Choice, ...]:
    """The choice in every sweep with three configurations or more; rows whose gate is 0 are left out."""
    rows = [result for result in results if result.run.gate is not False]
    return tuple(
        choice(name, sweep)
        for name, sweep in sweeps(rows).items()
        if len({configuration(result) for result in sweep}) >= _SMALLEST_SWEEP
    )


def choice(name: str, sweep: Sequence[Result]) -> Choice:
    """Choose in one sweep; rows that repeat a configuration are one, with the median of their measured rates."""
    groups = list(_repeats(sweep).values())
    rates = [median(rate_measured(result) for result in group) for group in groups]
    fitting = [place for place, group in enumerate(groups) if group[0].fits is not False]
    places = fitting or range(len(groups))
    chosen = max(places, key=lambda place: rate_predicted(groups[place][0]))
    best = max(range(len(groups)), key=lambda place: rates[place])
    return Choice(
        sweep=name,
        configurations=len(groups),
        chosen=groups[chosen][0].run.id,
        best=groups[best][0].run.id,
        loss=rates[best] / rates[chosen] - 1,
    )


def _repeats(sweep: Sequence[Result]) -> dict[tuple[object, ...], list[Result]]:
    groups: dict[tuple[object, ...], list[Result]] = {}
    for result in sweep:
        groups.setdefault(configuration(result), []).append(result)
    return groups


def loss_of(found: Sequence[Choice]) -> Loss:
    """Median, 90th percentile and worst of the losses of at least one choice."""
    ordered = sorted(each.loss for each in found)
    return Loss(len(ordered), quantile(ordered, 0.5), quantile(ordered, 0.9), ordered[-1])


def losses(found: Sequence[Choice]) -> dict[str, Loss]:
    """Losses by family of sweeps, and of all as `all sweeps`; empty where there is no choice."""
    families: dict[str, list[Choice]] = {}
    for each in found:
        families.setdefault(each.family, []).append(each)
    table = {name: loss_of(group) for name, group in families.items()}
    return table | ({"all sweeps": loss_of(found)} if len(table) > 1 else {})


def choices_to_mapping(found: Sequence[Choice]) -> dict[str, Any]:
    """Losses by family and every choice as plain data; fractions."""
    return {
        "losses": {name: asdict(loss) for name, loss in losses(found).items()},
        "choices": [asdict(each) for each in found],
    }
