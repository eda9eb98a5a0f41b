"""The factor of delivery: how long whole runs take beside what their steps and failures say.

A run is all that happened to it, so a few take far longer than a normal distribution allows. The logarithm of the
factor is a scale times Student's t with two degrees of freedom about 0: the heaviest tails with whole degrees whose
mean exists, and a prediction stays the median. The scale is the one figure that is fitted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from towtank.autotune.capacity.errors import CapacityError
from towtank.hardware_profiles.files import StrictLoader
from towtank.simulator.edge import read_record

Floats = NDArray[np.float64]
FILE = Path(__file__).parent / "published" / "delivery.yaml"
OUTERMOST = 0.01
"""Shares below this and above its complement get the factor of this: as many runs as would tell have not been
published, and the tails themselves have no end."""
_SCALES = (0.005, 2.0)


@dataclass(frozen=True, slots=True)
class Shape:
    """A distribution about 0, of scale 1."""

    name: str
    log_density: Callable[[Floats], Floats]
    quantile: Callable[[Floats], Floats]


def _normal_quantile(share: Floats) -> Floats:
    from scipy.stats import norm

    found: Floats = norm.ppf(share)
    return found


# closed forms for two degrees of freedom: Johnson, Kotz and Balakrishnan, Continuous Univariate Distributions, volume
# 2, chapter 28
STUDENT_2 = Shape(
    "Student's t with two degrees of freedom",
    lambda value: np.asarray(-1.5 * np.log(2 + value**2)),
    lambda share: np.asarray((2 * share - 1) / np.sqrt(2 * share * (1 - share))),
)
NORMAL = Shape("normal", lambda value: np.asarray(-(value**2) / 2 - np.log(2 * np.pi) / 2), _normal_quantile)


@dataclass(frozen=True, slots=True)
class Residuals:
    """Logarithm of the published hours of a run less that of its simulated ones, [simulated runs]."""

    group: str
    values: Floats


@dataclass(frozen=True, slots=True)
class Delivery:
    """The fitted factor."""

    scale: float
    """Scale of the logarithm."""
    runs: int
    groups: int
    shape: str
    source: str

    def factors(self, share: Floats) -> Floats:
        """Factors that so large shares of the runs stay below, the same shape as `share` (0 to 1)."""
        return factors(self.scale, share)


def factors(scale: float, share: Floats, shape: Shape = STUDENT_2) -> Floats:
    """Factors that so large shares of the runs stay below with a scale of the logarithm, as `share` (0 to 1)."""
    return np.exp(scale * shape.quantile(np.clip(share, OUTERMOST, 1 - OUTERMOST)))


@cache
def delivery() -> Delivery:
    """The factor that `python -m towtank.autotune.capacity.totals` fitted.

    Raises:
        CapacityError: the file breaks its rules.
    """
    found, faults = read_record(Delivery, yaml.load(FILE.read_text(encoding="utf-8"), Loader=StrictLoader))
    if found is None:
        raise CapacityError([f"{FILE.name}: {fault}" for fault in faults])
    fitted: Delivery = found
    return fitted


def log_score(residuals: Sequence[Residuals], scale: float, shape: Shape = STUDENT_2) -> float:
    """Mean logarithm of the density of the published logarithm of hours, each group weighing the same.

    The density of a run is the mean over its simulated ones of that of the factor: what simulated runs differ by is
    not fitted a second time.
    """
    by_group: dict[str, list[float]] = {}
    for one in residuals:
        found = float(
            np.logaddexp.reduce(shape.log_density(one.values / scale) - np.log(scale * one.values.size))
        )
        by_group.setdefault(one.group, []).append(found)
    return float(np.mean([np.mean(found) for found in by_group.values()]))


def fit_scale(residuals: Sequence[Residuals], shape: Shape = STUDENT_2) -> float:
    """The scale of the highest `log_score`."""
    from scipy.optimize import minimize_scalar

    low, high = np.log(_SCALES)
    found = minimize_scalar(
        lambda at: -log_score(residuals, float(np.exp(at)), shape), bounds=(low, high), method="bounded"
    )
    return float(np.exp(found.x))


def scales_left_out(residuals: Sequence[Residuals], shape: Shape = STUDENT_2) -> dict[str, float]:
    """For each group the scale fitted to all other groups."""
    groups = dict.fromkeys(one.group for one in residuals)
    return {group: fit_scale([one for one in residuals if one.group != group], shape) for group in groups}


def log_score_left_out(
    residuals: Sequence[Residuals], scales: Mapping[str, float], shape: Shape = STUDENT_2
) -> float:
    """`log_score` of all groups, each with its own scale: how well what was not fitted to a group foretells it."""
    groups = list(scales)
    return float(
        np.mean(
            [
                log_score([one for one in residuals if one.group == group], scales[group], shape)
                for group in groups
            ]
        )
    )
