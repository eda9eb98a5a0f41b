"""Where the nodes of a job lie on the machine, and where the groups of a plan lie on its devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from towtank.simulator.network.routes import IntArray

PlacementKind = Literal["contiguous", "scattered", "random"]


@dataclass(frozen=True, slots=True)
class Placed:
    """How a job lies on the machine: kind, the fill of `scattered`, the seed of whatever is drawn."""

    kind: PlacementKind = "contiguous"
    fill: float = 0.0
    seed: int = 0


def place_nodes(
    kind: PlacementKind, num_nodes: int, machine_nodes: int, *, fill: float = 0.0, seed: int = 0
) -> IntArray:
    """Node of the machine for each node of the job, shape [num_nodes].

    `contiguous`: the first nodes. `scattered`: other jobs hold `fill` of the machine at random, and a scheduler
    gives the job the first nodes that are free, in order. `random`: any nodes in any order.

    Raises:
        ValueError: the job does not fit, or `fill` is not in [0, 1).
    """
    if not 0 <= fill < 1:
        raise ValueError(f"fill must lie in [0, 1), got {fill}")
    random = np.random.default_rng(seed)
    busy = round(fill * machine_nodes) if kind == "scattered" else 0
    if not 1 <= num_nodes <= machine_nodes - busy:
        raise ValueError(
            f"the job needs {num_nodes} nodes, but {machine_nodes - busy} of {machine_nodes} are free"
        )
    if kind == "contiguous":
        return np.arange(num_nodes, dtype=np.int64)
    order = random.permutation(machine_nodes).astype(np.int64)
    if kind == "random":
        return order[:num_nodes]
    return np.sort(order[busy:])[:num_nodes]


def group_members(num_devices: int, dimensions: Sequence[tuple[int, int]]) -> IntArray:
    """Devices of every group that spans `dimensions`, given as (degree, stride), innermost first.

    Shape [groups, size]; members in the order in which a ring visits them, groups in the order of their first
    member.

    Raises:
        ValueError: the dimensions do not tile the devices.
    """
    offset = np.zeros(1, np.int64)
    first = np.arange(num_devices, dtype=np.int64)
    for degree, stride in dimensions:
        if degree < 1 or stride < 1 or num_devices % (degree * stride):
            raise ValueError(f"a degree of {degree} at stride {stride} does not tile {num_devices} devices")
        offset = (np.arange(degree)[:, None] * stride + offset[None, :]).ravel()
        first = first[first // stride % degree == 0]
    return first[:, None] + offset[None, :]


def interface_of(local: IntArray, devices: int, interfaces: int) -> IntArray:
    """Interfaces of a node that its device `local` sends through: the nearest ones, shape [..., 1 or more].

    Devices share interfaces in order where there are fewer of these (two GCDs of a module their one), and have
    several where there are more.
    """
    if interfaces <= devices:
        return (local * interfaces // devices)[..., None]
    each = interfaces // devices
    return local[..., None] * each + np.arange(each)
