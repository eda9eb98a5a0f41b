"""Contention between groups of the network in compiled form, for any placement and beside other jobs.

What `crossing` spreads evenly over all detours is counted here on those that the flows of `job` take, because nodes
that lie here and there load them unevenly. Links inside of groups, and routes to them, are left out: a rounding away
from following every link, and a hundred times as fast.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil

import numpy as np

from towtank.hardware_profiles.records import Machine
from towtank.simulator.network.crossing import crossing_ratio
from towtank.simulator.network.job import DETOUR_SHARES, JobNetwork
from towtank.simulator.network.machine import interconnect
from towtank.simulator.network.placement import Placed, group_members
from towtank.simulator.network.routes import FloatArray, IntArray
from towtank.simulator.network.surroundings import Surroundings
from towtank.simulator.network.topology import Topology, switch

Family = tuple[tuple[int, int], ...]
"""(degree, stride) of the dimensions of groups, innermost first."""

_TREES = ("fat-tree", "rail-fat-tree")


def leaves_group(machine: Machine, num_devices: int, family: Family, around: Surroundings) -> bool:
    """Whether any ring of a family goes from one group of the network to another."""
    group_nodes = machine.network.group_nodes
    if group_nodes is None:
        return False
    nodes = _nodes(machine, num_devices, around.placed)
    group = nodes[_members(num_devices, family) // machine.node.devices] // group_nodes
    return bool((group != group[:, :1]).any())


def routed_factor(
    machine: Machine, num_devices: int, family: Family, ring_bytes_per_s: float, around: Surroundings
) -> float:
    """Time of rings of `ring_bytes_per_s` over what it would be with cables to spare between groups; 1 or more.

    1 where the loss between groups was measured, beside other jobs. Never below what the even spread of `crossing`
    over contiguous nodes says of the cables that other jobs leave.

    Raises:
        UnknownFigure: the profile lacks what the topology of its network needs.
    """
    if machine.network.group_nodes is None or machine.network.group_crossing is not None:
        return 1.0
    ratio = _load_s(machine, num_devices, family, around.placed) * ring_bytes_per_s
    if around.placed.kind == "contiguous":
        ratio = max(ratio, crossing_ratio(machine, num_devices, family, ring_bytes_per_s))
    return max(1.0, ratio / (1 - around.busy("global")))


def _members(num_devices: int, family: Family) -> IntArray:
    """Devices of all groups in ring order: rings stay on a node as long as they can, the smallest strides first."""
    return group_members(num_devices, sorted(family, key=lambda each: each[1]))


def _nodes(machine: Machine, num_devices: int, placed: Placed) -> IntArray:
    return Surroundings(placed).nodes(machine, ceil(num_devices / machine.node.devices))


@lru_cache(maxsize=1024)
def _load_s(machine: Machine, num_devices: int, family: Family, placed: Placed) -> float:
    """Seconds that the fullest links between groups take for a byte of bus bandwidth of all rings of a family.

    Adaptive routing settles at the share of detours that is best for the fullest.
    """
    group_nodes = machine.network.group_nodes
    assert group_nodes is not None
    nodes = _nodes(machine, num_devices, placed)
    if len(np.unique(nodes // group_nodes)) == 1:
        return 0.0
    outside = interconnect(machine, len(nodes))
    job = JobNetwork(outside, switch(machine.node.devices, 1.0, 0.0), nodes)
    src, dst, part = job.between(_members(num_devices, family))
    group = np.zeros(outside.topology.num_endpoints, np.int64)
    group[outside.endpoint] = np.arange(len(outside.endpoint))[:, None] // group_nodes
    direct, detour = _pairs(outside.topology, src, dst, group)
    if machine.network.topology in _TREES:
        return (
            part
            * max(float(direct.sum(axis=way).max()) for way in (0, 1))
            / _width(outside.topology, "unit up")
        )
    fullest = min(float(((1 - share) * direct + share * detour).max()) for share in DETOUR_SHARES)
    return part * fullest / _width(outside.topology, "global")


def _width(topology: Topology, tier: str) -> float:
    """Bytes/s of a link of a tier, all of which are alike."""
    return float(topology.capacity_bytes_per_s[np.argmax(topology.tier == topology.tiers.index(tier))])


def _pairs(
    topology: Topology, src: IntArray, dst: IntArray, group: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Transfers from one group to another, both [groups, groups]: on minimal routes, and all on detours."""
    groups = int(group.max()) + 1
    leaving = group[src] != group[dst]
    src, dst = src[leaving], dst[leaving]
    g, h = group[src], group[dst]
    direct = _count(g, h, groups)
    if topology.detours is None:
        return direct, direct
    over = topology.detours(src, dst)
    detour = np.zeros_like(direct)
    for via in over.T:
        straight = via < 0
        middle = np.where(straight, h, via)
        detour += _count(g, middle, groups) + _count(middle[~straight], h[~straight], groups)
    return direct, detour / over.shape[1]


def _count(g: IntArray, h: IntArray, groups: int) -> FloatArray:
    return np.bincount(g * groups + h, minlength=groups**2).reshape(groups, groups).astype(np.float64)
