"""Waiting for the slowest: a synchronous step goes at the pace of the slowest of its devices.

Devices of one kind differ in speed, for good (silicon, cooling) and from step to step (clocks, operating system). The
step that is put on the clock is that of the slowest device; the breakdown is of an average one, which waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from towtank.hardware_profiles.records import Machine

if TYPE_CHECKING:
    from towtank.simulator.network.jitter import Jitter
    from towtank.simulator.network.variability import Mixture, Variability

WAITING = "waiting for the slowest"
"""Row of the breakdown."""

_NOT_COMPUTE = ("exposed ", "waiting ")
"""How rows begin in which a device does not compute. Bubbles and idle time are waits for the compute of others."""


def compute_jitter(machine: Machine) -> Jitter | None:
    """Spread of compute between two waits of all devices; None where nobody measured it on this machine.

    What lasts and what changes from step to step are independent: their variances add.
    """
    if machine.speed_spread is None and machine.step_jitter is None:
        return None
    from towtank.simulator.network.jitter import Jitter, combined

    lasting, changing = (
        Jitter("normal", machine.speed_spread or 0.0),
        Jitter("normal", machine.step_jitter or 0.0),
    )
    return combined(lasting, changing)


def compute_times(
    machine: Machine, variability: Variability | None = None, step_s: float = 0.0
) -> Jitter | Mixture | None:
    """Distribution of a device's compute time over that of an undisturbed one; None where nothing is known.

    `variability` goes before the profile's figures; its interruptions count where `step_s`, the length of the step in
    seconds without them, is given.
    """
    if variability is None:
        return compute_jitter(machine)
    from towtank.simulator.network.variability import compute_mixture

    speed = machine.speed_spread if variability.speed is None else variability.speed
    jitter = machine.step_jitter if variability.jitter is None else variability.jitter
    return compute_mixture(variability, speed or 0.0, jitter or 0.0, step_s)


def slowest(
    machine: Machine, devices: int, variability: Variability | None = None, step_s: float = 0.0
) -> float:
    """Expected time of compute on the slowest of so many devices over that on an undisturbed one; 1 or more."""
    times = compute_times(machine, variability, step_s)
    return 1.0 if times is None else times.expected_maximum(devices)


def with_waiting(parts: Mapping[str, float], factor: float) -> dict[str, float]:
    """The breakdown of an average device, from that of one which computes `factor` times as long."""
    if factor == 1.0:
        return dict(parts)
    result, waiting = {}, 0.0
    for name, seconds in parts.items():
        own = seconds if name.startswith(_NOT_COMPUTE) else seconds / factor
        result[name] = own
        waiting += seconds - own
    return {**result, WAITING: waiting}


def slowest_samples(jitter: Jitter | Mixture, devices: int, draws: int, seed: int = 0) -> NDArray[np.float64]:
    """Time of compute on the slowest device over the mean in each of `draws` steps, shape [draws].

    The maximum of n independent durations has the distribution F^n: one uniform number u gives it as Q(u^(1/n)).
    """
    uniform = np.random.default_rng(seed).uniform(size=draws)
    return jitter.quantile(uniform ** (1 / devices))
