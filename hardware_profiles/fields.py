"""What a profile file may say: one table of fields for each kind of file.

`parse.py` reads files by these tables and `json_schema.py` turns them into the JSON Schemas that editors use,
so that there is one statement of each rule.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

from towtank.hardware_profiles.records import Fabric
from towtank.hardware_profiles.units import Dimension

PRECISIONS: Final = ("fp32", "tf32", "fp16", "bf16", "fp8", "mxfp8", "nvfp4")
TOPOLOGIES: Final = ("dragonfly", "dragonfly+", "fat-tree", "rail-fat-tree", "torus", "unknown")

Plain = Literal["count", "fraction", "ratio"]
"""Figures without a unit: a whole number of things; a share in (0, 1]; any positive factor."""


@dataclass(frozen=True, slots=True)
class Text:
    """Free text, or one of `choices`."""

    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with a source; `record` is the field of the record that holds it."""

    dimension: Dimension | Plain
    record: str
    may_be_zero: bool = False
    may_be_unknown: bool = True


@dataclass(frozen=True, slots=True)
class Figures:
    """A mapping of figures by one of `keys`, any of which may be left out."""

    keys: tuple[str, ...]
    dimension: Dimension
    record: str


@dataclass(frozen=True, slots=True)
class Section:
    """Fields under one key, which may start `from` a file of networks/ that joins `joins`."""

    fields: dict[str, "Field"]
    joins: Literal["devices", "nodes"]


@dataclass(frozen=True, slots=True)
class DeviceReference:
    """Name of a device, or a mapping with `from` and the figures that differ on this machine."""


@dataclass(frozen=True, slots=True)
class BandwidthTable:
    """Measured bus bandwidths by (product of inner groups, own size)."""


Field = Text | Figure | Figures | Section | DeviceReference | BandwidthTable

DEVICE: Final[dict[str, Field]] = {
    "description": Text(),
    "unit": Text(),
    "vendor": Text(),
    "architecture": Text(),
    "measured_as": Text(),
    "peak_flop_per_s": Figures(PRECISIONS, "flop_per_s", "peak_flop_per_s"),
    "achievable_flop_per_s": Figures(PRECISIONS, "flop_per_s", "achievable_flop_per_s"),
    "memory_capacity": Figure("bytes", "memory_capacity_bytes"),
    "memory_bandwidth": Figure("bytes_per_s", "memory_bandwidth_bytes_per_s"),
    "multiprocessors": Figure("count", "multiprocessors"),
    "tdp": Figure("watts", "tdp_w"),
    "idle": Figure("watts", "idle_w"),
    "sustained_fraction": Figure("fraction", "sustained_fraction"),
    "kernel_queues": Figure("count", "kernel_queues"),
}

NODE: Final[dict[str, Field]] = {
    "devices": Figure("count", "devices", may_be_unknown=False),
    "fabric": Text(get_args(Fabric)),
    "pair_bandwidth_max": Figure("bytes_per_s", "pair_bandwidth_max_bytes_per_s"),
    "pair_bandwidth_min": Figure("bytes_per_s", "pair_bandwidth_min_bytes_per_s"),
    "device_bandwidth": Figure("bytes_per_s", "device_bandwidth_bytes_per_s"),
    "staged_bandwidth": Figure("bytes_per_s", "staged_bandwidth_bytes_per_s"),
    "collective_bandwidth": Figure("bytes_per_s", "collective_bandwidth_bytes_per_s"),
    "tensor_bandwidth": Figure("bytes_per_s", "tensor_bandwidth_bytes_per_s"),
    "latency": Figure("seconds", "latency_s", may_be_zero=True),
    "latency_ll128": Figure("seconds", "latency_ll128_s", may_be_zero=True),
    "nics": Figure("count", "nics", may_be_zero=True, may_be_unknown=False),
    "nic_bandwidth": Figure("bytes_per_s", "nic_bandwidth_bytes_per_s"),
    "injection": Figure("bytes_per_s", "injection_bytes_per_s"),
}

NETWORK: Final[dict[str, Field]] = {
    "technology": Text(),
    "topology": Text(TOPOLOGIES),
    "group_nodes": Figure("count", "group_nodes"),
    "groups": Figure("count", "groups"),
    "taper": Figure("ratio", "taper"),
    "group_switches": Figure("count", "group_switches"),
    "group_links": Figure("count", "group_links"),
    "latency": Figure("seconds", "latency_s", may_be_zero=True),
    "latency_ll128": Figure("seconds", "latency_ll128_s", may_be_zero=True),
    "efficiency": Figure("fraction", "efficiency"),
    "group_crossing": Figure("fraction", "group_crossing"),
}

MACHINE: Final[dict[str, Field]] = {
    "description": Text(),
    "site": Text(),
    "device": DeviceReference(),
    "nodes": Figure("count", "num_nodes"),
    "speed_spread": Figure("fraction", "speed_spread"),
    "step_jitter": Figure("fraction", "step_jitter"),
    "node": Section(NODE, "devices"),
    "network": Section(NETWORK, "nodes"),
    "power_usage_effectiveness": Figure("ratio", "power_usage_effectiveness"),
    "system_power": Figure("watts", "system_power_w"),
    "price_per_device_hour": Figure("usd_per_hour", "price_per_device_hour_usd", may_be_zero=True),
    "measured_bus_bandwidth": BandwidthTable(),
}

Kind = Literal["devices", "machines", "networks"]
"""Folders of profile files."""

HEADER: Final = ("name", "from", "aliases", "sources")
"""Keys of every file beside its fields. Name, aliases and description are never inherited."""

OPTIONAL: Final = (
    "measured_bus_bandwidth",
    "achievable_flop_per_s",
    "kernel_queues",
    "group_crossing",
    "speed_spread",
    "step_jitter",
    "staged_bandwidth",
    "group_switches",
    "group_links",
    "collective_bandwidth",
    "tensor_bandwidth",
)
"""Fields whose absence means that there is nothing to say, rather than that somebody forgot them."""


def fields_of(kind: Kind, joins: object = None) -> dict[str, Field]:
    """Fields of a file in folder `kind`; one of networks/ says by `joins` which of two sections it fills."""
    if kind == "devices":
        return DEVICE
    if kind == "machines":
        return MACHINE
    section = NODE if joins == "devices" else NETWORK
    return {"description": Text(), "joins": Text(("devices", "nodes")), **section}
