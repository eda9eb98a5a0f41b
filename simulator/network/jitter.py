"""Variability: a synchronous step waits for its slowest rank, so its cost grows with their number.

Durations are multiples of the undisturbed one. Expectations of the maximum are analytic (for the compiled engine);
`samples` draws the same distributions with a seed (for SimPy and for quantiles).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import log, pi, sqrt
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
