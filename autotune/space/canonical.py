"""The one name of plans that are the same: equal canonical plans have equal steps and equal memory.

Each rename below rests on a formula of the simulator, in which the fields that it changes stand only in combinations
that stay as they are. The conditions are those of the columns (`sameness`, `placements`, `names`), on one row.
"""

from collections.abc import Callable
from dataclasses import fields, replace

from towtank.autotune.space.dimensions import SWITCHES, rank_orders
from towtank.autotune.space.draft import Draft
from towtank.autotune.space.execution import same_cached_layers
from towtank.autotune.space.names import is_data, renamed_shards
from towtank.autotune.space.placements import same, signature
from towtank.autotune.space.sameness import (
    communicates,
    own_switch,
    reduces_gradients,
    weight_shards,
    zero_is_moot,
)
from towtank.autotune.space.sharding import tiles_stages
from towtank.hardware_profiles.records import Machine
from towtank.simulator.lowering.sizes import local_sizes
from towtank.simulator.lowering.stages import chunks_of
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.plan import Plan
from towtank.simulator.stacks.records import Stack

Rename = Callable[[ModelSpec, Machine, Stack, Plan], Plan]


def canonical(model: ModelSpec, machine: Machine, stack: Stack, plan: Plan) -> Plan:
    """The canonical name of a legal plan: a legal plan that takes as long and needs as much memory.

    Two plans may still take equally long by chance; what is merged here is equal by the formulas.
    """
    before = None
    while plan != before:
        before = plan
        for rename in _RENAMES:
            plan = rename(model, machine, stack, plan)
    return plan


def row_of(plan: Plan) -> Draft:
    """A plan as the only row of a draft."""
    values = {field.name: getattr(plan, field.name) for field in fields(Plan)}
    return Draft(1, {name: (value,) for name, value in values.items()})


def _defaults(model: ModelSpec, machine: Machine, stack: Stack, plan: Plan) -> Plan:
    """What the plan says although the model or the stack would do the same by itself."""
    if plan.sequence == model.sequence:
        plan = replace(plan, sequence=None)
    if plan.gradient_precision == stack.communication.gradient_precision:
        plan = replace(plan, gradient_precision=None)
    if plan.schedule == replace(plan, schedule=None).schedule_name:
        plan = replace(plan, schedule=None)
    return plan


def _stages(model: ModelSpec, machine: Machine, stack: Stack, plan: Plan) -> Plan:
    """Stages that are split as the stack splits them."""
    if plan.stage_layers is None:
        return plan
    own = replace(plan, stage_layers=None)
    if model.num_layers < plan.pipeline or model.num_layers + 2 < plan.pipeline * plan.virtual_stages:
        return plan  # only a split that is given may leave stages empty
    chunks = [chunk for stage in chunks_of(local_sizes(model, own, stack)) for chunk in stage]
    counts = {chunk.index * plan.pipeline + chunk.stage: chunk.num_layers for chunk in chunks}
    return own if plan.stage_layers == tuple(counts[number] for number in sorted(counts)) else plan


def _degrees_of_one(model: ModelSpec, machine: Machine, stack: Stack, plan: Plan) -> Plan:
    """Fields that speak of a dimension which has one device, or of the only micro-batch."""
    if plan.context == 1:
        plan = replace(plan, context_kind="ring")
    if plan.tensor_x == 1:
        plan = replace(plan, sequence_parallel=False)
    if plan.num_micro_batches == 1 and plan.schedule == "gpipe":
        plan = replace(plan, schedule=None)  # one forward and one backward pass have one order
    return plan


def _sharding(model: ModelSpec, machine: Machine, stack: Stack, plan: Plan) -> Plan:
    """A shard group of all data, and ZeRO with nothing to shard."""
    if plan.zero_stage == 0 or plan.data_shard == plan.data:
        plan = replace(plan, data_shard=None)
    if plan.zero_stage and zero_is_moot(row_of(plan), stack)[0]:
        plan = replace(plan, zero_stage=0, data_shard=None)
    return plan


def _recompute(model: ModelSpec, machine: Machine, stack: Stack, plan: Plan) -> Plan:
    """Only the first layer recomputed; gathered weights kept for layers that need none."""
    every = min(plan.recompute_every, model.num_layers)
    cached = same_cached_layers(plan.cached_layers, every, model.num_layers)
    if weight_shards(row_of(plan))[0] == 1:
        cached = 0
    return replace(plan, recompute_every=every, cached_layers=cached)


def _buckets(model: ModelSpec, machine: Machine, stack: Stack, plan: Plan) -> Plan:
    """Buckets of gradients that nobody reduces."""
    if plan.gradient_bucket is None or reduces_gradients(row_of(plan), stack)[0]:
        return plan
    return replace(plan, gradient_bucket=None)


def _switches(model: ModelSpec, machine: Machine, stack: Stack, plan: Plan) -> Plan:
    """Overlap of what is not communicated, or as the stack overlaps by itself."""
    row = row_of(plan)
    moot = {
        switch: None
        for switch in SWITCHES
        if not communicates(row, switch, stack, machine.device)[0]
        or getattr(plan.overlap, switch) == bool(own_switch(row, switch, stack)[0])
    }
    return replace(plan, overlap=replace(plan.overlap, **moot))


def _order(model: ModelSpec, machine: Machine, stack: Stack, plan: Plan) -> Plan:
    """The first order of the stack that places every group alike."""
    orders = rank_orders(stack)
    if plan.rank_order == orders[0]:
        return plan
    row, devices = row_of(plan), plan.num_devices
    mine = signature(row, plan.rank_order, machine, devices)
    for order in orders:
        legal = order[-1] == "pipeline" or not tiles_stages(row)[0]
        if legal and same(mine, signature(row, order, machine, devices))[0]:
            return replace(plan, rank_order=order)
    return plan


def _shards_over_z(model: ModelSpec, machine: Machine, stack: Stack, plan: Plan) -> Plan:
    """FSDP (or HSDP) over data by the name of z."""
    row = row_of(plan)
    if plan.tensor_z == 1:
        return plan
    if not is_data(row, plan.rank_order, machine, stack, plan.num_devices)[0]:
        return plan
    data, shard = (int(each[0]) for each in renamed_shards(row))
    return replace(plan, tensor_z=1, data=data, data_shard=None if shard == data else shard, zero_stage=3)


_RENAMES: tuple[Rename, ...] = (
    _defaults, _stages, _degrees_of_one, _sharding, _recompute, _shards_over_z, _order, _buckets, _switches
)  # fmt: skip
