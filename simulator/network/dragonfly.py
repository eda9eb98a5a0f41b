"""Dragonfly: groups of fully joined switches, groups joined in pairs (Slingshot; Kim, Dally, Scott and Abts,
"Technology-Driven, Highly-Scalable Dragonfly Topology", ISCA 2008).

Switch s of group g has the number g * switches + s; endpoints are numbered along switches. Cable c between
groups g and h ends in g at switch (h * cables + c) mod switches, so that the gateways to all groups are spread
evenly over a group; with one cable a pair this is the absolute arrangement. The cables of a pair are one link,
because adaptive routing balances them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from towtank.simulator.network.routes import IntArray, Routes, from_hops
from towtank.simulator.network.topology import Topology, blocks

_DETOURS = 4
"""Intermediate groups (or switches) of one flow's non-minimal share; different flows draw different ones."""


@dataclass(frozen=True, slots=True)
class DragonflyShape:
    """Sizes of a dragonfly. `cables` join each pair of groups, `local_links` each pair of switches of a group."""

    groups: int
    switches: int
    endpoints_per_switch: int
    cables: int
    link_bytes_per_s: float
    endpoint_bytes_per_s: float
    local_links: int = 1
    hop_latency_s: float = 0.0
    group_bytes_per_s: float | None = None
    """All cables between two groups together; None: cables times link."""

    def __post_init__(self) -> None:
        sizes = (self.groups, self.switches, self.endpoints_per_switch, self.cables, self.local_links)
        if min(sizes) < 1:
            raise ValueError(f"all sizes of a dragonfly must be 1 or more, got {self}")

    @property
    def num_endpoints(self) -> int:
        """Endpoints of the whole network."""
        return self.groups * self.switches * self.endpoints_per_switch

    @property
    def pair_bytes_per_s(self) -> float:
        """Bandwidth from one group to one other."""
        return self.group_bytes_per_s or self.cables * self.link_bytes_per_s

    @property
    def taper(self) -> float:
        """Bandwidth out of a group over the bandwidth of its endpoints."""
        out = (self.groups - 1) * self.pair_bytes_per_s
        return out / (self.switches * self.endpoints_per_switch * self.endpoint_bytes_per_s)


def dragonfly(shape: DragonflyShape) -> Topology:
    """The network of `shape`, with minimal routing and Valiant routing over other groups."""
    ends, switches, groups = shape.num_endpoints, shape.switches, shape.groups
    links = blocks(
        {
            "injection": (ends, shape.endpoint_bytes_per_s, shape.hop_latency_s),
            "ejection": (ends, shape.endpoint_bytes_per_s, shape.hop_latency_s),
            "local": (
                groups * switches**2,
                shape.local_links * shape.link_bytes_per_s,
                shape.hop_latency_s,
            ),
            "global": (groups**2, shape.pair_bytes_per_s, shape.hop_latency_s),
        }
    )
    paths = _Paths(shape, links.first["local"], links.first["global"])
    alternatives = switches > 1 or groups > 2
    return Topology(
        "dragonfly",
        ends,
        links.capacity,
        links.latency,
        links.tier,
        links.tiers,
        paths.minimal,
        paths.valiant if alternatives else None,
        paths.detours if alternatives else None,
    )


@dataclass(frozen=True, slots=True)
class _Paths:
    shape: DragonflyShape
    first_local: int
    first_global: int

    def gateway(self, here: IntArray, there: IntArray, cable: IntArray) -> IntArray:
        """Number of the switch of group `here` at which `cable` to group `there` ends."""
        shape = self.shape
        return here * shape.switches + (there * shape.cables + cable) % shape.switches

    def local(self, a: IntArray, b: IntArray) -> IntArray:
        """Link from switch `a` to `b` of the same group; -1 where both are one switch."""
        hop = self.first_local + a * self.shape.switches + b % self.shape.switches
        return np.where(a == b, -1, hop)

    def across(self, g: IntArray, h: IntArray) -> IntArray:
        """Link from group `g` to `h`."""
        return self.first_global + g * self.shape.groups + h

    def switch(self, endpoint: IntArray) -> IntArray:
        """Switch of an endpoint."""
        return endpoint // self.shape.endpoints_per_switch

    def minimal(self, src: IntArray, dst: IntArray) -> Routes:
        """At most one hop inside the first group, one between groups, one inside the last."""
        a, b = self.switch(src), self.switch(dst)
        g, h = a // self.shape.switches, b // self.shape.switches
        hops = [src, self.shape.num_endpoints + dst]
        share = [1.0, 1.0]
        inside = g == h
        hops.append(np.where(inside, self.local(a, np.where(inside, b, a)), self.across(g, h)))
        share.append(1.0)
        for cable in range(self.shape.cables):
            number = np.full_like(g, cable)
            hops.append(np.where(inside, -1, self.local(a, self.gateway(g, h, number))))
            hops.append(np.where(inside, -1, self.local(self.gateway(h, g, number), b)))
            share += [1 / self.shape.cables] * 2
        return self._routes(src, dst, hops, share)

    def valiant(self, src: IntArray, dst: IntArray) -> Routes:
        """Over a switch of the same group, or over other groups; minimal where there is none."""
        shape = self.shape
        a, b = self.switch(src), self.switch(dst)
        g, h = a // shape.switches, b // shape.switches
        inside = g == h
        hops, share = [src, shape.num_endpoints + dst], [1.0, 1.0]
        start, detours = self._first_detour(src)
        for number in range(detours):
            middle = g * shape.switches + (start + number) % shape.switches
            via = other_group(g, h, start + number, shape.groups)
            near = [self.local(a, middle), self.local(middle, np.where(inside, b, middle))]
            far, far_share = self._over(a, b, g, h, via, (src + number) % shape.cables)
            hops += [np.where(inside, hop, -1) for hop in near] + [np.where(inside, -1, hop) for hop in far]
            share += [part / detours for part in (1.0, 1.0, *far_share)]
        return self._routes(src, dst, hops, share)

    def _first_detour(self, src: IntArray) -> tuple[IntArray, int]:
        """Number of the first group (or switch) on detours of flows from `src`, and how many there are.

        Endpoints of one switch draw groups in turn, so that the detours of a switch lie evenly over them.
        """
        others = max(1, self.shape.groups - 2)
        number = min(_DETOURS, others)
        first = src % self.shape.endpoints_per_switch * number + scattered(self.switch(src)) % others
        return first, number

    def detours(self, src: IntArray, dst: IntArray) -> IntArray:
        """Groups on the detours of `valiant`, shape [flows, detours]; -1: straight, or inside a group."""
        g, h = (self.switch(end) // self.shape.switches for end in (src, dst))
        first, number = self._first_detour(src)
        return np.stack([other_group(g, h, first + k, self.shape.groups) for k in range(number)], axis=1)

    def _over(
        self, a: IntArray, b: IntArray, g: IntArray, h: IntArray, via: IntArray, cable: IntArray
    ) -> tuple[list[IntArray], list[float]]:
        """Hops and shares from switch `a` of group `g` over group `via` to `b` of `h`; without via straight to h.

        Traffic enters the intermediate group by one cable and leaves it by all of them.
        """
        cables, detour = self.shape.cables, via >= 0
        first = np.where(detour, via, h)
        entry = self.gateway(first, g, cable)
        hops = [self.local(a, self.gateway(g, first, cable)), self.across(g, first)]
        hops.append(np.where(detour, self.across(first, h), -1))
        share = [1.0, 1.0, 1.0]
        for number in range(cables):
            out = np.full_like(g, number)
            leave = np.where(detour, self.gateway(first, h, out), entry)
            hops.append(self.local(entry, leave))
            arrive = np.where(detour, self.gateway(h, first, out), self.gateway(h, g, cable))
            hops.append(self.local(arrive, b))
            share += [1 / cables] * 2
        return hops, share

    def _routes(self, src: IntArray, dst: IntArray, hops: list[IntArray], share: list[float]) -> Routes:
        table = np.where((src == dst)[:, None], -1, np.stack(hops, axis=1))
        return from_hops(table, np.array(share))


def scattered(key: IntArray) -> IntArray:
    """A number in [0, 2^31) for each key that looks random and is the same on every machine (Knuth, TAOCP 6.4)."""
    mixed = key.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (mixed >> np.uint64(33)).astype(np.int64)


def other_group(g: IntArray, h: IntArray, number: IntArray, groups: int) -> IntArray:
    """One of the groups that are neither `g` nor `h`; -1 where there is none or both are the same."""
    if groups < 3:
        return np.full_like(g, -1)
    low, high = np.minimum(g, h), np.maximum(g, h)
    chosen = number % (groups - 2)
    chosen = chosen + (chosen >= low)
    chosen = chosen + (chosen >= high)
    return np.where(g == h, -1, chosen)
