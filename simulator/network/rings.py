"""Rings inside a node, as a collective library opens them on the links that it finds."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from towtank.simulator.network.routes import FloatArray, added_up, summed
from towtank.simulator.network.topology import Topology

_SEARCHED = 8
"""Up to this many members all orders are tried; beyond, rings follow the numbers of the devices, both ways."""


def ring_load(topology: Topology, members: tuple[int, ...]) -> FloatArray:
    """Load of each link, shape [links], when a ring collective of `members` runs at a bus bandwidth of 1.

    The library opens several rings where links allow and spreads the bytes over them by their width. In a full
    mesh they use every link evenly; at a switch one ring is as good as many. Elsewhere they are the set of rings
    that is widest in all.
    """
    if topology.name == "mesh":
        return _even_mesh(topology, members)
    if topology.name == "linked":
        return _packed(topology, members)
    ring = np.array(members, np.int64)
    routes = topology.routes(ring, np.roll(ring, -1))
    return routes.load(topology.num_links)


def ring_width(topology: Topology, members: tuple[int, ...]) -> float:
    """Bus bandwidth in bytes/s of a ring collective of `members` alone on these links; infinite for one member."""
    if len(members) < 2:
        return float("inf")
    load = ring_load(topology, members)
    used = load > 0
    return float((topology.capacity_bytes_per_s[used] / load[used]).min())


def _even_mesh(topology: Topology, members: tuple[int, ...]) -> FloatArray:
    """n members hold n - 1 rings without common links, to within rounding of channels."""
    load = np.zeros(topology.num_links)
    for a in members:
        for b in members:
            if a != b:
                load[a * topology.num_endpoints + b] = 1 / (len(members) - 1)
    return load


def _orders(members: tuple[int, ...]) -> list[tuple[int, ...]]:
    first, *rest = members
    if len(members) > _SEARCHED:
        return [members, (first, *reversed(rest))]
    return [(first, *order) for order in permutations(rest)]


def _packed(topology: Topology, members: tuple[int, ...]) -> FloatArray:
    """Loads of the rings that together are widest; of equally wide sets the one that loads the links least.

    A linear program: the width of each ring is at least zero, and the rings over a link fit its capacity.
    """
    from scipy.optimize import linprog
    from scipy.sparse import csr_array

    orders = np.array(_orders(members), np.int64)
    count, size = orders.shape
    owner = np.repeat(np.arange(count, dtype=np.int64), size)
    routes = summed(topology.routes(orders.ravel(), np.roll(orders, -1, axis=1).ravel()), owner, count)
    unit = topology.capacity_bytes_per_s.max()
    loads = csr_array((routes.share, (routes.link, routes.flow)), shape=(topology.num_links, count))
    length = added_up(routes.flow, routes.share, count)
    found = linprog(
        length * _SHORT - 1, A_ub=loads, b_ub=topology.capacity_bytes_per_s / unit, method="highs"
    )
    width = np.asarray(found.x, np.float64)
    total = np.asarray(loads @ width, np.float64)
    return total / float(width.sum())


_SHORT = 1e-6
"""Weight of a ring's length beside its width: enough to decide between equally wide sets."""
