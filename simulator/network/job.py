"""The links that a job's collectives cross: rings of all groups as loads, and what they cost each other.

A ring that advances in step is one flow: at a bus bandwidth of 1 each member sends 1 to its neighbour, and the
load of a link is what it carries then. A group alone runs at the lowest capacity over load of its links; groups
that run at once share by max-min fairness. The ratio of the two is the contention factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from towtank.simulator.network.fairness import max_min_rates
from towtank.simulator.network.machine import Interconnect
from towtank.simulator.network.placement import interface_of
from towtank.simulator.network.rings import ring_load
from towtank.simulator.network.routes import (
    FloatArray,
    IntArray,
    Routes,
    alike,
    from_entries,
    summed,
)
from towtank.simulator.network.topology import Topology, mixed

DETOUR_SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97)
"""Shares of the traffic between groups on detours that adaptive routing may settle at."""


@dataclass(frozen=True, slots=True)
class JobNetwork:
    """Links of the interconnect first, then those inside each node of the job."""

    interconnect: Interconnect
    fabric: Topology
    nodes: IntArray
    """Node of the machine for each node of the job."""
    nonminimal_share: float = 0.0
    """Share of the traffic between groups of the network that adaptive routing sends on detours."""
    busy: dict[str, float] = field(default_factory=dict)
    """Share of the capacity that other jobs take, by tier of the interconnect (`global`, `local`, ...)."""

    @property
    def capacity_bytes_per_s(self) -> FloatArray:
        """What the job finds of each link."""
        outer = self.interconnect.topology
        left = np.ones(len(outer.tiers))
        for tier, share in self.busy.items():
            if not 0 <= share < 1 or tier not in outer.tiers:
                raise ValueError(f"busy: a share in [0, 1) of one of {outer.tiers}, got {tier}: {share}")
            left[outer.tiers.index(tier)] = 1 - share
        inside = np.tile(self.fabric.capacity_bytes_per_s, len(self.nodes))
        return np.concatenate((outer.capacity_bytes_per_s * left[outer.tier], inside))

    def tier_of(self, link: int) -> str:
        """Kind of a link by name."""
        outer = self.interconnect.topology
        if link < outer.num_links:
            return str(outer.tiers[outer.tier[link]])
        inside = (link - outer.num_links) % self.fabric.num_links
        return f"node {self.fabric.tiers[self.fabric.tier[inside]]}"

    def rings(self, members: IntArray) -> Routes:
        """Loads of the rings of groups, one flow a group; `members` [groups, size] in ring order.

        A ring crosses from node to node over the interfaces of all its members there (its channels are spread
        over them). Groups of one member load nothing.
        """
        if members.shape[1] < 2:
            return from_entries(len(members), *_no_entries())
        devices = self.fabric.num_endpoints
        node, local = members // devices, members % devices
        run = _run_length(node)
        parts = [self._inside(node, local, run)]
        if run < members.shape[1]:
            parts.append(self._between(*_channels(node, local, run)))
        return _added(parts)

    def between(self, members: IntArray) -> tuple[IntArray, IntArray, float]:
        """Transfers between nodes that rings of `members` [groups, size] consist of: source and target endpoints,
        group by group, and the part of the ring's bytes that each carries. None where a group lies on one node."""
        devices = self.fabric.num_endpoints
        node, local = members // devices, members % devices
        run = _run_length(node)
        if run == members.shape[1]:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), 0.0
        return self._transfers(*_channels(node, local, run))

    def _transfers(self, node: IntArray, local: IntArray, run: int) -> tuple[IntArray, IntArray, float]:
        """Member i of a node sends 1/run of the ring to member i of the next node."""
        endpoint = self.interconnect.endpoint[self.nodes]
        nic = interface_of(local, self.fabric.num_endpoints, endpoint.shape[1])
        ends = endpoint[node[..., None], nic]
        return ends.ravel(), np.roll(ends, -run, axis=1).ravel(), 1 / (run * nic.shape[-1])

    def _between(self, node: IntArray, local: IntArray, run: int) -> Routes:
        """Load on the interconnect."""
        src, dst, part = self._transfers(node, local, run)
        owner = np.repeat(np.arange(len(node), dtype=np.int64), len(src) // len(node))
        routes = self.interconnect.topology.routes(src, dst, nonminimal_share=self.nonminimal_share)
        return summed(routes, owner, len(node), np.full(len(src), part))

    def _inside(self, node: IntArray, local: IntArray, run: int) -> Routes:
        """Load inside nodes: the ring of a node's members, open where it goes on to another node."""
        groups, size = node.shape
        if run == 1:
            return from_entries(groups, *_no_entries())
        rows = local.reshape(-1, run)
        patterns, which = np.unique(rows, axis=0, return_inverse=True)
        share = 1.0 if run == size else (run - 1) / run
        loads = [ring_load(self.fabric, tuple(pattern.tolist())) * share for pattern in patterns]
        table = np.stack(loads)[which.ravel()]
        row, link = np.nonzero(table)
        first = self.interconnect.topology.num_links + node.reshape(-1, run)[:, 0] * self.fabric.num_links
        return from_entries(
            groups, row.astype(np.int64) // (size // run), first[row] + link, table[row, link]
        )


_MOST_CHANNELS = 512
"""Channels of a ring on a node above which members of uneven rings send one to the next instead."""


def _run_length(node: IntArray) -> int:
    """Members of a ring that follow each other on one node, the same all along every ring; 1 if they are not."""
    changes = (node != np.roll(node, 1, axis=1)).sum(axis=1)
    size = int(node.shape[1])
    if not changes.any():
        return size
    runs = int(changes[0])
    if size % runs or not (changes == runs).all():
        return 1
    run = int(size // runs)
    blocks = node.reshape(len(node), runs, run)
    return run if (blocks == blocks[:, :, :1]).all() else 1


def _channels(node: IntArray, local: IntArray, run: int) -> tuple[IntArray, IntArray, int]:
    """Rings with as many channels on every node, and their number, from `node` and `local` [groups, size].

    Where a job does not fill its last node, rings have fewer members there, and the same bytes go over them:
    channels of the least common multiple, of which each member of a node carries as many. As given where rings are
    even, and where they come back to a node or are unlike.
    """
    if run > 1:
        return node, local, run
    starts = node != np.roll(node, 1, axis=1)
    runs = int(starts[0].sum())
    if not (starts == starts[0]).all() or not starts[0, 0] or runs in (0, node.shape[1]):
        return node, local, run
    first = np.flatnonzero(starts[0])
    length = np.diff(np.append(first, node.shape[1]))
    if any(len(np.unique(row)) < runs for row in node[:, first]):
        return node, local, run
    channels = int(np.lcm.reduce(length))
    if channels > _MOST_CHANNELS:
        return node, local, run
    member = (first[:, None] + np.arange(channels) * length[:, None] // channels).ravel()
    return node[:, member], local[:, member], channels


def _no_entries() -> tuple[IntArray, IntArray, FloatArray]:
    return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)


def _added(parts: Sequence[Routes]) -> Routes:
    """Loads of the same flows added up."""
    return from_entries(
        parts[0].num_flows,
        np.concatenate([part.flow for part in parts]),
        np.concatenate([part.link for part in parts]),
        np.concatenate([part.share for part in parts]),
    )


@dataclass(frozen=True, slots=True)
class Contention:
    """Bus bandwidths in bytes/s of rings, shape [rings]: each alone, and all at once."""

    alone_bytes_per_s: FloatArray
    together_bytes_per_s: FloatArray
    limiting_tier: str
    """Kind of the link that holds the slowest ring back when all run."""

    @property
    def factor(self) -> float:
        """Time of the collective of all groups at once over that of the slowest group alone; 1 or more."""
        return float(self.alone_bytes_per_s.min() / self.together_bytes_per_s.min())


def contention(network: JobNetwork, rings: Sequence[Routes]) -> Contention:
    """Bus bandwidth of the rings of several families of groups, alone and all at once.

    Alike rings are merged, so symmetric placements cost little whatever their size.

    Raises:
        ValueError: no ring crosses any link.
    """
    together = stacked(rings)
    capacity = network.capacity_bytes_per_s
    classes, member, count = alike(together)
    if len(classes.link) == 0:
        raise ValueError("contention needs at least one group of two devices or more")
    alone = np.full(classes.num_flows, np.inf)
    np.minimum.at(alone, classes.flow, capacity[classes.link] / classes.share)
    rate = max_min_rates(capacity, classes, count=count)
    slowest = int(np.argmin(rate))
    own = slice(classes.offset[slowest], classes.offset[slowest + 1])
    load = classes.load(len(capacity), rate * count)
    links = classes.link[own]
    tier = network.tier_of(int(links[np.argmax(load[links] / capacity[links])]))
    return Contention(alone[member], rate[member], tier)


def adapted_rings(network: JobNetwork, members: IntArray) -> tuple[Routes, float]:
    """Rings of groups under adaptive routing, and the share of detours that it settles at.

    Adaptive routing sends packets on detours where minimal paths are congested. The common share at which the
    slowest of these rings is fastest stands for where it settles when all of them run.
    """
    direct, detour = (replace(network, nonminimal_share=share).rings(members) for share in (0.0, 1.0))
    if len(direct.link) == 0:
        return direct, 0.0
    best, best_rate, best_share = direct, 0.0, 0.0
    for share in DETOUR_SHARES:
        rings = mixed(direct, detour, share)
        rate = float(contention(network, [rings]).together_bytes_per_s.min())
        if rate > best_rate * (1 + 1e-9):
            best, best_rate, best_share = rings, rate, share
    return best, best_share


def stacked(parts: Sequence[Routes]) -> Routes:
    """Flows of all parts, one after the other."""
    offsets, begin = [np.zeros(1, np.int64)], 0
    for part in parts:
        offsets.append(part.offset[1:] + begin)
        begin += int(part.offset[-1])
    return Routes(
        np.concatenate(offsets),
        np.concatenate([part.link for part in parts]),
        np.concatenate([part.share for part in parts]),
    )
