"""Contention of rings between the groups of a dragonfly, in compiled form: no routes, only traffic between groups.

All rings of one family of groups (the data-parallel groups of a plan, say) run at once. Inside a group of the network
their traffic is taken not to meet; between two groups it shares their cables. `job.adapted_rings` follows every link
and is what this form is tested against.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from towtank.hardware_profiles.errors import UnknownFigure
from towtank.hardware_profiles.records import Machine
from towtank.simulator.network.placement import group_members

_DETOUR_SHARES = tuple(share / 16 for share in range(17))
"""Shares of the traffic between groups on detours that adaptive routing may settle at."""


def known_taper(machine: Machine, given: float | None = None, *, needed_for: str) -> float:
    """Bandwidth out of a group of the network over that of its nodes; `given` replaces that of the profile.

    Raises:
        UnknownFigure: neither tells; the message says how to study a value.
    """
    taper = machine.network.taper if given is None else given
    if taper is None:
        raise UnknownFigure(
            f"{machine.name}: network.taper (bandwidth out of a group of {machine.network.group_nodes} nodes over "
            f"that of its nodes) is unknown and {needed_for} needs it; write the figure with its source into a "
            f"private profile (--profiles DIR), or try a value of your own: {machine.name}:taper=0.5"
        )
    return taper


def group_pair_bytes_per_s(machine: Machine) -> float | None:
    """Bytes/s from one group to one other, all cables together; None where the profile does not tell.

    n cables of the rate of an interface, or the taper t of a group of m nodes that inject b, evenly over the g - 1
    other groups: t m b / (g - 1).
    """
    node, network = machine.node, machine.network
    if network.topology not in ("dragonfly", "dragonfly+"):
        return None
    if network.group_nodes is None or node.injection_bytes_per_s is None:
        return None
    if network.group_links is not None:
        return network.group_links * node.injection_bytes_per_s / max(1, node.nics)
    if network.taper is None or network.groups is None or network.groups < 2:
        return None
    return network.taper * network.group_nodes * node.injection_bytes_per_s / (network.groups - 1)


def crossings(
    num_devices: int, dimensions: Sequence[tuple[int, int]], group_devices: int, groups: int
) -> NDArray[np.float64]:
    """Rings that cross from one group of the network to another, shape [groups, groups], diagonal 0.

    `dimensions` are (degree, stride) of the family, innermost first; devices fill the groups in order.
    """
    group = group_members(num_devices, dimensions) // group_devices
    pair = group * groups + np.roll(group, -1, axis=1)
    count = np.bincount(pair.ravel(), minlength=groups**2).reshape(groups, groups).astype(np.float64)
    np.fill_diagonal(count, 0.0)
    return count


def fullest(crossing: NDArray[np.float64]) -> float:
    """Load of the fullest pair of groups, in rings, where adaptive routing spreads the crossings [groups, groups].

    A share s of the traffic T of each pair goes over one of the other groups: (1 - s) T_gh on the direct cables, and
    s (out_g + in_h) / (G - 2) of detours that begin or end there, less the pair's own. s is the best for the fullest.
    """
    groups = len(crossing)
    best = float(crossing.max())
    if groups < 3 or best == 0:
        return best
    through = crossing.sum(axis=1)[:, None] + crossing.sum(axis=0)[None, :] - 2 * crossing
    np.fill_diagonal(through, 0.0)
    for share in _DETOUR_SHARES[1:]:
        best = min(best, float(((1 - share) * crossing + share * through / (groups - 2)).max()))
    return best


@lru_cache(maxsize=1024)
def _load(
    num_devices: int, dimensions: tuple[tuple[int, int], ...], group_devices: int, groups: int
) -> float:
    return fullest(crossings(num_devices, dimensions, group_devices, groups))


def crossing_ratio(
    machine: Machine, num_devices: int, dimensions: tuple[tuple[int, int], ...], ring_bytes_per_s: float
) -> float:
    """What rings of `ring_bytes_per_s` ask of the fullest pair of groups over its cables, nodes in order.

    0 where the profile does not tell the cables, and where the job fits into one group.
    """
    network = machine.network
    pair = group_pair_bytes_per_s(machine)
    if pair is None or network.group_nodes is None or network.group_crossing is not None:
        return 0.0
    group_devices = network.group_nodes * machine.node.devices
    occupied = -(-num_devices // group_devices)
    if occupied < 2:
        return 0.0
    groups = max(network.groups or occupied, occupied)
    return _load(num_devices, dimensions, group_devices, groups) * ring_bytes_per_s / pair


def crossing_factor(
    machine: Machine, num_devices: int, dimensions: tuple[tuple[int, int], ...], ring_bytes_per_s: float
) -> float:
    """Time of rings of `ring_bytes_per_s` over what it would be with cables to spare between groups; 1 or more.

    1 where the profile does not tell the cables, and where the job fits into one group.
    """
    return max(1.0, crossing_ratio(machine, num_devices, dimensions, ring_bytes_per_s))
