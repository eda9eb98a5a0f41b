"""Facts for capacity plans: reliability, charging, limits, storage and carbon, each with its source."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from towtank.autotune.capacity.errors import CapacityError
from towtank.hardware_profiles.files import StrictLoader
from towtank.hardware_profiles.nearest import did_you_mean
from towtank.hardware_profiles.units import parse_quantity
from towtank.simulator.edge import read_record

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class ObservedCause:
    """Interruptions of one cause in an observed job."""

    name: str
    interruptions: int
    scope: Literal["node", "job"]
    """Whether their number grows with the nodes, or whatever the size."""
    breaks_node: bool


@dataclass(frozen=True, slots=True)
class Reliability:
    """How often a long job was stopped."""

    description: str
    nodes: int
    node_devices: int
    days: float
    devices: list[str]
    """Devices by whose name a machine takes these rates by itself."""
    causes: list[ObservedCause]
    source: str


@dataclass(frozen=True, slots=True)
class JobLimit:
    """Longest job from so many nodes on."""

    from_nodes: int
    hours: float


@dataclass(frozen=True, slots=True)
class Site:
    """What is known of the centre of a machine; None: not looked up."""

    unit: str | None = None
    """What is charged, such as node-hour."""
    units_per_node_hour: float | None = None
    limits: list[JobLimit] = field(default_factory=list)
    storage_write: str | None = None
    """Bandwidth at which all nodes together write, as text with a unit."""
    storage_files_per_s: float | None = None
    """Files that the storage creates in a second."""
    carbon_g_per_kwh: float | None = None
    sources: dict[str, str] = field(default_factory=dict)

    def storage_write_bytes_per_s(self) -> float | None:
        """Bandwidth of storage in SI; None: unknown."""
        return None if self.storage_write is None else parse_quantity(self.storage_write, "bytes_per_s")

    def limit_s(self, nodes: int) -> float | None:
        """Longest job of so many nodes in seconds; None: unknown."""
        hours = [limit.hours for limit in self.limits if nodes >= limit.from_nodes]
        return hours[-1] * 3600.0 if hours else None


@cache
def reliabilities() -> Mapping[str, Reliability]:
    """Published reliabilities by name."""
    return _read("reliability.yaml", Reliability)


@cache
def sites() -> Mapping[str, Site]:
    """Centres by the name of their machine."""
    return _read("sites.yaml", Site)


def reliability(name: str) -> Reliability:
    """One reliability by name.

    Raises:
        CapacityError: no such name.
    """
    known = reliabilities()
    if name not in known:
        raise CapacityError(
            [
                f"reliability {name!r} is not known{did_you_mean(name, list(known))} (known: {', '.join(known)})"
            ]
        )
    return known[name]


def reliability_of(device: str) -> str | None:
    """Name of the reliability that was published for a device; None: nobody has."""
    return next((name for name, one in reliabilities().items() if device in one.devices), None)


def site_of(machine: str) -> Site:
    """What is known of a machine's centre; an empty record where nothing is."""
    return sites().get(machine, Site())


def charge_source(machine: str) -> str:
    """Where it was read what the centre of a machine charges."""
    return site_of(machine).sources.get("unit", "")


def _read(name: str, record: type) -> dict[str, Any]:
    document = yaml.load((_FOLDER / name).read_text(encoding="utf-8"), Loader=StrictLoader)
    found = {}
    for key, data in document.items():
        found[key], faults = read_record(record, data)
        if faults:
            raise CapacityError([f"{name}, {key}: {fault}" for fault in faults])
    return found
