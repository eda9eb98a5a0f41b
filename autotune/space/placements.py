"""Where groups lie on nodes, for all rows at once: `simulator.groups.place` in columns."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from towtank.autotune.space.draft import Draft, Mask, Numbers
from towtank.autotune.space.sameness import shards
from towtank.hardware_profiles.records import Machine
from towtank.simulator.network.crossing import group_pair_bytes_per_s
from towtank.simulator.plan import Dimension

Strides = dict[str, Numbers]
Parts = list[tuple[Numbers, Numbers]]
"""(degree, stride) of the dimensions of a group, each of shape [rows]."""


def strides(draft: Draft, order: Sequence[Dimension]) -> Strides:
    """Distance in ranks between neighbours along each dimension, by dimension; shape [rows]."""
    found: Strides = {}
    inner = np.ones(draft.num_rows, np.int64)
    for name in order:
        found[name] = inner
        inner = inner * draft.numbers(name)
    return found


def members_inside(degree: Numbers, step: Numbers, node: int, devices: int) -> Numbers:
    """Members of a group of one dimension that share a node, shape [rows] (`groups._members_inside`)."""
    inside = np.maximum(1, node // step)
    straddles = (degree <= inside) & (devices > node) & (node % (degree * step) != 0)
    fewer = np.maximum(1, np.gcd(node, degree * step) // step)
    found: Numbers = np.where(straddles, fewer, np.minimum(degree, inside))
    return found


def local_members(parts: Parts, node: int, devices: int) -> Numbers:
    """Members of a group that share a node, shape [rows]."""
    local = np.ones_like(parts[0][0])
    for degree, step in parts:
        local = local * np.where(degree == 1, 1, members_inside(degree, step, node, devices))
    found: Numbers = np.minimum(local, node)
    return found


def _groups(draft: Draft, at: Strides) -> list[Parts]:
    """Groups whose place an order decides."""
    degree = {name: draft.numbers(name) for name in at}
    one = {name: (degree[name], at[name]) for name in at}
    shard = shards(draft)
    sharded = draft.numbers("zero_stage") > 0
    in_shards = np.where(sharded, shard, 1)
    replicas = np.where(sharded, degree["data"] // shard, 1)
    context = np.where(sharded, degree["context"], 1)
    kept = draft.numbers("zero_stage") == 3
    gathered = (np.where(kept, shard, 1), at["data"]), (np.where(kept, degree["context"], 1), at["context"])
    return [
        [one["tensor_x"]],
        [one["tensor_y"]],
        [one["tensor_x"], one["tensor_y"]],
        [one["tensor_z"]],
        [one["context"]],
        [one["pipeline"]],
        [one["data"], one["context"]],
        list(one.values()),
        [one["tensor_z"], *gathered],
        [(in_shards, at["data"]), (context, at["context"])],
        [(replicas, at["data"] * shard)],
        [(np.minimum(2, degree["pipeline"]), at["pipeline"] * np.maximum(1, degree["pipeline"] - 1))],
    ]


@dataclass(frozen=True, slots=True)
class Reading:
    """What costs of communication on a machine read of a placement besides the members that share a node."""

    everything: bool
    """Rings meet on cables between groups of the network: every stride counts."""
    strides_inside: bool
    """Links inside a node differ by the distance of devices."""
    group_devices: int | None
    """Devices of a group of the network, where rings that leave it are slower."""

    @classmethod
    def of(cls, machine: Machine, devices: int) -> "Reading":
        """What is read on `machine` by a job of so many devices."""
        node, network = machine.node, machine.network
        size = None if network.group_nodes is None else network.group_nodes * node.devices
        shared = network.group_crossing is None and group_pair_bytes_per_s(machine) is not None
        return cls(
            everything=shared and size is not None and devices > size,
            strides_inside=bool(machine.measured_bus_bandwidth_bytes_per_s)
            or node.fabric not in ("switch", "pcie"),
            group_devices=None if network.group_crossing is None else size,
        )


def signature(draft: Draft, order: Sequence[Dimension], machine: Machine, devices: int) -> list[Numbers]:
    """Figures that costs read of an order, each of shape [rows]; orders that agree in them take the same time."""
    at = strides(draft, order)
    reading = Reading.of(machine, devices)
    node = machine.node.devices
    if reading.everything:
        return [np.where(draft.numbers(name) > 1, at[name], 0) for name in sorted(at)]
    found = []
    for parts in _groups(draft, at):
        size, nearest = np.ones(draft.num_rows, np.int64), np.full(draft.num_rows, devices)
        for degree, step in parts:
            size = size * degree
            nearest = np.where(degree > 1, np.minimum(nearest, step), nearest)
        local = local_members(parts, node, devices)
        read = local * 4
        if reading.group_devices is not None:
            nodes = -(-size * nearest // node) * node
            read += np.where((size > local) & (nodes > reading.group_devices), 2, 0)
        if reading.strides_inside:
            read += np.where(local > 1, nearest, 0) * 4 * (node + 1)
        found.append(np.where(size > 1, read, 0))
    return found


def same(one: list[Numbers], other: list[Numbers]) -> Mask:
    """Rows whose signatures agree, shape [rows]."""
    equal = np.ones(len(one[0]), np.bool_)
    for left, right in zip(one, other, strict=True):
        equal &= left == right
    return equal
