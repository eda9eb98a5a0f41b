"""The library of a machine and the costs of its collectives: blocks of libraries.yaml in proportion to the profile.

matching.yaml says which block stands for what, and at which latency and efficiency.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import yaml

from towtank.hardware_profiles.errors import UnknownFigure
from towtank.hardware_profiles.records import Machine, known
from towtank.simulator.network.libraries import (
    FabricCost,
    Library,
    NetworkCost,
    Nvls,
    fabric_cost,
    library,
    network_cost,
)

_NEEDED = "the time of collectives"
Key = TypeVar("Key", bound=str)


@dataclass(frozen=True, slots=True)
class Scale:
    """Factors on a block: on all its latencies, and on the part of the bandwidth that it reaches."""

    latency: float = 1.0
    bandwidth: float = 1.0


@lru_cache(maxsize=1)
def _document() -> dict[str, list[dict[str, Any]]]:
    path = Path(__file__).with_name("matching.yaml")
    document: dict[str, list[dict[str, Any]]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


def _entry(section: str, machine: Machine) -> dict[str, Any] | None:
    """The first entry whose words the machine's profile begins with."""
    words = {
        "vendor": machine.device.vendor,
        "architecture": machine.device.architecture,
        "technology": machine.network.technology,
        "joined": machine.node.fabric,
    }
    for entry in _document()[section]:
        if all(words[key].startswith(entry[key]) for key in words if key in entry):
            return entry
    return None


def library_of(machine: Machine, name: str | None = None) -> Library:
    """The collective library `name`, by default the one of the vendor of the machine's devices.

    Raises:
        ValueError: an unknown name.
        UnknownFigure: a vendor whose library is not known.
    """
    if name is not None:
        return library(name)
    entry = _entry("libraries", machine)
    if entry is None:
        raise UnknownFigure(
            f"{machine.name}: no collective library of {machine.device.vendor} is known, and {_NEEDED} needs it; "
            f"take a machine with devices of {', '.join(sorted({e['vendor'] for e in _document()['libraries']}))}"
        )
    return library(entry["library"])


def fabric_cost_of(machine: Machine) -> FabricCost:
    """Costs of the links inside a node, all latencies in proportion to the latency of the profile.

    Raises:
        UnknownFigure: nobody has published what collectives cost over these links.
    """
    entry = _entry("fabrics", machine)
    if entry is None:
        raise UnknownFigure(
            f"{machine.name}: what a collective costs over the links of {machine.device.architecture} inside a node "
            f"is unknown, and {_NEEDED} needs it; known are NVLink 2 to 5, Infinity Fabric, Xe Link and PCIe"
        )
    latency_s = known(machine, "node.latency", machine.node.latency_s, needed_for=_NEEDED)
    return scaled_fabric(fabric_cost(entry["block"]), Scale(latency_s / entry["latency_s"]))


def network_cost_of(machine: Machine) -> NetworkCost:
    """Costs of the network between nodes, steps and reach in proportion to the figures of the profile.

    Raises:
        UnknownFigure: a network without a block, or a profile without its latency or efficiency.
    """
    entry = _entry("networks", machine)
    if entry is None:
        raise UnknownFigure(
            f"{machine.name}: what a collective costs over {machine.network.technology} is unknown, and {_NEEDED} "
            f"needs it; known are {', '.join(dict.fromkeys(e['technology'] for e in _document()['networks']))}"
        )
    latency_s = known(machine, "network.latency", machine.network.latency_s, needed_for=_NEEDED)
    efficiency = known(machine, "network.efficiency", machine.network.efficiency, needed_for=_NEEDED)
    scale = Scale(latency_s / entry["latency_s"], efficiency / entry["efficiency"])
    return scaled_network(network_cost(entry["block"]), scale)


def _times(values: Mapping[Key, float], factor: float) -> dict[Key, float]:
    return {key: value * factor for key, value in values.items()}


def scaled_fabric(cost: FabricCost, scale: Scale) -> FabricCost:
    """`cost` with start and steps times `scale.latency` and reach times `scale.bandwidth`."""
    nvls = cost.nvls
    if nvls is not None:
        nvls = Nvls(nvls.start_s * scale.latency, nvls.reach * scale.bandwidth, nvls.least_devices)
    return replace(
        cost,
        start_s=cost.start_s * scale.latency,
        step_s=_times(cost.step_s, scale.latency),
        reach=_times(cost.reach, scale.bandwidth),
        nvls=nvls,
    )


def scaled_network(cost: NetworkCost, scale: Scale) -> NetworkCost:
    """`cost` with steps times `scale.latency` and reach times `scale.bandwidth`."""
    return NetworkCost(_times(cost.step_s, scale.latency), cost.reach * scale.bandwidth, cost.fill_s)
