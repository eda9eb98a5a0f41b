"""Bus bandwidth of a process group from its place in the grid: measured where somebody did, else a rule."""

import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Literal

from towtank.hardware_profiles.errors import UnknownFigure
from towtank.hardware_profiles.records import Machine, Node, known
from towtank.simulator.axonn.grid import Grid

Basis = Literal["measured", "theoretical"]
BasisUsed = Literal["measured", "theoretical", "mixed"]

THEORETICAL_ASSUMPTIONS = (
    "ring algorithms; messages large enough that latency does not count",
    "ranks fill nodes in the order y, x, z, data, and a ring crosses each node boundary once",
    "a group is inside a node only if the node size is a multiple of (inner group sizes x own size)",
    "inside a switched node: all links of one device; inside a mesh: a link to each member of the group; "
    "inside a hierarchy: the best link for two neighbours, else the slowest link; over PCIe: the slowest",
    "between nodes: what one node can inject, shared by min(devices of a node, inner group sizes) rings, "
    "but no more than all links of one device where the profile knows them",
    "nominal rates: between nodes 0.8 of them was measured on Perlmutter and 0.4 on Frontier",
)
"""What `theoretical_bandwidth` takes for granted, in sentences to print beside its results."""


@dataclass(frozen=True, slots=True)
class AxisGroups:
    """(product of the inner group sizes, own size) by axis."""

    x: tuple[int, int]
    y: tuple[int, int]
    z: tuple[int, int]
    data: tuple[int, int]


@dataclass(frozen=True, slots=True)
class AxisBandwidths:
    """Bus bandwidth in bytes/s of the groups along each axis; infinite where a group has one member."""

    x: float
    y: float
    z: float
    data: float


def groups(grid: Grid) -> AxisGroups:
    """(product of the inner group sizes, own size) of each axis; ranks are nested y, x, z, data."""
    return AxisGroups(
        y=(1, grid.y), x=(grid.y, grid.x), z=(grid.y * grid.x, grid.z), data=(grid.tensor, grid.data)
    )


def bandwidth(machine: Machine, preceding: int, own: int, basis: Basis | None = None) -> float:
    """Bus bandwidth in bytes/s of a group of `own` devices, after `preceding` = product of inner group sizes.

    All `preceding` sibling groups are active. A group of one device sends nothing: infinite. The paper takes
    groups inside a node from a measured table (case 1) and the others from the rule of
    `theoretical_bandwidth` (case 2); the published tables hold both. `basis` None: measured where the
    profile has the pair, else the rule; otherwise only the one asked for. Raises UnknownFigure where the
    table lacks the pair or the rule a figure.
    """
    if own == 1:
        return math.inf
    measured = machine.measured_bus_bandwidth_bytes_per_s.get((preceding, own))
    if basis == "theoretical" or (basis is None and measured is None):
        return theoretical_bandwidth(machine, preceding, own)
    if measured is None:
        raise UnknownFigure(
            f"{machine.name}: measured_bus_bandwidth has no entry for a group of {own} devices after "
            f"{preceding} inner ones; measure it into a private profile, or allow theoretical bandwidths"
        )
    return measured


def basis_used(machine: Machine, grids: Iterable[Grid], basis: Basis | None = None) -> BasisUsed:
    """What `bandwidth` takes for the groups of `grids`: measured, theoretical or some of each (mixed)."""
    if basis is not None:
        return basis
    pairs = {pair for grid in grids for pair in astuple(groups(grid)) if pair[1] > 1}
    measured = pairs & machine.measured_bus_bandwidth_bytes_per_s.keys()
    if not measured:
        return "theoretical"
    return "measured" if measured == pairs else "mixed"


def theoretical_bandwidth(machine: Machine, preceding: int, own: int) -> float:
    """Nominal bandwidth in bytes/s of a group of `own` devices with `preceding` inner devices.

    Inside a node: the links of `THEORETICAL_ASSUMPTIONS`. Spanning nodes: beta_inter / min(G_node,
    preceding), the paper's case 2, with beta_inter the injection bandwidth of a node (as
    hpcgroup/plexus:performance/comm_model.py, version v2), and at most all links of one device. Raises
    UnknownFigure where the profile lacks the figure needed.
    """
    if own == 1:
        return math.inf
    node = machine.node
    if node.devices % (preceding * own) == 0:
        return _inside_node(machine, node, preceding, own)
    injection = known(
        machine,
        "node.injection_bytes_per_s",
        node.injection_bytes_per_s,
        needed_for="bandwidth between nodes",
    )
    share = injection / min(node.devices, preceding)
    # A ring passes through each device: the many NICs of a rack-sized node cannot all serve one ring.
    links = node.device_bandwidth_bytes_per_s
    return share if links is None else min(share, links)


def _inside_node(machine: Machine, node: Node, preceding: int, own: int) -> float:
    def figure(field: str, value: float | None) -> float:
        return known(machine, f"node.{field}", value, needed_for="bandwidth inside a node")

    if node.fabric == "switch":
        return figure("device_bandwidth_bytes_per_s", node.device_bandwidth_bytes_per_s)
    if node.fabric == "hierarchy" and preceding * own == 2:
        return figure("pair_bandwidth_max_bytes_per_s", node.pair_bandwidth_max_bytes_per_s)
    slowest = figure("pair_bandwidth_min_bytes_per_s", node.pair_bandwidth_min_bytes_per_s)
    # Several rings run at once over a mesh, so that a device uses its links to all members of the group.
    # Measured on Perlmutter: 76 GB/s for 2 devices (one link of 100) and 225 GB/s for 4 (three links).
    return slowest * (own - 1) if node.fabric == "mesh" else slowest


def axis_bandwidths(machine: Machine, grid: Grid, basis: Basis | None = None) -> AxisBandwidths:
    """Bandwidth of each axis of a grid. Raises UnknownFigure like `bandwidth`."""
    of = groups(grid)
    return AxisBandwidths(
        x=bandwidth(machine, *of.x, basis),
        y=bandwidth(machine, *of.y, basis),
        z=bandwidth(machine, *of.z, basis),
        data=bandwidth(machine, *of.data, basis),
    )
