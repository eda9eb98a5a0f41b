"""Islands of nodes with interfaces of different kinds, joined by a slower network (Holmes, Yang et al., 2023).

Inside an island nodes send over its own technology (InfiniBand, RoCE); the technologies do not talk to each other,
so all traffic between islands takes the network that all nodes have, mostly Ethernet. A ring through several islands
runs at the pace of that network whatever the islands have, hence pipeline stages across islands and data-parallel
groups inside them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from towtank.simulator.network.link_matrix import LinkMatrix
from towtank.simulator.network.routes import IntArray, Routes, from_hops
from towtank.simulator.network.topology import Topology


@dataclass(frozen=True, slots=True)
class NodeLinks:
    """What one node attains over its interfaces of a technology; latency end to end."""

    technology: str
    bandwidth_bytes_per_s: float
    latency_s: float


@dataclass(frozen=True, slots=True)
class Island:
    """Nodes with common links, by name."""

    name: str
    nodes: tuple[str, ...]
    links: NodeLinks


@dataclass(frozen=True, slots=True)
class Islands:
    """Islands, the links between them, and the names of all nodes in the order of their ranks."""

    islands: tuple[Island, ...]
    between: NodeLinks | None
    """What a node attains towards other islands; None for one island."""
    total_bytes_per_s: float | None
    """What all nodes of an island together get out of it, and into it; None where nothing but nodes limits."""
    ranks: tuple[str, ...]

    @property
    def island_of_rank(self) -> IntArray:
        """Island of each rank, shape [ranks]."""
        of = {node: number for number, island in enumerate(self.islands) for node in island.nodes}
        return np.array([of[name] for name in self.ranks], np.int64)


def island_topology(islands: Islands) -> Topology:
    """Endpoints are ranks; a link each way for each node in its island, towards the others, and for each island."""
    own = islands.island_of_rank
    num, count = len(own), len(islands.islands)
    inner = [islands.islands[number].links for number in own]
    between = islands.between or inner[0]  # no traffic takes it where there is one island
    width = np.array([link.bandwidth_bytes_per_s for link in inner])
    delay = np.array([link.latency_s for link in inner]) / 2
    outer, outer_delay = np.full(num, between.bandwidth_bytes_per_s), np.full(num, between.latency_s / 2)
    total = islands.total_bytes_per_s or between.bandwidth_bytes_per_s * num  # never what limits
    tiers = ("node up", "node down", "between up", "between down", "island up", "island down")
    sizes = (num, num, num, num, count, count)

    def route(src: IntArray, dst: IntArray) -> Routes:
        same = own[src] == own[dst]
        inside = np.stack((src, num + dst), axis=1)
        outside = np.stack((2 * num + src, 3 * num + dst, 4 * num + own[src], 4 * num + count + own[dst]), 1)
        inside = np.pad(inside, ((0, 0), (0, 2)), constant_values=-1)
        hops = np.where(same[:, None], inside, outside)
        return from_hops(np.where((src == dst)[:, None], -1, hops), np.ones(()))

    return Topology(
        "islands",
        num,
        np.concatenate((width, width, outer, outer, np.full(2 * count, total))),
        np.concatenate((delay, delay, outer_delay, outer_delay, np.zeros(2 * count))),
        np.repeat(np.arange(len(tiers), dtype=np.int8), sizes),
        tiers,
        route,
    )


def island_links(islands: Islands) -> LinkMatrix:
    """Links between every two ranks; they share those out of an island where it has a total."""
    own = islands.island_of_rank
    same = own[:, None] == own[None, :]
    width = np.array([island.links.bandwidth_bytes_per_s for island in islands.islands])[own]
    delay = np.array([island.links.latency_s for island in islands.islands])[own]
    between = islands.between or islands.islands[0].links
    total = np.inf if islands.total_bytes_per_s is None else islands.total_bytes_per_s
    outer = min(between.bandwidth_bytes_per_s, total)
    bandwidth = np.where(same, width[:, None], outer)
    latency = np.where(same, delay[:, None], between.latency_s)
    np.fill_diagonal(bandwidth, np.inf)
    np.fill_diagonal(latency, 0.0)
    shared = island_topology(islands) if islands.total_bytes_per_s is not None else None
    return LinkMatrix(islands.ranks, bandwidth, latency, shared)
