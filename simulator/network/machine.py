"""The network of a machine from its profile: interfaces and switches between nodes, links inside of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from towtank.hardware_profiles.fabrics import links_of_node
from towtank.hardware_profiles.records import Machine, known
from towtank.simulator.network.crossing import known_taper
from towtank.simulator.network.dragonfly import DragonflyShape, dragonfly
from towtank.simulator.network.dragonfly_plus import DragonflyPlusShape, dragonfly_plus
from towtank.simulator.network.fat_tree import RailShape, rail_fat_tree
from towtank.simulator.network.routes import IntArray
from towtank.simulator.network.topology import Topology, host_bridge, linked, mesh, switch

_NEEDED = "the topology of the network"

HOP_LATENCY_S = 0.35e-6
"""One switch: De Sensi and others, "An In-Depth Analysis of the Slingshot Interconnect", SC 2020, report 350 ns for
Rosetta. Latencies of whole messages come from the profile; this one only orders routes."""


@dataclass(frozen=True, slots=True)
class Interconnect:
    """The network between nodes, and at which endpoint each interface of each node lies."""

    topology: Topology
    endpoint: IntArray
    """Shape [nodes, interfaces of a node]."""


def interconnect(
    machine: Machine, num_nodes: int | None = None, *, taper: float | None = None, efficiency: float = 1.0
) -> Interconnect:
    """The interconnect of `machine`, or of its first `num_nodes` nodes where the profile gives no size.

    `taper` (bandwidth out of a group over that of its endpoints) replaces an unknown one. `efficiency` is the part
    of the interfaces' rate that messages reach. Where the switches of a group are unknown, only interfaces and
    links between groups bind.

    Raises:
        UnknownFigure: the profile lacks a figure that the topology needs.
    """
    node, network = machine.node, machine.network
    nodes = machine.num_nodes or num_nodes
    nodes = int(known(machine, "num_nodes", nodes, needed_for=_NEEDED))
    injection = known(machine, "node.injection", node.injection_bytes_per_s, needed_for=_NEEDED)
    nics = max(1, node.nics)
    group_nodes = min(network.group_nodes or nodes, nodes)
    groups = ceil(nodes / group_nodes)
    size = _Size(machine, groups, group_nodes, nics, injection / nics, efficiency, taper)
    if groups == 1 and network.topology in ("dragonfly+", "fat-tree", "torus", "unknown"):
        flat = switch(nodes * nics, size.nic * efficiency, 2 * HOP_LATENCY_S)
        return Interconnect(flat, np.arange(nodes * nics).reshape(nodes, nics))
    if network.topology == "dragonfly":
        return _dragonfly(size, nodes)
    if network.topology == "dragonfly+":
        return _dragonfly_plus(size, nodes)
    if network.topology in ("rail-fat-tree", "fat-tree"):
        return _tree(size, nodes)
    known(machine, "network.topology", None, needed_for=_NEEDED)
    raise AssertionError


@dataclass(frozen=True, slots=True)
class _Size:
    machine: Machine
    groups: int
    group_nodes: int
    nics: int
    nic: float
    efficiency: float
    given_taper: float | None

    def taper(self) -> float:
        """Bandwidth out of a group over that of its endpoints."""
        return known_taper(self.machine, self.given_taper, needed_for=_NEEDED)

    def group_pair(self) -> float:
        """Bytes/s from one group to one other, all cables together; the whole machine shares the taper evenly."""
        links = self.machine.network.group_links
        if links is not None and self.given_taper is None:
            return links * self.nic
        groups = max(self.machine.network.groups or self.groups, self.groups)
        return self.taper() * self.group_nodes * self.nics * self.nic / max(1, groups - 1)


def _dragonfly(size: _Size, nodes: int) -> Interconnect:
    """Interface k of a node lies at switch k of its chassis, a chassis being as many nodes as a switch has ports."""
    switches = size.machine.network.group_switches or size.nics
    per_switch = ceil(size.group_nodes * size.nics / switches)
    pair = size.group_pair() if size.groups > 1 else size.nic
    cables = max(1, round(pair / size.nic))
    shape = DragonflyShape(
        groups=size.groups,
        switches=switches,
        endpoints_per_switch=per_switch,
        cables=min(cables, 8, switches),
        link_bytes_per_s=size.nic,
        endpoint_bytes_per_s=size.nic * size.efficiency,
        group_bytes_per_s=pair,
        local_links=1 if size.machine.network.group_switches else per_switch,
        hop_latency_s=HOP_LATENCY_S,
    )
    node = np.arange(nodes)[:, None]
    group, place = node // size.group_nodes, node % size.group_nodes
    at = (place // per_switch * size.nics + np.arange(size.nics)) % switches
    return Interconnect(dragonfly(shape), (group * switches + at) * per_switch + place % per_switch)


def _dragonfly_plus(size: _Size, nodes: int) -> Interconnect:
    """All interfaces of a node at one leaf, which has half of its ports upward."""
    leaves = size.machine.network.group_switches or 1
    leaf_nodes = ceil(size.group_nodes / leaves)
    shape = DragonflyPlusShape(
        groups=size.groups,
        leaves=leaves,
        endpoints_per_leaf=leaf_nodes * size.nics,
        endpoint_bytes_per_s=size.nic * size.efficiency,
        spine_bytes_per_s=leaf_nodes * size.nics * size.nic,
        group_bytes_per_s=size.group_pair(),
        hop_latency_s=HOP_LATENCY_S,
    )
    node = np.arange(nodes)[:, None]
    leaf = node // size.group_nodes * leaves + node % size.group_nodes // leaf_nodes
    place = node % size.group_nodes % leaf_nodes
    return Interconnect(dragonfly_plus(shape), (leaf * leaf_nodes + place) * size.nics + np.arange(size.nics))


def _tree(size: _Size, nodes: int) -> Interconnect:
    """Units of nodes; a fat tree without rails is one whose leaves hold all interfaces of a unit."""
    rails = size.nics if size.machine.network.topology == "rail-fat-tree" else 1
    shape = RailShape(
        units=size.groups,
        unit_nodes=size.group_nodes * size.nics // rails,
        rails=rails,
        endpoint_bytes_per_s=size.nic * size.efficiency,
        rail_taper=1 / size.efficiency,
        unit_taper=(size.taper() if size.groups > 1 else 1.0) / size.efficiency,
        hop_latency_s=HOP_LATENCY_S,
    )
    return Interconnect(rail_fat_tree(shape), np.arange(nodes * size.nics).reshape(nodes, size.nics))


def node_fabric(machine: Machine) -> Topology:
    """The links between the devices of one node.

    Raises:
        UnknownFigure: the profile lacks a bandwidth, or the links of a hierarchy are not written down.
    """
    node = machine.node
    latency = node.latency_s or 0.0
    if node.devices == 1:
        return switch(1, 1.0, latency)
    if node.fabric == "mesh":
        pair = known(
            machine, "node.pair_bandwidth_max", node.pair_bandwidth_max_bytes_per_s, needed_for=_NEEDED
        )
        return mesh(node.devices, pair, latency)
    if node.fabric == "hierarchy":
        links = links_of_node(machine.name)
        if links is None:
            known(machine, "links between its devices (fabrics/links.csv)", None, needed_for=_NEEDED)
        assert links is not None
        return linked(node.devices, links, latency)
    device = known(machine, "node.device_bandwidth", node.device_bandwidth_bytes_per_s, needed_for=_NEEDED)
    if node.fabric == "pcie":
        return host_bridge(node.devices, device, device, latency)
    return switch(node.devices, device, latency)
