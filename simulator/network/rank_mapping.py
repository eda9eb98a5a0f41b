"""Which rank on which node: an order that keeps the groups of a collective on fast links.

As Pipette assigns workers to devices on measured bandwidths, and Holmes puts data-parallel groups inside islands. A
ring whose slowest link is as fast as possible is the bottleneck form of the travelling salesman's problem. Few ranks
are searched in every order; more by greedy starts, each improved by 2-opt reversals and by swaps of nodes that take
the slowest link away (Croes, Operations Research 6(6), 1958). The order that was given is one of the starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from math import factorial
from typing import Literal, NamedTuple

import numpy as np

from towtank.simulator.network.link_matrix import LinkCollective, LinkMatrix, paced
from towtank.simulator.network.routes import FloatArray, IntArray

_ALL_ORDERS = 5040
"""Up to this many orders all are tried: about a tenth of a second."""
_STARTS = 8
_WORK = 4e7
"""Links looked at by the search in all starts: some seconds."""
_LEAST_WORK = 500
"""Calls of array functions cost as much as looking at so many links."""
_SAME = 1e-12
"""Relative difference below which two times are the same."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """The better order: `order[rank]` is the place in the given order of the node that gets this rank."""

    order: IntArray
    given_s: float
    time_s: float
    search: Literal["all orders", "greedy and 2-opt"]

    @property
    def gain(self) -> float:
        """Time in the given order over time in this one; 1 or more."""
        return self.given_s / self.time_s


class _Cost(NamedTuple):
    """Slowest time, how many links take it, and all times added up: the later decide between equals."""

    slowest_s: float
    ties: int
    total_s: float

    def below(self, other: _Cost) -> bool:
        if abs(self.slowest_s - other.slowest_s) > _SAME * other.slowest_s:
            return self.slowest_s < other.slowest_s
        if self.ties != other.ties:
            return self.ties < other.ties
        return self.total_s < other.total_s * (1 - _SAME)


def best_order(
    links: LinkMatrix, members: IntArray, collective: LinkCollective, num_bytes: float, *, seed: int = 0
) -> Mapped:
    """An order of the nodes in which `collective` in all groups at once is done no later than in the given one.

    `members` [groups, size] holds every rank once, in ring order. Sends are compared as if alone; links that they
    share count in the choice between the order found and the one given. `seed` draws the greedy starts.
    """
    given = np.arange(links.size, dtype=np.int64)
    given_s = paced(links, members, collective, num_bytes).slowest_s
    search = _Search(links.alone_s(num_bytes / members.shape[1]), collective == "all_to_all")
    rows = given[members]
    alike = factorial(links.size - 1 if len(rows) == 1 else links.size) if links.size < 10 else np.inf
    exact = alike <= _ALL_ORDERS
    found = search.every(rows) if exact else search.descend_all(rows, np.random.default_rng(seed))
    order = given.copy()
    order[members] = found
    time_s = paced(links, order[members], collective, num_bytes).slowest_s
    if time_s >= given_s * (1 - _SAME):
        order, time_s = given, given_s
    return Mapped(order, given_s, time_s, "all orders" if exact else "greedy and 2-opt")


class _Search:
    """Searches nodes of groups `rows` [groups, size], given the cost [n, n] of a send over each link."""

    def __init__(self, cost_s: FloatArray, exchange: bool) -> None:
        self.cost_s = cost_s
        self.exchange = exchange
        """Whether every member sends to every other (all-to-all) or to the next one (rings)."""
        self.work = 0.0

    def group(self, row: IntArray) -> _Cost:
        """Cost of one group."""
        if self.exchange:
            size = len(row)
            to = (np.arange(size) + np.arange(1, size)[:, None]) % size
            total = float(self.cost_s[row, row[to]].max(axis=1).sum())
            self.work += max(size * size, _LEAST_WORK)
            return _Cost(total, 1, total)
        sends = self.sends(row)
        slowest = float(sends.max())
        self.work += max(len(row), _LEAST_WORK)
        return _Cost(slowest, int((sends == slowest).sum()), float(sends.sum()))

    def sends(self, row: IntArray) -> FloatArray:
        """Cost of the send from each member of a ring to the next one."""
        return self.cost_s[row, np.concatenate((row[1:], row[:1]))]

    def of(self, rows: IntArray) -> _Cost:
        """Cost of all groups."""
        return _joint([self.group(row) for row in rows])

    def every(self, rows: IntArray) -> IntArray:
        """The best of all orders; a ring may begin anywhere, so the first node of a lone group stays."""
        first, *rest = rows.ravel().tolist()
        orders = (
            ((first, *order) for order in permutations(rest))
            if len(rows) == 1
            else permutations((first, *rest))
        )
        best, best_cost = rows, self.of(rows)
        for order in orders:
            tried = np.array(order, np.int64).reshape(rows.shape)
            cost = self.of(tried)
            if cost.below(best_cost):
                best, best_cost = tried, cost
        return best

    def descend_all(self, rows: IntArray, random: np.random.Generator) -> IntArray:
        """The best that is found from the given order and from greedy ones."""
        best = self.descend(rows, _WORK / _STARTS)
        best_cost = self.of(best)
        for start in range(_STARTS - 1):
            nodes = rows.ravel() if start == 0 else random.permutation(rows.ravel())
            tried = self.descend(self.greedy(nodes, rows.shape), _WORK / _STARTS)
            cost = self.of(tried)
            if cost.below(best_cost):
                best, best_cost = tried, cost
        return best

    def greedy(self, nodes: IntArray, shape: tuple[int, ...]) -> IntArray:
        """Groups filled one after the other: from the first node left on, always the nearest one next."""
        left = nodes.copy()
        rows = np.empty(shape, np.int64)
        for row in rows:
            row[0], left = left[0], left[1:]
            for place in range(1, len(row)):
                far = self.cost_s[row[:place] if self.exchange else row[place - 1 : place]][:, left]
                nearest = int(far.max(axis=0).argmin())
                row[place], left = left[nearest], np.delete(left, nearest)
        return rows

    def descend(self, rows: IntArray, work: float) -> IntArray:
        """Moves that lower the cost until none does, or until `work` links have been looked at."""
        rows, end = rows.copy(), self.work + work
        costs = [self.group(row) for row in rows]
        moved = True
        while moved and self.work < end:
            moved = False
            now = _joint(costs)
            for changed in self.moves(rows, costs):
                tried = costs.copy()
                for group, row in changed.items():
                    tried[group] = self.group(row)
                if _joint(tried).below(now):
                    for group, row in changed.items():
                        rows[group] = row
                    costs, moved = tried, True
                    break
                if self.work > end:
                    break
        return rows

    def moves(self, rows: IntArray, costs: list[_Cost]) -> Iterator[dict[int, IntArray]]:
        """Changes of one or two groups that touch the slowest link (rings) or group (all-to-all)."""
        worst = max(range(len(rows)), key=lambda group: costs[group].slowest_s)
        row = rows[worst]
        size = len(row)
        if self.exchange:
            places = list(range(size))
        else:
            edge = int(self.sends(row).argmax())
            places = [edge, (edge + 1) % size]
            turned = np.roll(row, -(edge + 1))  # the slowest link joins the last to the first
            for end in range(2, size):
                yield {worst: np.concatenate((turned[:end][::-1], turned[end:]))}
        for place in places:
            for group in range(len(rows)):
                for other in range(size):
                    if (group, other) != (worst, place):
                        yield _swapped(rows, (worst, place), (group, other))


def _swapped(rows: IntArray, one: tuple[int, int], other: tuple[int, int]) -> dict[int, IntArray]:
    changed = {group: rows[group].copy() for group in (one[0], other[0])}
    changed[one[0]][one[1]], changed[other[0]][other[1]] = rows[other], rows[one]
    return changed


def _joint(costs: list[_Cost]) -> _Cost:
    """Cost of groups that run at once."""
    slowest = max(cost.slowest_s for cost in costs)
    ties = sum(cost.ties for cost in costs if cost.slowest_s >= slowest * (1 - _SAME))
    return _Cost(slowest, ties, sum(cost.total_s for cost in costs))
