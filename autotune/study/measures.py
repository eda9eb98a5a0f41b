"""What a plan is judged by, besides its step time: memory headroom, energy, cost, devices."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.study.records import Measure, StudyError
from towtank.hardware_profiles.errors import UnknownFigure
from towtank.hardware_profiles.nearest import did_you_mean
from towtank.hardware_profiles.records import Machine, known

_NOT_COMPUTE = ("exposed ", "waiting ", "bubble", "idle")
"""Rows of the breakdown in which the compute stream waits, by how they begin."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """What one simulated plan needs and gives."""

    devices: int
    tokens: int
    """Tokens of one step."""
    step_time_s: float
    peak_memory_bytes: float
    """Of the fullest stage, per device."""
    busy_share: float
    """Part of the step in which the compute stream of an average device has work; only energy looks at it."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What the machine's profile does not know and the user does."""

    per_device_hour_usd: float | None = None

    def __post_init__(self) -> None:
        """Check the figures.

        Raises:
            StudyError: a price is negative or no number.
        """
        price = self.per_device_hour_usd
        if price is not None and not 0 <= price < inf:
            raise StudyError(f"price_per_device_hour = {price:g}, but it must be a number of 0 or more")


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a measure is worked out of a simulated plan."""

    measure: Measure
    value: Callable[[Simulated, Machine, Prices], float]
    needs_share: bool = False


def busy_share(breakdown_s: Mapping[str, float]) -> float:
    """Part of the step in which the compute stream of an average device has work."""
    waits = sum(part for name, part in breakdown_s.items() if name.startswith(_NOT_COMPUTE))
    return 1.0 - waits / sum(breakdown_s.values())


def device_energy_j(simulated: Simulated, machine: Machine) -> float:
    """Energy of all devices over one step in joules, without hosts, network and cooling.

    E = devices x T x (P_idle + (P_limit - P_idle) x u), linear in the share u of the time in which a device computes
    (Fan, Weber and Barroso, Power Provisioning for a Warehouse-sized Computer, ISCA'07, section 3), with the power
    limit of the device for full load.

    Raises:
        UnknownFigure: the device's profile lacks `idle` or `tdp`.
    """
    device = machine.device
    idle = known(device, "idle", device.idle_w, needed_for="the measure energy")
    limit = known(device, "tdp", device.tdp_w, needed_for="the measure energy")
    power = idle + (limit - idle) * simulated.busy_share
    return simulated.devices * simulated.step_time_s * power


def step_cost_usd(simulated: Simulated, machine: Machine, prices: Prices) -> float:
    """Price of one step in USD: devices x time x price of a device.

    Raises:
        UnknownFigure: neither the user nor the machine's profile says the price.
    """
    price = prices.per_device_hour_usd
    if price is None:
        price = machine.price_per_device_hour_usd
    if price is None:
        raise UnknownFigure(
            f"{machine.name}: price_per_device_hour is unknown and the measure cost needs it; give "
            "--price-per-device-hour USD, or write the price with its source into a private profile (--profiles DIR)"
        )
    return simulated.devices * simulated.step_time_s / 3600.0 * price


def _headroom(simulated: Simulated, machine: Machine, prices: Prices) -> float:
    capacity = known(
        machine.device,
        "memory_capacity",
        machine.device.memory_capacity_bytes,
        needed_for="the measure headroom",
    )
    return capacity - simulated.peak_memory_bytes


_BILLION = 1e9

_KINDS: Mapping[str, _Kind] = {
    kind.measure.name: kind
    for kind in (
        _Kind(Measure("step_time", "minimize", "s"), lambda found, machine, prices: found.step_time_s),
        _Kind(
            Measure("throughput", "maximize", "tokens/s"),
            lambda found, machine, prices: found.tokens / found.step_time_s,
        ),
        _Kind(Measure("headroom", "maximize", "bytes"), _headroom),
        _Kind(
            Measure("energy", "minimize", "J/token"),
            lambda found, machine, prices: device_energy_j(found, machine) / found.tokens,
            needs_share=True,
        ),
        _Kind(
            Measure("cost", "minimize", "USD/10^9 tokens"),
            lambda found, machine, prices: step_cost_usd(found, machine, prices) / found.tokens * _BILLION,
        ),
        _Kind(Measure("devices", "minimize", "devices"), lambda found, machine, prices: float(found.devices)),
    )
}
MEASURES = tuple(_KINDS)
"""Names of measures."""


def measures_named(names: Sequence[str]) -> tuple[Measure, ...]:
    """The measures of these names.

    Raises:
        StudyError: names that are unknown or given twice, all at once, or none at all.
    """
    faults = [
        f"measure {name} is unknown{did_you_mean(name, MEASURES)} (known: {', '.join(MEASURES)})"
        for name in names
        if name not in _KINDS
    ]
    faults += [f"measure {name} is given twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    if not names:
        faults.append(f"no measure is given (known: {', '.join(MEASURES)})")
    if faults:
        raise StudyError(*faults)
    return tuple(_KINDS[name].measure for name in names)


def values_of(
    measures: Sequence[Measure], simulated: Simulated, machine: Machine, prices: Prices
) -> tuple[float, ...]:
    """One figure for each measure, in its unit.

    Raises:
        UnknownFigure: the machine's profile lacks a figure that a measure needs.
    """
    return tuple(_KINDS[measure.name].value(simulated, machine, prices) for measure in measures)


def need_busy_share(measures: Sequence[Measure]) -> bool:
    """Whether any of the measures looks at how much of the time devices compute."""
    return any(_KINDS[measure.name].needs_share for measure in measures)


def optimistic_values(
    measures: Sequence[Measure],
    machine: Machine,
    prices: Prices,
    *,
    devices: int,
    tokens: int,
    bound_s: NDArray[np.float64],
    memory_bytes: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Figures that plans cannot beat, from lower bounds of their step times and their peak memory.

    A step that takes as long as its bound, on devices that wait all the time. Shape [plans, measures].
    """
    best: Any = Simulated(devices, tokens, bound_s, memory_bytes, 0.0)  # type: ignore[arg-type]  # arrays for numbers
    columns = values_of(measures, best, machine, prices)
    return np.stack([np.broadcast_to(column, bound_s.shape) for column in columns], axis=-1)


def check_known(measures: Sequence[Measure], machine: Machine, prices: Prices) -> None:
    """Check that the machine's profile says what the measures need, before anything is simulated.

    Raises:
        UnknownFigure: it does not; the message names the field.
    """
    values_of(measures, Simulated(1, 1, 1.0, 0.0, 0.0), machine, prices)
