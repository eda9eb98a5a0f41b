"""Transfers that start and finish while they share links: the flow-level network as a plain loop.

Between two events every flow moves at its max-min fair rate. When flows start or finish, only flows that share
links with them, directly or over others, are given new rates: the rest of the network does not notice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from towtank.simulator.network.fairness import max_min_rates
from towtank.simulator.network.routes import FloatArray, IntArray, Routes, added_up
from towtank.simulator.network.topology import Topology

Mask = NDArray[np.bool_]

_SAME_TIME = 1e-12
"""Relative difference below which two finishes are one event."""


def transfer_times(
    topology: Topology,
    src: IntArray,
    dst: IntArray,
    num_bytes: FloatArray,
    start_s: FloatArray | None = None,
    *,
    nonminimal_share: float = 0.0,
) -> FloatArray:
    """When each transfer of `num_bytes[f]` from endpoint `src[f]` to `dst[f]` has arrived, in seconds.

    The first byte takes the latency of the route; bytes flow from then on. All arrays have shape [flows].
    """
    routes = topology.routes(src, dst, nonminimal_share=nonminimal_share)
    begin = np.zeros(len(num_bytes)) if start_s is None else start_s
    return finish_times(topology.capacity_bytes_per_s, routes, num_bytes, begin + topology.latency_of(routes))


def finish_times(
    capacity_bytes_per_s: FloatArray,
    routes: Routes,
    num_bytes: FloatArray,
    start_s: FloatArray,
    *,
    weight: FloatArray | None = None,
    count: IntArray | None = None,
    limit_bytes_per_s: FloatArray | None = None,
) -> FloatArray:
    """When each flow has moved its bytes, in seconds, shape [flows].

    `weight`, `count` and `limit_bytes_per_s` as in `max_min_rates`. A flow without bytes, or without links and
    limit, finishes when it starts.

    Raises:
        ValueError: bytes or a start below zero.
    """
    if len(num_bytes) and (num_bytes.min() < 0 or start_s.min() < 0):
        raise ValueError(f"bytes and start must be 0 or more, got {num_bytes.min()} and {start_s.min()}")
    state = _State(capacity_bytes_per_s, routes, num_bytes, weight, count, limit_bytes_per_s)
    order = np.argsort(start_s, kind="stable")
    waiting = 0
    now = 0.0
    finish = start_s.astype(np.float64, copy=True)
    while waiting < len(order) or state.active.any():
        next_start = start_s[order[waiting]] if waiting < len(order) else np.inf
        next_finish = state.next_finish(now)
        then = min(next_start, next_finish)
        state.advance(then - now)
        now = then
        ended = state.ended(now, due=now == next_finish)
        finish[ended] = now
        last = int(np.searchsorted(start_s[order], now, side="right"))
        started, waiting = order[waiting:last], max(last, waiting)
        state.change(ended, started)
    return finish


class _State:
    """Bytes left and rates of all flows."""

    def __init__(
        self,
        capacity: FloatArray,
        routes: Routes,
        num_bytes: FloatArray,
        weight: FloatArray | None,
        count: IntArray | None,
        limit: FloatArray | None,
    ) -> None:
        size = routes.num_flows
        self.capacity, self.routes, self.flow = capacity, routes, routes.flow
        self.left = num_bytes.astype(np.float64, copy=True)
        self.whole = num_bytes
        self.weight = np.ones(size) if weight is None else weight
        self.count = np.ones(size, np.int64) if count is None else count
        self.limit = np.full(size, np.inf) if limit is None else limit
        self.rate = np.zeros(size)
        self.next = -1
        self.active: Mask = np.zeros(size, np.bool_)

    def next_finish(self, now: float) -> float:
        """When the next active flow finishes, if no other starts."""
        active = self.active
        if not active.any():
            return float("inf")
        seconds = np.full(len(active), np.inf)
        seconds[active] = self.left[active] / self.rate[active]
        self.next = int(np.argmin(seconds))
        return now + float(seconds[self.next])

    def advance(self, seconds: float) -> None:
        """Move bytes."""
        if seconds > 0:
            moving = self.active
            self.left[moving] -= self.rate[moving] * seconds

    def ended(self, now: float, *, due: bool) -> IntArray:
        """Active flows that have nothing left, up to rounding; where one is due, it is among them whatever is left,
        so that time goes on even if its last bytes are too few to move the clock."""
        if due:
            self.left[self.next] = 0.0
        rest = self.rate * (_SAME_TIME * now) + self.whole * _SAME_TIME
        return np.flatnonzero(self.active & ((self.left <= rest) | np.isinf(self.rate))).astype(np.int64)

    def change(self, ended: IntArray, started: IntArray) -> None:
        """Flows leave and join; everybody who shares links with them gets a new rate."""
        self.active[ended] = False
        self.active[started] = True
        touched = self._touched(np.concatenate((ended, started)))
        if len(touched):
            self.rate[touched] = max_min_rates(
                self.capacity,
                self.routes.take(touched),
                weight=self.weight[touched],
                count=self.count[touched],
                limit_bytes_per_s=self.limit[touched],
            )

    def _touched(self, changed: IntArray) -> IntArray:
        """Active flows joined to `changed` by shared links, directly or over other active flows."""
        flows: Mask = np.zeros(self.routes.num_flows, np.bool_)
        flows[changed] = True
        relevant = self.active[self.flow] | flows[self.flow]
        flow, link = self.flow[relevant], self.routes.link[relevant]
        reached = int(flows.sum())
        while True:
            links = added_up(link, flows[flow].astype(np.float64), len(self.capacity)) > 0
            flows[flow[links[link]]] = True
            if int(flows.sum()) == reached:
                return np.flatnonzero(flows & self.active).astype(np.int64)
            reached = int(flows.sum())
