"""Rows that are another row by another name in more than one field: rank orders, and shards over z."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from towtank.autotune.space.dimensions import values
from towtank.autotune.space.draft import Draft, Mask, Numbers
from towtank.autotune.space.placements import Reading, local_members, same, signature, strides
from towtank.autotune.space.sameness import shards, shards_over_z_are_data, zero_is_moot
from towtank.autotune.space.sharding import tiles_stages
from towtank.autotune.task import TuningTask
from towtank.hardware_profiles.records import Machine
from towtank.simulator.stacks.records import Stack


def own_zero_stage(task: TuningTask, draft: Draft) -> Mask:
    """Rows whose ZeRO stage makes a difference, or is the first that the constraints allow; shape [rows]."""
    first = draft.numbers("zero_stage") == values(task, "zero_stage")[0]
    whole = draft.numbers("data_shard") < 0
    found: Mask = ~zero_is_moot(draft, task.stack) | (first & whole)
    return found


def own_order(task: TuningTask, draft: Draft) -> Mask:
    """Rows whose rank order places groups otherwise than each order before it in the list, shape [rows].

    An order that experts forbid beside a pipeline gives no name.
    """
    orders = draft.choices["rank_order"]
    keep = np.ones(draft.num_rows, np.bool_)
    for later in range(1, len(orders)):
        rows = np.flatnonzero(draft.code("rank_order") == later)
        part = draft.take(rows)
        mine = signature(part, orders[later], task.machine, task.devices)
        own = np.ones(len(rows), np.bool_)
        for order in orders[:later]:
            legal = True if order[-1] == "pipeline" else ~tiles_stages(part)
            own &= ~(same(mine, signature(part, order, task.machine, task.devices)) & legal)
        keep[rows] = own
    return keep


def is_data(draft: Draft, order: Any, machine: Machine, stack: Stack, devices: int) -> Mask:
    """Rows whose shards over z are FSDP over data by another name (HSDP where replicas are left), shape [rows].

    Without ZeRO, z shards what FSDP over as many data ranks does, and data holds replicas. Under ZeRO 3 z and data
    shard together. Both need z right inside data on the ranks, and context to shard under both names or not at all.
    """
    z, stage = draft.numbers("tensor_z"), draft.numbers("zero_stage")
    at, degree = strides(draft, order), shards(draft)
    adjacent = (z > 1) & (at["data"] == at["tensor_z"] * z)

    def lies_alike(outer: Numbers, rest: Sequence[str]) -> Mask:
        """Whether a group over z and `outer` ranks of data shares nodes as one over both together does."""
        others = [(draft.numbers(name), at[name]) for name in rest]
        apart = local_members(
            [(z, at["tensor_z"]), (outer, at["data"]), *others], machine.node.devices, devices
        )
        joint = local_members([(z * outer, at["tensor_z"]), *others], machine.node.devices, devices)
        alike: Mask = apart == joint
        return alike

    fsdp = (stage == 3) & lies_alike(degree, ["context"])
    plain = (stage == 0) & (draft.product("context", "expert") == 1)
    if stack.memory.weights_at_rest == "master":
        plain &= False
    everyone = lies_alike(draft.numbers("data"), ["tensor_x", "tensor_y", "context", "pipeline"])
    can = np.isin(3, stack.supports.zero_with_pipeline) | (draft.numbers("pipeline") == 1)
    found: Mask = adjacent & (fsdp | plain) & everyone & can & shards_over_z_are_data(stack)
    if Reading.of(machine, devices).everything:
        found &= (
            draft.numbers("context") == 1
        )  # the ring over all devices visits z before context and data after it
    if stack.memory.working_gradients:
        found &= draft.product("data", "context") > 1
    return found


def renamed_shards(draft: Draft) -> tuple[Numbers, Numbers]:
    """(data, shard degree) of rows whose z is data by another name, each of shape [rows]."""
    z = draft.numbers("tensor_z")
    return z * draft.numbers("data"), z * shards(draft)


def own_shards(task: TuningTask, draft: Draft) -> Mask:
    """Rows that are no FSDP over data by the name of z, or whose other name the constraints exclude."""
    limits, stack = task.constraints, task.stack
    keep = np.ones(draft.num_rows, np.bool_)
    if (
        not shards_over_z_are_data(stack)
        or 1 not in values(task, "tensor_z")
        or 3 not in values(task, "zero_stage")
    ):
        return keep
    for code, order in enumerate(draft.choices["rank_order"]):
        rows = np.flatnonzero(draft.code("rank_order") == code)
        part = draft.take(rows)
        data, degree = renamed_shards(part)
        known = np.isin(data, values(task, "data"))
        if "data_shard" in limits.fixed:
            known &= np.isin(degree, limits.fixed["data_shard"])
        known &= (degree >= limits.least.get("data_shard", 1)) & (
            degree <= limits.most.get("data_shard", task.devices)
        )
        if not limits.lifts("data_shard"):
            inner = part.product("tensor_x", "tensor_y", "context")
            known &= (degree == data) | (inner * degree == task.machine.node.devices)
        keep[rows] = ~(is_data(part, order, task.machine, stack, task.devices) & known)
    return keep
