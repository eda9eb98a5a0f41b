"""Fat trees: any number of levels, oversubscription, rails.

Levels follow parallel generalised fat trees (Zahavi, "D-Mod-K Routing Providing Non-Blocking Traffic for Shift
Permutations on Real Life Fat Trees", CCIT report 776, 2010): below each switch of level l lie `children[l]`
subtrees, above each node of the level before lie `parents[l]` switches.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np

from towtank.simulator.network.routes import IntArray, Routes, from_hops
from towtank.simulator.network.topology import Topology, blocks

TreeRouting = Literal["spread", "d-mod-k"]
"""`spread`: evenly over all shortest paths, as adaptive routing or packet spraying does; `d-mod-k`: one path, whose
upward ports are digits of the destination (the usual static routing of InfiniBand)."""


@dataclass(frozen=True, slots=True)
class FatTreeShape:
    """Levels from the endpoints up; `link_bytes_per_s[l]` is one link below a switch of level l."""

    children: tuple[int, ...]
    parents: tuple[int, ...]
    link_bytes_per_s: tuple[float, ...]
    hop_latency_s: float = 0.0

    def __post_init__(self) -> None:
        lengths = {len(self.children), len(self.parents), len(self.link_bytes_per_s)}
        if lengths != {len(self.children)} or not self.children:
            raise ValueError(f"a fat tree needs children, parents and bandwidth of each level, got {self}")
        if min(self.children + self.parents) < 1:
            raise ValueError(f"children and parents must be 1 or more, got {self}")

    @property
    def num_endpoints(self) -> int:
        """Endpoints of the whole tree."""
        return prod(self.children)

    def switches_of_subtree(self, level: int) -> int:
        """Nodes of `level` that top one subtree: 1 at level 0, where the node is the endpoint."""
        return prod(self.parents[:level])

    def oversubscription(self, level: int) -> float:
        """Bandwidth below the switches of `level` (0: leaves) over the bandwidth above them."""
        below = self.children[level] * self.link_bytes_per_s[level]
        return below / (self.parents[level + 1] * self.link_bytes_per_s[level + 1])


def fat_tree(shape: FatTreeShape, routing: TreeRouting = "spread") -> Topology:
    """The tree of `shape`. Under `spread` the upward links of a subtree are one link, and so are its downward
    links; under `d-mod-k` each link stands for itself."""
    spec: dict[str, tuple[int, float, float]] = {}
    for level, rate in enumerate(shape.link_bytes_per_s):
        subtrees = shape.num_endpoints // prod(shape.children[:level])
        paths = shape.switches_of_subtree(level + 1)
        single = routing == "d-mod-k"
        for way in ("up", "down"):
            spec[f"{way} {level + 1}"] = (
                subtrees * (paths if single else 1),
                rate if single else rate * paths,
                shape.hop_latency_s,
            )
    links = blocks(spec)

    def route(src: IntArray, dst: IntArray) -> Routes:
        hops = []
        chosen = np.zeros_like(dst)
        for level in range(len(shape.children)):
            below = prod(shape.children[:level])
            paths = shape.switches_of_subtree(level + 1)
            apart = src // below != dst // below
            if routing == "d-mod-k":
                digit = dst // shape.switches_of_subtree(level) % shape.parents[level]
                chosen = chosen * shape.parents[level] + digit
            for way, end in (("up", src), ("down", dst)):
                subtree = end // below
                link = subtree * paths + chosen if routing == "d-mod-k" else subtree
                hops.append(np.where(apart, links.first[f"{way} {level + 1}"] + link, -1))
        return from_hops(np.stack(hops, axis=1), np.ones(()))

    return Topology(
        "fat tree", shape.num_endpoints, links.capacity, links.latency, links.tier, links.tiers, route
    )


@dataclass(frozen=True, slots=True)
class RailShape:
    """A rail-optimised tree: endpoint node * rails + r lies at leaf r of its unit.

    `unit_taper` is the bandwidth out of a unit over that of its endpoints, `rail_taper` the same of a leaf.
    """

    units: int
    unit_nodes: int
    rails: int
    endpoint_bytes_per_s: float
    rail_taper: float = 1.0
    unit_taper: float = 1.0
    hop_latency_s: float = 0.0

    @property
    def num_endpoints(self) -> int:
        """Endpoints of the whole network."""
        return self.units * self.unit_nodes * self.rails


def rail_fat_tree(shape: RailShape) -> Topology:
    """Leaves by rail and unit, a spine in each unit, a core above; paths above the leaves share evenly."""
    leaf_rate = shape.unit_nodes * shape.endpoint_bytes_per_s * shape.rail_taper
    unit_rate = shape.unit_nodes * shape.rails * shape.endpoint_bytes_per_s * shape.unit_taper
    latency, leaves = shape.hop_latency_s, shape.units * shape.rails
    links = blocks(
        {
            "injection": (shape.num_endpoints, shape.endpoint_bytes_per_s, latency),
            "ejection": (shape.num_endpoints, shape.endpoint_bytes_per_s, latency),
            "leaf up": (leaves, leaf_rate, latency),
            "leaf down": (leaves, leaf_rate, latency),
            "unit up": (shape.units, unit_rate, latency),
            "unit down": (shape.units, unit_rate, latency),
        }
    )
    first = links.first

    def route(src: IntArray, dst: IntArray) -> Routes:
        units = [end // (shape.rails * shape.unit_nodes) for end in (src, dst)]
        leaf = [unit * shape.rails + end % shape.rails for unit, end in zip(units, (src, dst), strict=True)]
        off_leaf, off_unit = leaf[0] != leaf[1], units[0] != units[1]
        hops = [
            np.where(src == dst, -1, first["injection"] + src),
            np.where(src == dst, -1, first["ejection"] + dst),
            np.where(off_leaf, first["leaf up"] + leaf[0], -1),
            np.where(off_leaf, first["leaf down"] + leaf[1], -1),
            np.where(off_unit, first["unit up"] + units[0], -1),
            np.where(off_unit, first["unit down"] + units[1], -1),
        ]
        return from_hops(np.stack(hops, axis=1), np.ones(()))

    return Topology(
        "rail fat tree", shape.num_endpoints, links.capacity, links.latency, links.tier, links.tiers, route
    )
