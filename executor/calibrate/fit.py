"""Robust fits of times to features, with residuals and confidence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from towtank.hardware_profiles.calibrated.records import KernelFit, Residual

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SOFT = 0.1
"""Logarithm of predicted over measured from which on a sample counts less than its square (soft L1 loss)."""
_LEAST = 1e-9
"""Predicted over measured time that stands for 0, which has no logarithm."""
_NINETY = 1.645
"""Standard deviations of 90 % of a normal distribution, on both sides."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured time of a kernel at some features."""

    kernel: str
    precision: str
    threads: int
    processes: int
    """At work at once."""
    features: Mapping[str, float]
    seconds: float
    weight: float = 1.0


def fit_kernels(samples: Sequence[Sample]) -> tuple[KernelFit, ...]:
    """One fit for each kernel, precision, number of threads and of processes."""
    groups: dict[tuple[str, str, int, int], list[Sample]] = {}
    for sample in samples:
        groups.setdefault(_key(sample), []).append(sample)
    return tuple(_fit(key, group) for key, group in sorted(groups.items()))


def levelled(sweeps: Sequence[Sample], steps: Sequence[Sample]) -> list[Sample]:
    """Samples of sweeps at the level of steps, and those of steps.

    A sweep repeats one kernel on the same arrays; in a step each one finds other data in the caches, and Python
    between calls. So sweeps tell how the time depends on the size, and steps how long it is: times of a sweep are
    multiplied by the median of (time in steps over time by the fit to the sweep).
    """
    groups: dict[tuple[str, str, int, int], list[Sample]] = {}
    for sample in steps:
        groups.setdefault(_key(sample), []).append(sample)
    fits = {(fit.kernel, fit.precision, fit.threads, fit.processes): fit for fit in fit_kernels(sweeps)}
    factors = {
        key: float(np.median([each.seconds / fits[key].seconds(each.features) for each in group]))
        for key, group in groups.items()
        if key in fits
    }
    scaled = [replace(each, seconds=each.seconds * factors.get(_key(each), 1.0)) for each in sweeps]
    return [*scaled, *steps]


def _key(sample: Sample) -> tuple[str, str, int, int]:
    return sample.kernel, sample.precision, sample.threads, sample.processes


def _fit(key: tuple[str, str, int, int], samples: Sequence[Sample]) -> KernelFit:
    # a feature that no sample has tells nothing
    names = tuple(
        dict.fromkeys(name for sample in samples for name, value in sample.features.items() if value > 0)
    )
    features = np.array([[sample.features.get(name, 0.0) for name in names] for sample in samples])
    seconds = np.array([sample.seconds for sample in samples])
    weights = np.array([sample.weight for sample in samples])
    terms, deviations = non_negative_terms(features, seconds, weights)
    errors = np.abs(features @ terms / seconds - 1)
    intervals = {
        name: (max(0.0, value - _NINETY * spread), value + _NINETY * spread)
        for name, value, spread in zip(names, terms.tolist(), deviations.tolist(), strict=True)
    }
    return KernelFit(
        *key,
        dict(zip(names, terms.tolist(), strict=True)),
        intervals,
        Residual(len(samples), float(np.median(errors)), float(np.quantile(errors, 0.9))),
    )


def non_negative_terms(features: "Floats", seconds: "Floats", weights: "Floats") -> "tuple[Floats, Floats]":
    """Terms of 0 or more, shape [features], with their standard deviations.

    Minimises the sum over samples of w rho(r^2) with r = log(f . x / t) and rho the soft L1 loss, by scipy's
    bounded least squares (dogleg); samples count alike whatever their length, and one that is disturbed moves
    the rest little whether it is too long or too short. Each feature must be above 0 in some sample.
    """
    from scipy.optimize import least_squares, nnls

    # in units in which terms are of the order of 1
    unit = float(np.median(seconds))
    scale = features.max(axis=0) / unit
    relative = features / scale / seconds[:, None]
    root = np.sqrt(weights)
    # every term begins above 0: where all of a sample's are 0 there is no logarithm
    start = np.maximum(nnls(relative * root[:, None], root)[0], 1e-3)

    def times(x: "Floats") -> "Floats":
        result: Floats = np.maximum(relative @ x, _LEAST)
        return result

    found: Any = least_squares(
        lambda x: np.log(times(x)) * root,
        start,
        jac=lambda x: relative / times(x)[:, None] * root[:, None],
        bounds=(0.0, np.inf),
        method="dogbox",
        loss="soft_l1",
        f_scale=SOFT,
        max_nfev=200,
    )
    values = np.where(found.x < 1e-9, 0.0, found.x)
    return values / scale, _deviations(relative * root[:, None], relative @ values - 1.0) / scale


def _deviations(jacobian: "Floats", residuals: "Floats") -> "Floats":
    """Standard deviations of terms: the diagonal of s^2 (J^T J)^-1, s from the median residual."""
    spread = float(np.median(np.abs(residuals))) / 0.6745
    inverse = np.linalg.pinv(jacobian.T @ jacobian)
    result: Floats = spread * np.sqrt(np.maximum(np.diag(inverse), 0.0))
    return result
