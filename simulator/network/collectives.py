"""Time of collectives by algorithm and protocol, and the choice among them as libraries make it.

A message is the whole array (nccl-tests): what all-gather ends and reduce-scatter begins with on each device. A
call costs a start, its steps one after the other, and its bytes through a pipeline of chunks. The pipeline of m
bytes over bandwidth B that takes f seconds to fill needs (sqrt(m / B) + sqrt(f))^2 at the best chunk size; f itself
is part of the start and the steps. Steps: Thakur, Rabenseifner and Gropp, IJHPCA 19(1), 2005, sections 3 and 4;
double binary tree: Sanders, Speck and Träff, Parallel Computing 35(12), 2009; hierarchical: PCCL, arXiv 2504.18658.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2, sqrt

from towtank.hardware_profiles.curves.collectives import bus_factor
from towtank.simulator.network.libraries import (
    PROTOCOLS,
    Algorithm,
    Collective,
    FabricCost,
    Library,
    NetworkCost,
    Protocol,
)


@dataclass(frozen=True, slots=True)
class Group:
    """A group of devices and the widths that it finds, in bytes/s, contention with others included.

    `inside_bytes_per_s` is what a ring of its members on one node gets from the links, `between_bytes_per_s` what
    one ring through all its nodes gets from the network, `port_bytes_per_s` all links of one device (NVLS).
    """

    size: int
    nodes: int
    inside_bytes_per_s: float
    between_bytes_per_s: float = float("inf")
    port_bytes_per_s: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= self.size or self.size % self.nodes:
            raise ValueError(f"a group of {self.size} does not lie evenly on {self.nodes} nodes")

    @property
    def local(self) -> int:
        """Members on one node."""
        return self.size // self.nodes


@dataclass(frozen=True, slots=True)
class Links:
    """Costs of the links that a group runs over; `network` is needed where it leaves its node."""

    fabric: FabricCost
    network: NetworkCost | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What a library would run, and its time."""

    algorithm: Algorithm
    protocol: Protocol
    time_s: float


def pipelined(num_bytes: float, bytes_per_s: float, fill_s: float) -> float:
    """Seconds of `num_bytes` through a pipeline, beyond the latency of its steps."""
    flow_s = num_bytes / bytes_per_s
    return flow_s + 2 * sqrt(fill_s * flow_s)


def rounds(collective: Collective) -> int:
    """Passes over the array: an all-reduce is a reduce-scatter and an all-gather."""
    return 2 if collective == "all_reduce" else 1


def _rate(collective: Collective, group: Group, links: Links, protocol: Protocol) -> float:
    """Bus bandwidth in bytes/s of a ring through the whole group."""
    inside = group.inside_bytes_per_s * links.fabric.reach[collective] if group.local > 1 else float("inf")
    if group.nodes == 1:
        return inside * links.fabric.payload[protocol]
    between = group.between_bytes_per_s * _network(links).reach
    return min(inside, between) * links.fabric.payload[protocol]


def _network(links: Links) -> NetworkCost:
    if links.network is None:
        raise ValueError("a group on several nodes needs the costs of the network between them")
    return links.network


def _fill(group: Group, links: Links) -> float:
    """Seconds to fill the pipeline; between nodes chunks wait for the network as well."""
    return links.fabric.fill_s if group.nodes == 1 else _network(links).fill_s


def _fill_of(protocol: Protocol, group: Group, links: Links) -> float:
    """LL sends words, not chunks; chunks of LL128 are a quarter of those of Simple in time to fill."""
    return {"ll": 0.0, "ll128": 0.25, "simple": 1.0}[protocol] * _fill(group, links)


def _latency(inside: float, between: float, links: Links, protocol: Protocol) -> float:
    """Seconds of steps inside and between nodes."""
    outer = between * _network(links).step_s[protocol] if between else 0.0
    return inside * links.fabric.step_s[protocol] + outer


def ring(collective: Collective, num_bytes: float, group: Group, links: Links, protocol: Protocol) -> float:
    """size - 1 steps, of which nodes - 1 cross nodes; twice that for all-reduce."""
    crossing = group.nodes - 1
    latency = rounds(collective) * _latency(group.size - 1 - crossing, crossing, links, protocol)
    moved = bus_factor(collective, group.size) * num_bytes
    rate = _rate(collective, group, links, protocol)
    return links.fabric.start_s + latency + pipelined(moved, rate, _fill_of(protocol, group, links))


def tree(collective: Collective, num_bytes: float, group: Group, links: Links, protocol: Protocol) -> float:
    """Double binary tree over nodes with chains inside; each link carries the array once up and once down.

    Raises:
        ValueError: any other collective than all-reduce.
    """
    if collective != "all_reduce":
        raise ValueError(f"a double binary tree reduces and broadcasts; {collective} has no such form")
    depth = ceil(log2(group.nodes)) if group.nodes > 1 else 0
    latency = 2 * _latency(group.local - 1, depth, links, protocol)
    rate = _rate(collective, group, links, protocol)
    return links.fabric.start_s + latency + pipelined(2 * num_bytes, rate, _fill_of(protocol, group, links))


def recursive(
    collective: Collective, num_bytes: float, group: Group, links: Links, protocol: Protocol
) -> float:
    """Halving and doubling: log2(size) steps that together move the ring's bytes, each waiting for the last.

    Steps are not chunked, so there is no pipeline to fill.
    """
    inside = ceil(log2(group.local)) if group.local > 1 else 0
    between = ceil(log2(group.nodes)) if group.nodes > 1 else 0
    latency = rounds(collective) * _latency(inside, between, links, protocol)
    moved = bus_factor(collective, group.size) * num_bytes
    # each member exchanges with a partner of its own: a node's members share what one ring would have
    share = group.between_bytes_per_s / group.local if group.nodes > 1 else float("inf")
    outer = bus_factor("all_gather", group.nodes) * num_bytes / group.local if group.nodes > 1 else 0.0
    rate = _rate(collective, group, links, protocol)
    if group.nodes == 1:
        return links.fabric.start_s + latency + moved / rate
    payload = links.fabric.payload[protocol]
    inner = bus_factor("all_gather", group.local) * num_bytes if group.local > 1 else 0.0
    inner_s = inner / (group.inside_bytes_per_s * links.fabric.reach[collective] * payload)
    outer_s = outer / (share * _network(links).reach * payload)
    return links.fabric.start_s + latency + rounds(collective) * (inner_s + outer_s)


def hierarchical(
    collective: Collective, num_bytes: float, group: Group, links: Links, protocol: Protocol
) -> float:
    """Inside the nodes by a ring, between them by recursive steps on 1/local of the array, members at once."""
    if group.nodes == 1 or group.local == 1:
        return recursive(collective, num_bytes, group, links, protocol)
    inside = Group(group.local, 1, group.inside_bytes_per_s)
    between = Group(group.nodes, group.nodes, float("inf"), group.between_bytes_per_s / group.local)
    outer_s = recursive(collective, num_bytes / group.local, between, links, protocol)
    inner_s = ring("all_gather", num_bytes, inside, links, protocol)
    return rounds(collective) * inner_s + outer_s


def phased(collective: Collective, num_bytes: float, group: Group, links: Links, protocol: Protocol) -> float:
    """Rings between the nodes on 1/local of the array, members at once, and a ring inside; one after the other."""
    if group.nodes == 1 or group.local == 1:
        return ring(collective, num_bytes, group, links, protocol)
    inside = Group(group.local, 1, group.inside_bytes_per_s)
    between = Group(group.nodes, group.nodes, float("inf"), group.between_bytes_per_s / group.local)
    outer_s = ring(collective, num_bytes / group.local, between, links, protocol)
    return rounds(collective) * ring("all_gather", num_bytes, inside, links, protocol) + outer_s


def nvls(collective: Collective, num_bytes: float, group: Group, links: Links, protocol: Protocol) -> float:
    """Reduction in the switch: counted in bus bandwidth it may pass the rate of a port.

    Infinite where the switch or the number of members does not allow it.
    """
    unit = links.fabric.nvls
    if unit is None or group.nodes > 1 or group.size < unit.least_devices or protocol != "simple":
        return float("inf")
    moved = bus_factor(collective, group.size) * num_bytes
    return unit.start_s + pipelined(moved, unit.reach * group.port_bytes_per_s, links.fabric.fill_s)


_TIMES = {
    "ring": ring,
    "tree": tree,
    "recursive": recursive,
    "hierarchical": hierarchical,
    "phased": phased,
    "nvls": nvls,
}


def choose(collective: Collective, num_bytes: float, group: Group, links: Links, library: Library) -> Choice:
    """The fastest algorithm and protocol of the library; nothing at all for one device or an empty message."""
    if group.size == 1 or num_bytes <= 0:
        return Choice("ring", "ll", 0.0)
    choices = [
        Choice(algorithm, protocol, _TIMES[algorithm](collective, num_bytes, group, links, protocol))
        for algorithm in library.algorithms[collective]
        if algorithm != "tree" or group.nodes > 1
        for protocol in PROTOCOLS
    ]
    return min(choices, key=lambda choice: choice.time_s)


def bus_bandwidth(collective: Collective, num_bytes: float, size: int, time_s: float) -> float:
    """Bus bandwidth in bytes/s as nccl-tests prints it."""
    return bus_factor(collective, size) * num_bytes / time_s
