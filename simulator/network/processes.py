"""The flow-level network for SimPy: a process starts a transfer and waits for it.

    network = FlowNetwork(environment, topology.capacity_bytes_per_s)
    ...
    yield network.transfer(routes, num_bytes)

All transfers that start or finish at one moment are seen together, so rates are computed once a moment. Rates
agree with `transfers.finish_times`; a property test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from towtank.simulator.network.fairness import max_min_rates
from towtank.simulator.network.routes import FloatArray, Routes, from_entries

if TYPE_CHECKING:
    import simpy

_AFTER_ALL_OTHERS: Any = 9
"""Priority of the event that settles rates: below SimPy's own two, hence after all that happens at one moment."""
_SAME_TIME = 1e-12


@dataclass(slots=True)
class _Flow:
    links: list[int]
    shares: list[float]
    left: float
    whole: float
    weight: float
    limit: float
    done: simpy.Event
    rate: float = 0.0


class FlowNetwork:
    """Links that concurrent transfers share max-min fairly."""

    def __init__(self, environment: simpy.Environment, capacity_bytes_per_s: FloatArray) -> None:
        self.environment = environment
        self.capacity = capacity_bytes_per_s
        self.bytes_moved = 0.0
        """Bytes of all transfers so far."""
        self._flows: dict[int, _Flow] = {}
        self._on_link: dict[int, set[int]] = {}
        self._changed_links: set[int] = set()
        self._new: set[int] = set()
        self._number = 0
        self._since = environment.now
        self._alarm = 0
        self._next = -1
        self._next_s = float("inf")
        self._settling = False

    def transfer(
        self,
        routes: Routes,
        num_bytes: float,
        *,
        weight: float = 1.0,
        limit_bytes_per_s: float = float("inf"),
    ) -> simpy.Event:
        """An event that happens when `num_bytes` have moved over `routes` (one flow), starting now.

        Raises:
            ValueError: not exactly one flow, or negative bytes.
        """
        if routes.num_flows != 1 or num_bytes < 0:
            raise ValueError(f"one flow and bytes from 0 are needed, got {routes.num_flows} and {num_bytes}")
        done = self.environment.event()
        if num_bytes == 0 or (len(routes.link) == 0 and limit_bytes_per_s == float("inf")):
            self.bytes_moved += num_bytes
            return done.succeed()
        links = [int(link) for link in routes.link]
        self._flows[self._number] = _Flow(
            links, routes.share.tolist(), num_bytes, num_bytes, weight, limit_bytes_per_s, done
        )
        for link in links:
            self._on_link.setdefault(link, set()).add(self._number)
        self._changed_links.update(links)
        self._new.add(self._number)
        self._number += 1
        self._settle_soon()
        return done

    def _settle_soon(self) -> None:
        if self._settling:
            return
        self._settling = True
        event = self.environment.event()
        event._ok, event._value = True, None
        event.callbacks.append(self._settle)
        self.environment.schedule(event, priority=_AFTER_ALL_OTHERS)

    def _advance(self) -> None:
        """Move bytes up to now, and end the flows that have none left."""
        seconds = self.environment.now - self._since
        self._since = self.environment.now
        ended = []
        for number, flow in self._flows.items():
            flow.left -= flow.rate * seconds
            if number == self._next and self.environment.now >= self._next_s:
                # due, even if its last bytes are too few to move the clock
                ended.append(number)
            elif flow.left <= _SAME_TIME * (flow.whole + flow.rate * self.environment.now):
                ended.append(number)
        for number in ended:
            flow = self._flows.pop(number)
            self.bytes_moved += flow.whole
            self._changed_links.update(flow.links)
            for link in flow.links:
                self._on_link[link].discard(number)
            flow.done.succeed()

    def _settle(self, _: Any) -> None:
        """Give new rates to everybody who shares links with what has changed, and set the next alarm."""
        self._settling = False
        self._advance()
        touched = sorted(self._touched())
        self._changed_links.clear()
        self._new.clear()
        if touched:
            flows = [self._flows[number] for number in touched]
            lengths = [len(flow.links) for flow in flows]
            routes = from_entries(
                len(flows),
                np.repeat(np.arange(len(flows), dtype=np.int64), lengths),
                np.array([link for flow in flows for link in flow.links], np.int64),
                np.array([share for flow in flows for share in flow.shares], np.float64),
            )
            rates = max_min_rates(
                self.capacity,
                routes,
                weight=np.array([flow.weight for flow in flows]),
                limit_bytes_per_s=np.array([flow.limit for flow in flows]),
            )
            for flow, rate in zip(flows, rates.tolist(), strict=True):
                flow.rate = rate
        self._set_alarm()

    def _touched(self) -> set[int]:
        """Flows joined to the changed links, directly or over other flows."""
        flows: set[int] = set(self._new)
        links, seen = set(self._changed_links), set(self._changed_links)
        while links:
            found = set().union(*(self._on_link.get(link, set()) for link in links)) - flows
            flows |= found
            links = {link for number in found for link in self._flows[number].links} - seen
            seen |= links
        return flows

    def _set_alarm(self) -> None:
        self._alarm += 1
        if not self._flows:
            return
        alarm = self._alarm
        left_s = {number: flow.left / flow.rate for number, flow in self._flows.items()}
        self._next = min(left_s, key=left_s.__getitem__)
        wait_s = max(left_s[self._next], 0.0)
        self._next_s = self.environment.now + wait_s
        timeout = self.environment.timeout(wait_s)
        timeout.callbacks.append(lambda _: self._settle_soon() if alarm == self._alarm else None)
