"""Devices and links that differ, as distributions: speeds, steps, persistent stragglers, noise, slow interfaces.

Times of compute are multiples of those of an undisturbed device. What is random about one device is a mixture of
normal distributions, so the slowest of many has a distribution in closed form: F(x)^n. Its mean serves the engines,
draws of it the quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, lgamma, log, sqrt
from typing import Any, Final

import numpy as np

from towtank.hardware_profiles.units import format_quantity
from towtank.simulator.network.routes import FloatArray

_MOST_INTERRUPTIONS: Final = 30.0
"""Expected interruptions of a step from which their number is taken for normal; below it is Poisson."""
_REACH: Final = 9.0
"""Standard deviations after which a normal distribution ends; 40,000 devices reach 4 to 5."""


@dataclass(frozen=True, slots=True)
class Variability:
    """What a user supposes of the devices and interfaces of a job, in place of what the machine's profile tells."""

    speed: float | None = None
    """Standard deviation of the speed of devices, for good, over its mean; None: as the profile says."""
    jitter: float | None = None
    """Standard deviation of a device's compute from step to step, over its mean; None: as the profile says."""
    stragglers: float = 0.0
    """Share of devices that are slower for good."""
    straggler_slowdown: float = 1.0
    """Compute time of such a device over that of others."""
    slow_links: float = 0.0
    """Share of nodes whose network interfaces are slow."""
    slow_link_bandwidth: float = 1.0
    """Bandwidth of such interfaces over that of others."""
    interruptions_per_s: float = 0.0
    """Interruptions of a device by the operating system, independent (Poisson)."""
    interruption_s: float = 0.0
    """Length of one in seconds."""

    def faults(self) -> list[str]:
        """What is wrong with the figures, one sentence each."""
        found = []
        for name in ("speed", "jitter"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                found.append(f"{name} = {value:g} must lie in [0, 1): a standard deviation over the mean")
        for name in ("stragglers", "slow_links"):
            if not 0 <= getattr(self, name) <= 1:
                found.append(f"{name} = {getattr(self, name):g} must lie in [0, 1]: a share of all")
        if not 1 <= self.straggler_slowdown < float("inf"):
            found.append(f"stragglers take {self.straggler_slowdown:g} times as long; write 1 or more")
        if not 0 < self.slow_link_bandwidth <= 1:
            found.append(
                f"slow_links keep {self.slow_link_bandwidth:g} of their bandwidth; write above 0, at most 1"
            )
        load = self.interruptions_per_s * self.interruption_s
        if not (self.interruptions_per_s >= 0 and self.interruption_s >= 0 and load < 1):
            found.append(
                f"noise of {self.interruptions_per_s:g} interruptions/s of {self.interruption_s:g} s must take "
                f"from 0 to less than all of the time"
            )
        return found

    def any_slow_link(self, nodes: int) -> float:
        """Probability that one node or more of a job has a slow interface; 0 where nothing leaves a node."""
        return 0.0 if nodes < 2 else float(-np.expm1(nodes * np.log1p(-min(self.slow_links, 1 - 1e-16))))

    def expected_link_share(self, nodes: int) -> float:
        """Bandwidth of the slowest interface over that of a sound one whose time is the expected one.

        A synchronous step waits for the rings of the slowest node, so it is slow if any node is.
        """
        return 1 / (1 + self.any_slow_link(nodes) * (1 / self.slow_link_bandwidth - 1))


@dataclass(frozen=True, slots=True)
class Mixture:
    """Compute time of one device: normal distributions of `mean` and `spread`, each with a probability [parts]."""

    probability: FloatArray
    mean: FloatArray
    spread: FloatArray

    def below(self, x: FloatArray) -> FloatArray:
        """Probability of a time below each `x`, shape of x [points]."""
        from scipy.special import ndtr

        found = np.zeros(len(x))
        for weight, mean, spread in zip(self.probability, self.mean, self.spread, strict=True):
            found += weight * (ndtr((x - mean) / spread) if spread > 0 else (x >= mean))
        return np.minimum(found, 1.0)

    def expected_maximum(self, ranks: int) -> float:
        """E[slowest of `ranks` independent devices], the integral of 1 - F(x)^n by the midpoint rule.

        Exact for parts without spread; for one normal within 1e-5 of its spread of `Jitter.expected_maximum`.

        Raises:
            ValueError: fewer than one rank.
        """
        if ranks < 1:
            raise ValueError(f"a maximum needs one rank or more, got {ranks}")
        steps = np.linspace(-_REACH, _REACH, 361)
        edges = np.unique((self.mean[:, None] + self.spread[:, None] * steps).ravel())
        middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
        return float(edges[-1] - (self.below(middle) ** ranks * width).sum())

    def quantile(self, probability: FloatArray) -> FloatArray:
        """Time below which a share `probability` of devices lies, by bisection, shape of `probability` [draws]."""
        low = np.full(len(probability), (self.mean - _REACH * self.spread).min())
        high = np.full(len(probability), (self.mean + _REACH * self.spread).max())
        for _ in range(60):
            middle = (low + high) / 2
            enough = self.below(middle) >= probability
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        return high


def compute_mixture(variability: Variability, speed: float, jitter: float, step_s: float) -> Mixture:
    """Time of compute of one device in a step of `step_s` seconds; `speed`, `jitter`: spreads in force.

    Speed and jitter are independent normals; stragglers take longer by a factor; each interruption adds its length.
    """
    own = sqrt(speed**2 + jitter**2)
    number, lost, loose = _interruptions(variability, step_s)
    parts = [
        (share * chance, factor + delay, sqrt((factor * own) ** 2 + loose**2))
        for share, factor in (
            (1 - variability.stragglers, 1.0),
            (variability.stragglers, variability.straggler_slowdown),
        )
        if share > 0
        for chance, delay in zip(number, lost, strict=True)
    ]
    probability, mean, spread = (np.array(column, np.float64) for column in zip(*parts, strict=True))
    return Mixture(probability / probability.sum(), mean, spread)


def _interruptions(variability: Variability, step_s: float) -> tuple[FloatArray, FloatArray, float]:
    """Probabilities of what interruptions add to a step, what they add over the step, and its spread besides."""
    expected, length = variability.interruptions_per_s * step_s, variability.interruption_s
    if expected == 0 or length == 0:
        return np.ones(1), np.zeros(1), 0.0
    if expected > _MOST_INTERRUPTIONS:
        return np.ones(1), np.array([expected * length / step_s]), sqrt(expected) * length / step_s
    most = int(expected + 12 * sqrt(expected)) + 20
    chance = [exp(k * log(expected) - expected - lgamma(k + 1)) for k in range(most)]
    delay = [k * length / step_s for k in range(most)]
    return np.array(chance), np.array(delay), 0.0


def variability_text(variability: Variability) -> str:
    """What is supposed, in words; empty for nothing."""
    found = [
        f"{what} by {100 * value:g} %"
        for what, value in (
            ("speeds of devices differ", variability.speed),
            ("steps of a device", variability.jitter),
        )
        if value is not None
    ]
    if variability.stragglers:
        found.append(
            f"{100 * variability.stragglers:g} % of devices take {variability.straggler_slowdown:g} times as long"
        )
    if variability.slow_links:
        kept = 100 * variability.slow_link_bandwidth
        found.append(f"interfaces of {100 * variability.slow_links:g} % of nodes keep {kept:g} %")
    if variability.interruptions_per_s:
        length = format_quantity(variability.interruption_s, "seconds")
        found.append(f"{variability.interruptions_per_s:g} interruptions/s of {length}")
    return "; ".join(found)


def variability_to_mapping(variability: Variability) -> dict[str, Any]:
    """The same as plain data, fields by name."""
    return {name: getattr(variability, name) for name in Variability.__slots__}
