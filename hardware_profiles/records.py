"""Plain records of what machines are. SI units: bytes, seconds, FLOP/s, watts.

A figure that no source gives is None here and `unknown` in the YAML; `known` is how code that needs it asks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from towtank.hardware_profiles.errors import UnknownFigure

if TYPE_CHECKING:
    from towtank.hardware_profiles.calibrated.records import Calibration

Provenance = Literal["specification", "measurement", "calibration", "recalled"]
"""`recalled`: a figure that circulates but was not read at a source for this profile."""

Fabric = Literal["switch", "mesh", "hierarchy", "pcie"]
"""How the devices of a node are joined: all at full rate, in pairs, by unequal links, or through the host."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a figure was read."""

    text: str
    provenance: Provenance


class Sourced(Protocol):
    """A record with a name and a source for each of its figures."""

    @property
    def name(self) -> str:
        """Name of the profile."""

    @property
    def sources(self) -> Mapping[str, Source]:
        """Source of each figure, by field name (dotted for entries of a mapping)."""


@dataclass(frozen=True, slots=True)
class Device:
    """One schedulable accelerator: a GPU, one GCD of an MI250X, one tile of a Max 1550, one TPU chip."""

    name: str
    description: str
    unit: str
    vendor: str
    architecture: str
    peak_flop_per_s: Mapping[str, float]
    """Dense peak by precision: fp32, tf32, fp16, bf16, fp8, mxfp8, nvfp4. No key: the device lacks it."""
    memory_capacity_bytes: float | None
    memory_bandwidth_bytes_per_s: float | None
    multiprocessors: int | None
    tdp_w: float | None
    idle_w: float | None
    measured_as: str
    """Name of the device whose measured curves give the shape dependence: its own where it was measured."""
    sustained_fraction: float | None
    """Sustained rate of matrix multiplies over the rate of short bursts in the measured tables."""
    sources: Mapping[str, Source]
    achievable_flop_per_s: Mapping[str, float] = field(default_factory=dict)
    """Best matrix-multiply rate that was measured and sustained, by precision; empty where unmeasured."""
    kernel_queues: int | None = None
    """Hardware queues whose kernels run side by side. With 1 the kernels of collectives and those of compute take
    turns; None: enough of them that collectives run beside compute."""

    @property
    def takes_turns(self) -> bool:
        """Whether a collective and compute cannot run at the same time."""
        return self.kernel_queues == 1

    def __hash__(self) -> int:
        """Hash of the name: mappings inside have none, and namesakes are rare within one process."""
        return hash(self.name)


@dataclass(frozen=True, slots=True)
class Node:
    """One host and the links between its devices. Bandwidths are per direction."""

    devices: int
    fabric: Fabric
    pair_bandwidth_max_bytes_per_s: float | None
    pair_bandwidth_min_bytes_per_s: float | None
    device_bandwidth_bytes_per_s: float | None
    """All links of one device to the others of its node together."""
    latency_s: float | None
    """Time of one step of a ring inside the node at vanishing message size, by the protocol of large messages
    (Simple of NCCL), which reaches the full bandwidth."""
    nics: int
    nic_bandwidth_bytes_per_s: float | None
    injection_bytes_per_s: float | None
    """What one node can send into the network."""
    latency_ll128_s: float | None = None
    """The same by LL128 of NCCL, which carries 120 of 128 bytes; None: unknown or not offered."""
    staged_bandwidth_bytes_per_s: float | None = None
    """Bus bandwidth of groups of an odd number of devices where the collective library passes their data through
    host memory; None: it treats them like others."""
    collective_bandwidth_bytes_per_s: float | None = None
    """Bus bandwidth that collectives reach among more devices than a pair of a hierarchy, where the library uses
    several links at once; None: that of the slowest pair."""
    tensor_bandwidth_bytes_per_s: float | None = None
    """Bus bandwidth of tensor-parallel collectives where software keeps them below the links, whatever the links;
    None: it does not."""
    measured_link_factor: float = 1.0
    """Bandwidth of the links over that of the node whose collectives were measured; not 1 only where somebody asks
    what faster links would do."""
    measured_latency_factor: float = 1.0
    """The same for the time of a collective at vanishing message size."""


@dataclass(frozen=True, slots=True)
class Network:
    """The network between nodes."""

    technology: str
    topology: Literal["dragonfly", "dragonfly+", "fat-tree", "rail-fat-tree", "torus", "unknown"]
    group_nodes: int | None
    """Nodes of one dragonfly group, scalable unit or island."""
    groups: int | None
    taper: float | None
    """Bandwidth between groups over injection bandwidth; 1 is full bisection."""
    latency_s: float | None
    """Time of one step of a ring between nodes at vanishing message size, by the same protocol."""
    efficiency: float | None
    """Largest bus bandwidth that collectives reach, over the injection bandwidth."""
    latency_ll128_s: float | None = None
    """The same step by the protocol LL128 of NCCL; None: unknown or not offered."""
    group_crossing: float | None = None
    """Rate of collectives whose ring leaves a group, beside other jobs, over the rate within one; None: not measured,
    and no loss is assumed."""
    group_switches: int | None = None
    """Switches of a group to which devices' interfaces are attached; None: unknown."""
    group_links: int | None = None
    """Cables, each at the rate of one interface, between every two groups; None: unknown."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A whole system, or a generic cluster sized by the user (`num_nodes` from `name:nodes=64`)."""

    name: str
    description: str
    site: str
    device: Device
    num_nodes: int | None
    node: Node
    network: Network
    power_usage_effectiveness: float | None
    system_power_w: float | None
    price_per_device_hour_usd: float | None
    measured_bus_bandwidth_bytes_per_s: Mapping[tuple[int, int], float]
    """Measured all-reduce bus bandwidth of large messages by (product of the inner group sizes, own size),
    with all sibling groups active; empty where nobody published it."""
    sources: Mapping[str, Source]
    speed_spread: float | None = None
    """Standard deviation over devices of the time that each takes for the same compute, over the mean; lasting.
    None: unknown, or contained in a rate of the device that was fitted to runs on this machine."""
    step_jitter: float | None = None
    """The same from step to step on one device."""
    calibration: "Calibration | None" = None
    """Measurements of kernels and collectives on this very machine, which then come before all models."""

    def __hash__(self) -> int:
        """Hash of the name: mappings inside have none, and namesakes are rare within one process."""
        return hash(self.name)

    @property
    def num_devices(self) -> int | None:
        """Devices of the whole machine; None for a generic cluster without a size."""
        return None if self.num_nodes is None else self.num_nodes * self.node.devices


CHOSEN = "chosen in the reference"
"""First words of the source of a figure that the user has set, such as `frontier:taper=0.5`."""


def chosen(record: Sourced, field: str) -> bool:
    """Whether the user has set that figure in the reference to the machine."""
    source = record.sources.get(field)
    return source is not None and source.text.startswith(CHOSEN)


def known(record: Sourced, field: str, value: float | None, *, needed_for: str) -> float:
    """Return `value`, or raise `UnknownFigure` naming the field and what needs it."""
    if value is None:
        raise UnknownFigure(
            f"{record.name}: {field} is unknown and {needed_for} needs it; "
            f"write the figure with its source into a private profile (--profiles DIR)"
        )
    return value
