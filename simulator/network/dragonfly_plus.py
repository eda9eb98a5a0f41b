"""Dragonfly+: groups that are two-level fat trees, spines of all groups joined in pairs (Shpiner and others,
"Dragonfly+: Low Cost Topology for Scaling Datacenters", HiPINEB 2017); Leonardo, JUWELS, JUPITER.

Leaves are joined to all spines of their group, and paths over the spines share evenly: the links of a leaf to its
spines are one link, and so are all cables between two groups. Traffic on a detour enters and leaves the
intermediate group at spines without touching a leaf.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from towtank.simulator.network.dragonfly import other_group, scattered
from towtank.simulator.network.routes import IntArray, Routes, from_hops
from towtank.simulator.network.topology import Topology, blocks

_DETOURS = 4


@dataclass(frozen=True, slots=True)
class DragonflyPlusShape:
    """Sizes of a dragonfly+. `spine_bytes_per_s` is one leaf to all spines of its group, `group_bytes_per_s` all
    cables from one group to one other."""

    groups: int
    leaves: int
    endpoints_per_leaf: int
    endpoint_bytes_per_s: float
    spine_bytes_per_s: float
    group_bytes_per_s: float
    hop_latency_s: float = 0.0

    @property
    def num_endpoints(self) -> int:
        """Endpoints of the whole network."""
        return self.groups * self.leaves * self.endpoints_per_leaf

    @property
    def taper(self) -> float:
        """Bandwidth out of a group over the bandwidth of its endpoints."""
        ends = self.leaves * self.endpoints_per_leaf * self.endpoint_bytes_per_s
        return (self.groups - 1) * self.group_bytes_per_s / ends


def dragonfly_plus(shape: DragonflyPlusShape) -> Topology:
    """The network of `shape`, with minimal routing and Valiant routing over other groups."""
    latency, leaves = shape.hop_latency_s, shape.groups * shape.leaves
    links = blocks(
        {
            "injection": (shape.num_endpoints, shape.endpoint_bytes_per_s, latency),
            "ejection": (shape.num_endpoints, shape.endpoint_bytes_per_s, latency),
            "leaf up": (leaves, shape.spine_bytes_per_s, latency),
            "leaf down": (leaves, shape.spine_bytes_per_s, latency),
            "global": (shape.groups**2, shape.group_bytes_per_s, latency),
        }
    )
    paths = _Paths(shape, links.first)
    return Topology(
        "dragonfly+",
        shape.num_endpoints,
        links.capacity,
        links.latency,
        links.tier,
        links.tiers,
        paths.minimal,
        paths.valiant if shape.groups > 2 else None,
        paths.detours if shape.groups > 2 else None,
    )


@dataclass(frozen=True, slots=True)
class _Paths:
    shape: DragonflyPlusShape
    first: Mapping[str, int]

    def ends(self, src: IntArray, dst: IntArray) -> tuple[list[IntArray], IntArray, IntArray]:
        """Hops outside of the global links, and the groups of both ends."""
        first, leaves = self.first, self.shape.leaves
        a, b = src // self.shape.endpoints_per_leaf, dst // self.shape.endpoints_per_leaf
        hops = [
            np.where(src == dst, -1, first["injection"] + src),
            np.where(src == dst, -1, first["ejection"] + dst),
            np.where(a == b, -1, first["leaf up"] + a),
            np.where(a == b, -1, first["leaf down"] + b),
        ]
        return hops, a // leaves, b // leaves

    def across(self, g: IntArray, h: IntArray) -> IntArray:
        """Link from group `g` to `h`."""
        return self.first["global"] + g * self.shape.groups + h

    def minimal(self, src: IntArray, dst: IntArray) -> Routes:
        """Straight from group to group."""
        hops, g, h = self.ends(src, dst)
        hops.append(np.where(g == h, -1, self.across(g, h)))
        return from_hops(np.stack(hops, axis=1), np.ones(()))

    def valiant(self, src: IntArray, dst: IntArray) -> Routes:
        """Over other groups; minimal inside a group, where leaves reach each other over all spines anyway."""
        hops, g, h = self.ends(src, dst)
        share = [1.0] * len(hops)
        over = self.detours(src, dst)
        for via in over.T:
            hops += [np.where(g == h, -1, self.across(g, via)), np.where(g == h, -1, self.across(via, h))]
            share += [1 / over.shape[1]] * 2
        return from_hops(np.stack(hops, axis=1), np.array(share))

    def detours(self, src: IntArray, dst: IntArray) -> IntArray:
        """Groups on the detours of `valiant`, shape [flows, detours]; -1 inside a group."""
        group = self.shape.leaves * self.shape.endpoints_per_leaf
        start = scattered(src * np.int64(self.shape.num_endpoints) + dst)
        number = min(_DETOURS, self.shape.groups - 2)
        groups = (src // group, dst // group, self.shape.groups)
        return np.stack(
            [other_group(groups[0], groups[1], start + k, groups[2]) for k in range(number)], axis=1
        )
