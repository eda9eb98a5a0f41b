"""Node-hours, energy, money and carbon of a simulated run."""

from collections.abc import Mapping
from dataclasses import dataclass

from towtank.autotune.capacity.facts import site_of
from towtank.autotune.capacity.request import Charges
from towtank.autotune.capacity.run.records import RunOutcome
from towtank.hardware_profiles.records import Machine

HOUR_S = 3600.0
_COMPUTING = ("training", "fewer nodes", "lost work", "stragglers", "evaluation")
_NOT_HELD = ("queue", "maintenance")


@dataclass(frozen=True, slots=True)
class Power:
    """Power of one device, cooling included; None: unknown."""

    training_w: float | None
    idle_w: float | None
    why_unknown: str = ""

    def all_w(self, training: int, idle: int) -> float | None:
        """Power of so many devices that train and so many that wait; None: unknown."""
        if self.training_w is None or self.idle_w is None:
            return None
        return training * self.training_w + idle * self.idle_w


@dataclass(frozen=True, slots=True)
class Bill:
    """What a run takes; None where a figure that it needs is unknown."""

    device_hours: float
    node_hours: float
    allocation_units: float | None
    unit: str | None
    energy_kwh: float | None
    cost_usd: float | None
    carbon_t: float | None


def device_power(machine: Machine, busy_share: float, charges: Charges) -> Power:
    """Power of a device while training and while not, times the power usage effectiveness.

    P = P_idle + (P_limit - P_idle) u with the share u of the time in which it computes (Fan et al., ISCA'07,
    section 3). Hosts, network and storage are not in it.
    """
    device = machine.device
    effectiveness = charges.power_usage_effectiveness or machine.power_usage_effectiveness
    missing = [
        name
        for name, value in (
            ("idle power", device.idle_w),
            ("power limit", device.tdp_w),
            ("power usage effectiveness", effectiveness),
        )
        if value is None
    ]
    if device.idle_w is None or device.tdp_w is None or effectiveness is None:
        return Power(None, None, f"{' and '.join(missing)} of {machine.name}")
    training = device.idle_w + (device.tdp_w - device.idle_w) * busy_share
    return Power(training * effectiveness, device.idle_w * effectiveness)


def bill(
    outcome: RunOutcome, machine: Machine, devices: int, spare_nodes: int, power: Power, charges: Charges
) -> Bill:
    """What one simulated run takes."""
    nodes = -(-devices // machine.node.devices) + spare_nodes
    node_hours = outcome.allocated_s / HOUR_S * nodes
    device_hours = outcome.allocated_s / HOUR_S * (devices + spare_nodes * machine.node.devices)
    site = site_of(machine.name)
    price = charges.price_per_device_hour_usd
    price = machine.price_per_device_hour_usd if price is None else price
    energy = _energy_kwh(outcome.parts_s, devices, spare_nodes * machine.node.devices, power)
    carbon = charges.carbon_g_per_kwh if charges.carbon_g_per_kwh is not None else site.carbon_g_per_kwh
    return Bill(
        device_hours=device_hours,
        node_hours=node_hours,
        allocation_units=None if site.units_per_node_hour is None else node_hours * site.units_per_node_hour,
        unit=site.unit,
        energy_kwh=energy,
        cost_usd=None if price is None else price * device_hours,
        carbon_t=None if carbon is None or energy is None else energy * carbon / 1e6,
    )


def _energy_kwh(parts_s: Mapping[str, float], devices: int, spare_devices: int, power: Power) -> float | None:
    if power.training_w is None or power.idle_w is None:
        return None
    computing = sum(parts_s.get(part, 0.0) for part in _COMPUTING)
    held = sum(seconds for part, seconds in parts_s.items() if part not in _NOT_HELD)
    joule = devices * (computing * power.training_w + (held - computing) * power.idle_w)
    joule += spare_devices * held * power.idle_w
    return joule / 3.6e6
