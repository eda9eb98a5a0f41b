"""A network of links between endpoints, and the shapes that need no more than a formula.

An endpoint is where traffic enters: a network interface of a node, or a device inside of one. Links are
directed; capacities are bytes/s in that direction. Links that routing balances perfectly (cables of one bundle,
equal paths upward in a tree) are one link with their common capacity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from towtank.simulator.network.routes import FloatArray, IntArray, Routes, added_up, from_entries, from_hops

Router = Callable[[IntArray, IntArray], Routes]
"""Routes of flows from endpoints `src[f]` to `dst[f]`; both of shape [flows]."""

Detours = Callable[[IntArray, IntArray], IntArray]
"""Groups over which the non-minimal share of flows from `src[f]` to `dst[f]` goes in equal parts, shape
[flows, parts]; -1: straight."""


@dataclass(frozen=True, slots=True)
class Topology:
    """Links and how to route over them. `tier[link]` indexes `tiers`, the names of kinds of links."""

    name: str
    num_endpoints: int
    capacity_bytes_per_s: FloatArray
    latency_s: FloatArray
    tier: NDArray[np.int8]
    tiers: tuple[str, ...]
    router: Router = field(repr=False)
    """Minimal routing."""
    nonminimal: Router | None = field(default=None, repr=False)
    """Routing over intermediate groups or switches (Valiant); None where minimal routes have no alternative."""
    detours: Detours | None = field(default=None, repr=False)
    """Groups that `nonminimal` takes from one group to another; None as there, and where groups have no pairs."""

    @property
    def num_links(self) -> int:
        """Number of directed links."""
        return len(self.capacity_bytes_per_s)

    def routes(self, src: IntArray, dst: IntArray, *, nonminimal_share: float = 0.0) -> Routes:
        """Routes of flows from `src[f]` to `dst[f]`; empty where both are the same.

        `nonminimal_share` of the bytes take routes over an intermediate group (Valiant), the rest minimal ones.
        Adaptive routing settles between 0 (quiet network) and nearly 1 (one group sending to one other, whose few
        direct cables carry little beside all the detours).

        Raises:
            ValueError: an endpoint outside of the network, or a share outside of [0, 1].
        """
        src, dst = np.asarray(src, np.int64), np.asarray(dst, np.int64)
        for ends in (src, dst):
            if len(ends) and not (ends.min() >= 0 and ends.max() < self.num_endpoints):
                raise ValueError(f"{self.name}: endpoints must lie in [0, {self.num_endpoints}), got {ends}")
        if not 0 <= nonminimal_share <= 1:
            raise ValueError(f"nonminimal_share must lie in [0, 1], got {nonminimal_share}")
        direct = self.router(src, dst)
        if self.nonminimal is None or nonminimal_share == 0:
            return direct
        return mixed(direct, self.nonminimal(src, dst), nonminimal_share)

    def latency_of(self, routes: Routes) -> FloatArray:
        """Seconds from end to end of each flow, over the mean of its paths, shape [flows]."""
        return added_up(routes.flow, routes.share * self.latency_s[routes.link], routes.num_flows)


def mixed(direct: Routes, detour: Routes, detour_share: float) -> Routes:
    """Routes that send `detour_share` of the bytes over `detour` and the rest over `direct`."""
    return from_entries(
        direct.num_flows,
        np.concatenate((direct.flow, detour.flow)),
        np.concatenate((direct.link, detour.link)),
        np.concatenate((direct.share * (1 - detour_share), detour.share * detour_share)),
    )


@dataclass(frozen=True, slots=True)
class Links:
    """Blocks of links while a topology is put together: `first[name]` is where a block begins."""

    capacity: FloatArray
    latency: FloatArray
    tier: NDArray[np.int8]
    tiers: tuple[str, ...]
    first: Mapping[str, int]


def blocks(spec: Mapping[str, tuple[int, float | FloatArray, float]]) -> Links:
    """Links of blocks, each given as name: (number of links, capacity bytes/s, latency s)."""
    first, begin = {}, 0
    for name, (number, _, _) in spec.items():
        first[name] = begin
        begin += number
    return Links(
        np.concatenate([np.broadcast_to(np.float64(rate), (number,)) for number, rate, _ in spec.values()]),
        np.repeat([latency for _, _, latency in spec.values()], [number for number, _, _ in spec.values()]),
        np.repeat(np.arange(len(spec), dtype=np.int8), [number for number, _, _ in spec.values()]),
        tuple(spec),
        first,
    )


def _named(name: str, num_endpoints: int, links: Links, router: Router) -> Topology:
    return Topology(name, num_endpoints, links.capacity, links.latency, links.tier, links.tiers, router)


def switch(num_endpoints: int, bandwidth_bytes_per_s: float, latency_s: float) -> Topology:
    """All endpoints at one non-blocking switch: an NVSwitch domain, one leaf. `latency_s` is end to end."""
    links = blocks(
        {
            "up": (num_endpoints, bandwidth_bytes_per_s, latency_s / 2),
            "down": (num_endpoints, bandwidth_bytes_per_s, latency_s / 2),
        }
    )

    def route(src: IntArray, dst: IntArray) -> Routes:
        hops = np.stack((src, num_endpoints + dst), axis=1)
        return from_hops(np.where((src == dst)[:, None], -1, hops), np.ones(()))

    return _named("switch", num_endpoints, links, route)


def mesh(num_endpoints: int, pair_bandwidth_bytes_per_s: float, latency_s: float) -> Topology:
    """Every pair of endpoints joined directly (NVLink of four devices without a switch)."""
    links = blocks({"pair": (num_endpoints**2, pair_bandwidth_bytes_per_s, latency_s)})

    def route(src: IntArray, dst: IntArray) -> Routes:
        return from_hops(np.where(src == dst, -1, src * num_endpoints + dst)[:, None], np.ones(()))

    return _named("mesh", num_endpoints, links, route)


def host_bridge(
    num_endpoints: int, bandwidth_bytes_per_s: float, bridge_bytes_per_s: float, latency_s: float
) -> Topology:
    """PCIe: one link a device to its socket, half of the devices on each of two sockets, one bridge between."""
    half = -(-num_endpoints // 2)
    links = blocks(
        {
            "up": (num_endpoints, bandwidth_bytes_per_s, latency_s / 2),
            "down": (num_endpoints, bandwidth_bytes_per_s, latency_s / 2),
            "bridge": (2, bridge_bytes_per_s, 0.0),
        }
    )

    def route(src: IntArray, dst: IntArray) -> Routes:
        crosses = (src < half) != (dst < half)
        bridge = np.where(crosses, 2 * num_endpoints + (src >= half), -1)
        hops = np.stack((src, num_endpoints + dst, bridge), axis=1)
        return from_hops(np.where((src == dst)[:, None], -1, hops), np.ones(()))

    return _named("host bridge", num_endpoints, links, route)


def linked(
    num_endpoints: int, pair_bandwidth_bytes_per_s: Mapping[tuple[int, int], float], latency_s: float
) -> Topology:
    """Unequal links between some pairs, each full duplex: Infinity Fabric, Xe Link.

    Pairs without a link go over others: the fewest hops, then the widest bottleneck, equal routes sharing evenly.

    Raises:
        ValueError: endpoints that no path joins.
    """
    table = {**pair_bandwidth_bytes_per_s, **{(b, a): w for (a, b), w in pair_bandwidth_bytes_per_s.items()}}
    ends = sorted(table)
    number = {pair: link for link, pair in enumerate(ends)}
    links = blocks({"pair": (len(ends), np.array([table[pair] for pair in ends]), latency_s)})
    paths = {
        (a, b): _paths(a, b, table, num_endpoints)
        for a in range(num_endpoints)
        for b in range(num_endpoints)
        if a != b
    }
    width = max(sum(len(path) - 1 for path in found) for found in paths.values())
    hops = np.full((num_endpoints**2, width), -1, np.int64)
    share = np.zeros((num_endpoints**2, width))
    for (a, b), found in paths.items():
        steps = [number[step] for path in found for step in pairwise(path)]
        hops[a * num_endpoints + b, : len(steps)] = steps
        share[a * num_endpoints + b, : len(steps)] = 1 / len(found)

    def route(src: IntArray, dst: IntArray) -> Routes:
        return from_hops(hops[src * num_endpoints + dst], share[src * num_endpoints + dst])

    return _named("linked", num_endpoints, links, route)


def _paths(a: int, b: int, table: Mapping[tuple[int, int], float], size: int) -> list[tuple[int, ...]]:
    """The shortest paths from `a` to `b`, of these the ones with the widest bottleneck."""
    paths: list[tuple[int, ...]] = [(a,)]
    for _ in range(size):
        arrived = [path for path in paths if path[-1] == b]
        if arrived:
            narrow = [min(table[step] for step in pairwise(path)) for path in arrived]
            return [path for path, width in zip(arrived, narrow, strict=True) if width == max(narrow)]
        paths = [
            (*path, c) for path in paths for c in range(size) if (path[-1], c) in table and c not in path
        ]
    raise ValueError(f"no links join {a} and {b}")
