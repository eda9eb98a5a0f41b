"""Max-min fair sharing of links by progressive filling.

All rates grow together until a link is full; the flows of that link stop there and the others go on. The
allocation is the only one in which every flow crosses a full link on which no flow is faster (Bertsekas and
Gallager, *Data Networks*, 2nd edition, section 6.5.2). With weights, rate over weight grows together.

Links are filled in rounds rather than one by one. The level of a link is the common rate at which it is full if
no other link stops its flows. Levels never fall as flows stop elsewhere, so a link whose level is the lowest on
the routes of all its flows is one where they stop in the end: all such links are settled in one round. Symmetric
traffic takes a handful of rounds whatever its size.
"""

from __future__ import annotations

import numpy as np

from towtank.simulator.network.routes import FloatArray, IntArray, Routes, added_up

_TIE = 1e-12
"""Relative difference below which two levels are the same."""


def max_min_rates(
    capacity_bytes_per_s: FloatArray,
    routes: Routes,
    *,
    weight: FloatArray | None = None,
    count: IntArray | None = None,
    limit_bytes_per_s: FloatArray | None = None,
) -> FloatArray:
    """Rate of each flow in bytes/s, shape [flows].

    `weight` [flows]: share of a flow where it competes, 1 where not given. `count` [flows]: equal flows that the
    row stands for, each at the returned rate. `limit_bytes_per_s` [flows]: a rate that the flow cannot exceed
    on its own. A flow without links moves at its limit, or at infinity.

    Raises:
        ValueError: a capacity that is not finite and above zero, a weight or limit that is not above zero.
    """
    weight = np.ones(routes.num_flows) if weight is None else weight
    _check(capacity_bytes_per_s, weight, limit_bytes_per_s)
    limit = np.full(routes.num_flows, np.inf) if limit_bytes_per_s is None else limit_bytes_per_s / weight
    copies = np.ones(routes.num_flows) if count is None else count.astype(np.float64)
    demand = routes.share * np.repeat(weight * copies, np.diff(routes.offset))
    return weight * _levels(capacity_bytes_per_s.astype(np.float64), routes, demand, limit)


def _levels(capacity: FloatArray, routes: Routes, demand: FloatArray, limit: FloatArray) -> FloatArray:
    """Level at which each flow stops, shape [flows]; `demand` [entries] is the load of a link at level 1."""
    result = limit.copy()
    link, flow, left = routes.link, routes.flow, capacity
    num_links = len(capacity)
    while len(link):
        wanted = added_up(link, demand, num_links)
        level = np.full(num_links, np.inf)
        np.divide(np.maximum(left, 0.0), wanted, out=level, where=wanted > 0)
        lowest = limit.copy()
        np.minimum.at(lowest, flow, level[link])
        done = lowest >= limit
        done[_settled(link, flow, level, lowest, num_links)] = True
        gone = done[flow]
        result[flow[gone]] = lowest[flow[gone]]
        left = left - added_up(link[gone], demand[gone] * lowest[flow[gone]], num_links)
        link, flow, demand = link[~gone], flow[~gone], demand[~gone]
    return result


def _settled(
    link: IntArray, flow: IntArray, level: FloatArray, lowest: FloatArray, num_links: int
) -> IntArray:
    """Flows on links whose level is the lowest of all links on the routes of all their flows."""
    higher = level[link] > lowest[flow] * (1 + _TIE)
    open_links = np.bincount(link[higher], minlength=num_links) > 0
    return np.unique(flow[~open_links[link]])


def _check(capacity: FloatArray, weight: FloatArray, limit: FloatArray | None) -> None:
    if not np.isfinite(capacity).all():
        raise ValueError(f"capacity_bytes_per_s must be finite, got {capacity.max()!r}")
    for name, values in (
        ("capacity_bytes_per_s", capacity),
        ("weight", weight),
        ("limit_bytes_per_s", limit),
    ):
        if values is not None and not (values > 0).all():
            wrong = int(np.flatnonzero(~(values > 0))[0])
            raise ValueError(f"{name} must be above zero, got {values[wrong]!r} at {wrong}")


def saturated(capacity_bytes_per_s: FloatArray, routes: Routes, rate: FloatArray) -> IntArray:
    """Links that are full (to 1e-9) at these rates, in increasing order."""
    load = routes.load(len(capacity_bytes_per_s), rate)
    return np.flatnonzero(load >= capacity_bytes_per_s * (1 - 1e-9)).astype(np.int64)
