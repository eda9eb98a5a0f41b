"""What a benchmark of collectives would print on a machine: groups on its links, and the time of one collective.

Interfaces, switches and cables come from the topology and the placement of the job, with all sibling groups at work;
latencies, protocols and the reached part of the bandwidth from the library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from towtank.hardware_profiles.records import Machine
from towtank.simulator.network.collectives import Choice, Group, Links, bus_bandwidth, choose
from towtank.simulator.network.job import JobNetwork, adapted_rings, contention
from towtank.simulator.network.libraries import Collective, FabricCost, Library
from towtank.simulator.network.machine import interconnect, node_fabric
from towtank.simulator.network.matching import (
    Scale,
    fabric_cost_of,
    library_of,
    network_cost_of,
    scaled_fabric,
    scaled_network,
)
from towtank.simulator.network.placement import Placed, place_nodes
from towtank.simulator.network.routes import IntArray, Routes, from_entries
from towtank.simulator.network.surroundings import LinkKind, Surroundings, check_groups

Limit = Literal["links inside the node", "interface", "local links", "global links"]

_LIMITS: dict[str, Limit] = {
    "injection": "interface",
    "ejection": "interface",
    "up": "interface",
    "down": "interface",
    "local": "local links",
    "leaf up": "local links",
    "leaf down": "local links",
    "global": "global links",
    "unit up": "global links",
    "unit down": "global links",
}
"""Tiers of topologies in the words of a user."""


class JobError(ValueError):
    """Groups or a job that do not fit a machine's nodes; the message says why."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Groups on links: what one finds alone, and what each finds while all of them run."""

    machine: Machine
    nodes: int
    num_groups: int
    stride: int
    alone: Group
    together: Group
    links: Links
    library: Library
    outer_limit: Limit | None
    """What holds back the traffic between nodes; None for groups inside nodes."""
    detour_share: float
    """Share of the traffic that adaptive routing sends on detours."""
    around: Surroundings = field(default_factory=Surroundings)
    """Placement, and what other jobs take of the links."""

    def choice(self, collective: Collective, num_bytes: float, group: Group | None = None) -> Choice:
        """What the library runs for the whole array of `num_bytes`, by default with all groups at work."""
        return choose(collective, num_bytes, group or self.together, self.links, self.library)

    def answer(self, collective: Collective, num_bytes: float) -> Answer:
        """The collective with all groups at work, beside one of them alone."""
        choice = self.choice(collective, num_bytes)
        least = self.choice(collective, 1.0).time_s
        return Answer(
            collective,
            num_bytes,
            choice,
            self.choice(collective, num_bytes, self.alone).time_s,
            bus_bandwidth(collective, num_bytes, self.together.size, choice.time_s) if choice.time_s else 0.0,
            self.limit(collective),
            min(1.0, least / choice.time_s) if choice.time_s else 0.0,
        )

    def limit(self, collective: Collective) -> Limit:
        """Which links hold large messages back while all groups run."""
        inside = self.together.inside_bytes_per_s * self.links.fabric.reach[collective]
        outer = self.together.between_bytes_per_s
        return self.outer_limit if self.outer_limit and outer <= inside else "links inside the node"

    def scaled(self, scale: Scale) -> Setting:
        """A setting with other latencies and bandwidths: of the network where groups leave their node, else inside.

        Bandwidth of the network is scaled as a whole: right where the interface limits.
        """
        if self.links.network is None:
            return replace(self, links=Links(scaled_fabric(self.links.fabric, scale)))
        network = scaled_network(self.links.network, Scale(scale.latency))
        groups = [
            replace(group, between_bytes_per_s=group.between_bytes_per_s * scale.bandwidth)
            for group in (self.alone, self.together)
        ]
        return replace(self, alone=groups[0], together=groups[1], links=Links(self.links.fabric, network))


@dataclass(frozen=True, slots=True)
class Answer:
    """One collective; bandwidths are those that nccl-tests prints, in bytes/s."""

    collective: Collective
    num_bytes: float
    choice: Choice
    alone_s: float
    bus_bytes_per_s: float
    limit: Limit
    latency_share: float
    """Time of a message of one byte over that of this one: how much of it is latency."""

    @property
    def time_s(self) -> float:
        """Seconds with all groups at work."""
        return self.choice.time_s

    @property
    def algorithm_bytes_per_s(self) -> float:
        """Bytes of the whole array over time."""
        return self.num_bytes / self.time_s if self.time_s else 0.0

    @property
    def bound(self) -> Limit | Literal["latency"]:
        """What decides the time: latency where it is half of it or more, else the links."""
        return "latency" if self.latency_share >= 0.5 else self.limit

    @property
    def contention(self) -> float:
        """Time with all groups at work over that of one alone; 1 or more."""
        return self.time_s / self.alone_s if self.alone_s else 1.0


def setting(
    machine: Machine,
    nodes: int,
    members: IntArray,
    placed: Placed | None = None,
    *,
    taper: float | None = None,
    library_name: str | None = None,
    background: Mapping[LinkKind, float] | None = None,
    detours: float | None = None,
) -> Setting:
    """Lay groups with `members` [groups, size] (devices of the job in ring order) on `nodes` nodes of `machine`.

    `background`: share of the capacity that other jobs take, by kind of link. `detours`: share of the traffic that is
    not routed minimally; None: the one at which adaptive routing settles.

    Raises:
        UnknownFigure: the profile lacks what the topology or the library needs.
        JobError: groups that do not lie evenly on nodes, or a job that does not fit.
        ValueError: an unknown library.
    """
    around = Surroundings(placed or Placed(), background or {})
    library = library_of(machine, library_name)
    devices = machine.node.devices
    spans = _nodes_spanned(members, devices)
    ports = node_fabric(machine)
    network_cost = network_cost_of(machine) if spans > 1 else None
    local = members.reshape(-1, members.shape[1] // spans) % devices
    where = _lie(around.placed, nodes, machine.num_nodes or nodes)
    if spans > 1 and (around.busy("global") or around.busy("local")):
        check_groups(machine, "background traffic")
    reach = network_cost.reach if network_cost else 1.0
    net = interconnect(machine, nodes, taper=_taper(machine, taper, spans, where), efficiency=reach)
    job = JobNetwork(net, ports, where, busy=around.busy_tiers(net.topology.tiers))
    inside = _inside(job, members, spans)
    outside = (
        _outside(job, members, detours) if spans > 1 else _Outside(float("inf"), float("inf"), None, 0.0)
    )
    port = float(ports.capacity_bytes_per_s[0]) if ports.name == "switch" else 0.0
    pairs = zip(inside, (outside.alone, outside.together), strict=True)
    alone, together = (Group(members.shape[1], spans, inner, outer, port) for inner, outer in pairs)
    links = Links(
        _measured(machine, fabric_cost_of(machine), local, inside[1], port),
        None if network_cost is None else replace(network_cost, reach=1.0),  # the interfaces have it already
    )
    stride = int(members[0, 1] - members[0, 0]) if members.shape[1] > 1 else 1
    found = (library, outside.limit, outside.detours, around)
    return Setting(machine, nodes, len(members), stride, alone, together, links, *found)


def _lie(placed: Placed, nodes: int, machine_nodes: int) -> IntArray:
    """Node of the machine for each node of the job."""
    try:
        return place_nodes(placed.kind, nodes, machine_nodes, fill=placed.fill, seed=placed.seed)
    except ValueError as error:
        raise JobError(
            f"{error}; take fewer nodes, a lower fill or a larger machine (NAME:nodes=NUMBER sizes a generic one)"
        ) from error


def _taper(machine: Machine, given: float | None, spans: int, where: IntArray) -> float | None:
    """The taper in place of the profile's: any does where it is unknown and no traffic leaves a group."""
    inner = spans == 1 or _one_group(machine, where)
    return 1.0 if given is None and machine.network.taper is None and inner else given


def _one_group(machine: Machine, where: IntArray) -> bool:
    """Whether the nodes of a job lie in one group of the network."""
    group_nodes = machine.network.group_nodes
    return group_nodes is None or len(np.unique(where // group_nodes)) == 1


def _nodes_spanned(members: IntArray, devices: int) -> int:
    """Nodes of each group.

    Raises:
        JobError: groups with more members on one node than on another.
    """
    node = members // devices
    counts = {tuple(np.unique(row, return_counts=True)[1].tolist()) for row in node}
    if len(counts) != 1 or len(set(next(iter(counts)))) != 1:
        raise JobError(
            f"groups of {members.shape[1]} do not lie evenly on nodes of {devices} devices; take a size and a "
            f"distance that divide a node or are multiples of it"
        )
    return len(next(iter(counts)))


def _inside(job: JobNetwork, members: IntArray, spans: int) -> tuple[float, float]:
    """Bus bandwidth of closed rings of the members on one node: alone, and with those of all groups."""
    size = members.shape[1] // spans
    if size == 1:
        return float("inf"), float("inf")
    found = contention(job, [job.rings(members.reshape(-1, size))])
    return float(found.alone_bytes_per_s.min()), float(found.together_bytes_per_s.min())


@dataclass(frozen=True, slots=True)
class _Outside:
    alone: float
    together: float
    limit: Limit | None
    detours: float


def _outside(job: JobNetwork, members: IntArray, share: float | None) -> _Outside:
    """Bus bandwidth of rings between nodes, what limits it, and the share of detours, by default of adaptive routing.

    Raises:
        JobError: a share of detours where the network has none.
    """
    topology = job.interconnect.topology
    if share and topology.nonminimal is None:
        raise JobError(f"the {topology.name} between these nodes has minimal routes only; leave detours out")
    job = replace(job, nonminimal_share=share or 0.0)
    direct = _between(job, job.rings(members))
    rings, detours = adapted_rings(job, members) if share is None else (job.rings(members), share)
    found = contention(job, [_between(job, rings)])
    alone = max(
        float(contention(job, [direct]).alone_bytes_per_s.min()), float(found.alone_bytes_per_s.min())
    )
    together = float(found.together_bytes_per_s.min())
    return _Outside(alone, together, _LIMITS[found.limiting_tier], detours)


def _between(job: JobNetwork, rings: Routes) -> Routes:
    """The part of the rings that runs on the interconnect."""
    outer = rings.link < job.interconnect.topology.num_links
    return from_entries(rings.num_flows, rings.flow[outer], rings.link[outer], rings.share[outer])


def _measured(
    machine: Machine, cost: FabricCost, local: IntArray, width_bytes_per_s: float, port: float
) -> FabricCost:
    """`cost` with the bus bandwidth that the profile has measured for groups inside a node, where it has one.

    It was measured by all-reduce with all groups at work; the other collectives follow in proportion.
    """
    if port == 0.0:
        cost = replace(cost, nvls=None)
    size = local.shape[1]
    inner = int(local[0, 1] - local[0, 0]) if size > 1 else 1
    measured = machine.measured_bus_bandwidth_bytes_per_s.get((inner, size), _of_node(machine, size, inner))
    if measured is None or size == 1:
        return cost
    return scaled_fabric(cost, Scale(1.0, measured / (width_bytes_per_s * cost.reach["all_reduce"])))


def _of_node(machine: Machine, size: int, inner: int) -> float | None:
    """Bus bandwidth in bytes/s that collectives reach among `size` devices of a node, where the profile tells it."""
    node = machine.node
    if node.staged_bandwidth_bytes_per_s is not None and size % 2:
        return node.staged_bandwidth_bytes_per_s
    return None if size == 2 and inner == 1 else node.collective_bandwidth_bytes_per_s
