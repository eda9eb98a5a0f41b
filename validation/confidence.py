"""How sure fitted factors are: the fit repeated on resampled groups of runs, and the file that predictions read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from towtank.hardware_profiles.calibration import BOUNDS
from towtank.validation.factors import ANCHOR, MIN_GROUPS, MIN_ROWS, PULL, fit, free_names
from towtank.validation.rates import Observation
from towtank.validation.statistics import quantile

RESAMPLES = 200
_LEVELS = (0.05, 0.95)
_DIGITS = 4

_HEAD = f"""\
# Rates of stacks and devices inside training steps over what specification, measured curves and sustained multiply
# rate lead to. Written by `python -m towtank.validation.fit --write`: run it again instead of editing.
#
# A rate of a run is the product of the rates of its stack and its device. Fitted to published runs with a
# complete layout, one row for each source, model and mapping (AxoNN's runs apart), by least absolute deviations of
# the logarithm; validation/factors.py has the method. Every stack is drawn to a common level and every device to 1,
# by one row more of weight {PULL:g}.
# With fewer than {MIN_ROWS} rows or {MIN_GROUPS} groups (source, model, mapping) it stays there and has no interval.
# Devices that are not listed stay at 1. {ANCHOR} is the anchor, 1 by definition.
# interval_90: from the 5th to the 95th percentile of the fit to {RESAMPLES} resamples of whole groups.
"""


@dataclass(frozen=True, slots=True)
class Confidence:
    """90 % intervals of the factors that are free."""

    level: tuple[float, float]
    stacks: dict[str, tuple[float, float]]
    devices: dict[str, tuple[float, float]]


def bootstrap(observations: Sequence[Observation], resamples: int = RESAMPLES, seed: int = 0) -> Confidence:
    """Fit to resamples with replacement of whole groups (Davison and Hinkley, Bootstrap Methods, section 3.8).

    Runs of one group resemble each other: resampling rows would call them independent and the factors too sure. A
    factor counts in the resamples that hold a row of it.
    """
    import numpy as np

    groups: dict[str, list[Observation]] = {}
    for each in observations:
        groups.setdefault(each.group, []).append(each)
    names = sorted(groups)
    free = free_names(observations)
    random = np.random.default_rng(seed)
    levels: list[float] = []
    stacks: dict[str, list[float]] = {name: [] for name in free.stacks}
    devices: dict[str, list[float]] = {name: [] for name in free.devices}
    for _ in range(resamples):
        drawn = [
            each for number in random.integers(len(names), size=len(names)) for each in groups[names[number]]
        ]
        one = fit(drawn, free)
        levels.append(one.level)
        for name in {each.stack for each in drawn} & stacks.keys():
            stacks[name].append(one.stack(name))
        for name in {each.device for each in drawn} & devices.keys():
            devices[name].append(one.device(name))
    return Confidence(
        _interval(levels),
        {name: _interval(values) for name, values in stacks.items()},
        {name: _interval(values) for name, values in devices.items()},
    )


def _interval(values: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return quantile(ordered, _LEVELS[0]), quantile(ordered, _LEVELS[1])


def to_text(observations: Sequence[Observation], resamples: int = RESAMPLES) -> str:
    """Text of the calibration file: the fit and how sure it is. The same for the same observations."""
    fitted, confidence = fit(observations), bootstrap(observations, resamples)
    data = {
        "name": "training",
        "fit": {
            "rows": len(observations),
            "groups": len({each.group for each in observations}),
            "free_parameters": fitted.num_parameters,
            "resamples": resamples,
            "bounds": list(BOUNDS),
            "level": round(fitted.level, _DIGITS),
            "level_interval_90": _rounded(confidence.level),
        },
        "stacks": {
            name: _entry(fitted.stack(name), confidence.stacks.get(name), observations, "stack", name)
            for name in sorted({each.stack for each in observations})
        },
        "devices": {
            name: _entry(fitted.device(name), confidence.devices.get(name), observations, "device", name)
            for name in sorted({each.device for each in observations})
        },
    }
    return _HEAD + yaml.safe_dump(data, sort_keys=False, width=116, default_flow_style=None)


def _rounded(interval: tuple[float, float]) -> list[float]:
    return [round(end, _DIGITS) for end in interval]


def _entry(
    rate: float,
    interval: tuple[float, float] | None,
    observations: Sequence[Observation],
    kind: str,
    name: str,
) -> dict[str, Any]:
    own = [each for each in observations if getattr(each, kind) == name]
    return {
        "rate": round(rate, _DIGITS),
        "interval_90": None if interval is None else _rounded(interval),
        "rows": len(own),
        "groups": len({each.group for each in own}),
        "sources": sorted({each.source for each in own}),
    }
