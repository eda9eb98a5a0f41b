"""Variability: a synchronous step waits for its slowest rank, so its cost grows with their number.

Durations are multiples of the undisturbed one. Expectations of the maximum are analytic (for the compiled engine);
`samples` draws the same distributions with a seed (for SimPy and for quantiles).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, exp, lgamma, log, pi, sqrt
from statistics import NormalDist
from typing import Final, Literal

import numpy as np

from towtank.simulator.network.routes import FloatArray

JitterKind = Literal["normal", "lognormal", "gumbel"]

EULER_GAMMA: Final = 0.5772156649015329
_POINTS: Final = 96
"""Points of the quadrature; doubling them changes the maximum of 40,000 normals by less than 1e-5 of their spread."""


@dataclass(frozen=True, slots=True)
class Jitter:
    """Spread of a duration of mean 1: `spread` is its standard deviation (of the logarithm for `lognormal`)."""

    kind: JitterKind
    spread: float

    def __post_init__(self) -> None:
        if not self.spread >= 0:
            raise ValueError(f"spread must be 0 or more, got {self.spread}")

    def quantile(self, probability: FloatArray) -> FloatArray:
        """Duration below which a share `probability` of draws lies."""
        if self.kind == "gumbel":
            scale = self.spread * sqrt(6) / pi
            return 1 - scale * (EULER_GAMMA + np.log(-np.log(probability)))
        normal = _normal_quantile(probability)
        if self.kind == "normal":
            return 1 + self.spread * normal
        return np.exp(self.spread * normal - self.spread**2 / 2)

    def samples(self, shape: tuple[int, ...], random: np.random.Generator) -> FloatArray:
        """Draws of the duration."""
        if self.kind == "normal":
            return random.normal(1.0, self.spread, shape)
        if self.kind == "lognormal":
            return random.lognormal(-(self.spread**2) / 2, self.spread, shape)
        scale = self.spread * sqrt(6) / pi
        return random.gumbel(1 - EULER_GAMMA * scale, scale, shape)

    def expected_maximum(self, ranks: int) -> float:
        """E[max of `ranks` independent durations].

        Gumbel in closed form, because the maximum of n Gumbels is one that is shifted by scale times log n. Else the
        integral of the quantile function over u^(1 / n), u uniform, by Gauss and Legendre (David and Nagaraja,
        "Order Statistics", 3rd edition, section 3.1).

        Raises:
            ValueError: fewer than one rank.
        """
        if ranks < 1:
            raise ValueError(f"a maximum needs one rank or more, got {ranks}")
        if self.spread == 0 or ranks == 1:
            return 1.0
        if self.kind == "gumbel":
            return 1 + self.spread * sqrt(6) / pi * log(ranks)
        uniform, weight = _quadrature(_POINTS)
        return float((self.quantile(uniform ** (1 / ranks)) * weight).sum())


def maximum_quantile(jitter: Jitter, ranks: int, probability: float) -> float:
    """Duration that the slowest of `ranks` stays below with `probability`: the quantile at probability^(1 / n)."""
    return float(jitter.quantile(np.array([probability ** (1 / ranks)]))[0])


def sampled_maximum(jitter: Jitter, ranks: int, draws: int, seed: int = 0) -> tuple[float, float]:
    """Mean of the slowest of `ranks` over `draws`, and its standard error."""
    random = np.random.default_rng(seed)
    block = max(1, 2_000_000 // ranks)
    found = np.concatenate(
        [
            jitter.samples((min(block, draws - begin), ranks), random).max(axis=1)
            for begin in range(0, draws, block)
        ]
    )
    return float(found.mean()), float(found.std(ddof=1) / sqrt(draws))


def combined(persistent: Jitter, each_wait: Jitter) -> Jitter:
    """Spread of a segment between two waits on a device whose speed is drawn once and whose segments are noisy.

    The expected length of a step is the sum of those of its segments, each the maximum over ranks of a sum (normal)
    or product (lognormal) of the two, whose spreads add in squares. That a slow device stays slow changes how much
    steps differ from job to job, not the mean.

    Raises:
        ValueError: kinds that differ, or Gumbel, whose sums are not Gumbel.
    """
    if persistent.kind != each_wait.kind or persistent.kind == "gumbel":
        raise ValueError(f"normal with normal or lognormal with lognormal, got {persistent} and {each_wait}")
    return Jitter(persistent.kind, sqrt(persistent.spread**2 + each_wait.spread**2))


@dataclass(frozen=True, slots=True)
class Interference:
    """Noise of the operating system: interruptions of `length_s`, `rate_per_s` of them on each rank."""

    rate_per_s: float
    length_s: float

    def expected_delay_s(self, work_s: float, ranks: int) -> float:
        """E[time that the unluckiest rank loses in `work_s` of work], ranks independent, interruptions Poisson.

        Sum over k of the chance that some rank has more than k interruptions (Hoefler, Schneider and Lumsdaine,
        SC 2010, call what follows noise amplification).
        """
        mean = self.rate_per_s * work_s
        most = ceil(mean + 12 * sqrt(mean) + 40)
        if mean == 0:
            return 0.0
        below, total = 0.0, 0.0
        for k in range(most):
            below += exp(
                k * log(mean) - mean - lgamma(k + 1)
            )  # a product of terms would begin with 0 from 746 on
            total += -np.expm1(ranks * np.log(min(below, 1.0))) if below > 0 else 1.0
        return self.length_s * float(total)


@lru_cache(maxsize=4)
def _quadrature(points: int) -> tuple[FloatArray, FloatArray]:
    """Points in (0, 1) and their weights; u = t^2 (3 - 2 t) crowds them at both ends, where quantiles run away."""
    node, weight = np.polynomial.legendre.leggauss(points)
    t = (node + 1) / 2
    return t**2 * (3 - 2 * t), 3 * t * (1 - t) * weight


def _normal_quantile(probability: FloatArray) -> FloatArray:
    """Quantiles of the standard normal distribution, numbers just below 1 included."""
    normal = NormalDist()
    return np.array([normal.inv_cdf(p) for p in np.clip(probability, 1e-300, 1 - 1e-16)])
