"""All legal plans of a task."""

from dataclasses import replace

import numpy as np

from towtank.autotune.errors import TuningError
from towtank.autotune.space import steps
from towtank.autotune.space.dimensions import SWITCHES, values
from towtank.autotune.space.draft import Draft, Mask
from towtank.autotune.space.placements import local_members, same, signature, strides
from towtank.autotune.space.sameness import (
    communicates,
    own_switch,
    shards,
    shards_over_z_are_data,
    zero_is_moot,
)
from towtank.autotune.space.steps import Step
from towtank.autotune.space.table import PlanTable
from towtank.autotune.task import TuningTask
from towtank.simulator.plan import Overlap, Plan

STEPS = (
    Step(("tensor_x",), steps._single("tensor_x"), steps.tensor_x),
    Step(("tensor_y",), steps._single("tensor_y"), steps.tensor_y),
    Step(("pipeline",), steps._single("pipeline"), steps.pipeline),
    Step(
        ("context", "context_kind"),
        lambda t: [(c, k) for c in values(t, "context") for k in values(t, "context_kind")],
        steps.context,
    ),
    Step(("tensor_z",), steps._single("tensor_z"), steps.tensor_z),
    Step(("data",), steps._single("data"), steps.data),
    Step(
        ("expert", "expert_tensor"),
        lambda t: [(c, k) for c in values(t, "expert") for k in values(t, "expert_tensor")],
        steps.experts,
    ),
    Step(("zero_stage", "data_shard"), steps.zero_options, steps.zero),
    Step(("rank_order",), steps._single("rank_order"), steps.rank_order),
    Step(("sequence_parallel",), steps._single("sequence_parallel"), steps.sequence_parallel),
    Step(("micro_batch",), steps._single("micro_batch"), steps.micro_batch),
    Step(("virtual_stages", "schedule"), steps.chunk_options, steps.chunks),
    Step(("precision",), steps._single("precision"), steps.precision),
    Step(("recompute", "recompute_every", "cached_layers"), steps.recompute_options, steps.recompute),
)


def legal_plans(task: TuningTask) -> PlanTable:
    draft = Draft()
    for step in STEPS:
        options = step.options(task)
        keep = np.ones((draft.num_rows, len(options)), np.bool_)
        for _, held in step.rules(task, draft, options):
            keep &= held
        draft = draft.expand(step.names, options, keep)
        if step.names[0] == "zero_stage":
            first = values(task, "zero_stage")[0]
            draft = draft.take(~zero_is_moot(draft, task.stack) | (draft.numbers("zero_stage") == first))
        if step.names[0] == "rank_order":
            draft = draft.take(distinct_orders(task, draft))
            draft = draft.take(~is_data_by_z(task, draft))
        if not draft.num_rows:
            raise TuningError([f"no plan is legal: nothing is left after {step.names[0]}"])
    for switch in SWITCHES:
        draft = _with_switch(task, draft, switch)
    return _table(task, draft)


def _table(task, draft):
    names = [f"overlap.{switch}" for switch in SWITCHES]
    key = np.zeros(draft.num_rows, np.int64)
    for name in names:
        if name in draft.codes:
            key = key * len(draft.choices[name]) + draft.codes[name]
    kinds, first, code = np.unique(key, return_index=True, return_inverse=True)
    overlaps = tuple(
        Overlap(**{switch: draft.value(f"overlap.{switch}", int(row)) for switch in SWITCHES})
        for row in first
    )
    choices = {name: each for name, each in draft.choices.items() if not name.startswith("overlap.")} | {
        "overlap": overlaps
    }
    codes = {name: each for name, each in draft.codes.items() if not name.startswith("overlap.")} | {
        "overlap": code.astype(np.int16)
    }
    base = Plan(global_batch=task.global_batch, sequence=task.sequence)
    shared = {
        name: each[0]
        for name, each in choices.items()
        if name not in codes or (len(each) == 1 and name != "tensor_x")
    }
    base = replace(base, **shared)
    return PlanTable(
        base,
        {n: c for n, c in choices.items() if n not in shared},
        {n: c for n, c in codes.items() if n not in shared},
    )


def distinct_orders(task, draft) -> Mask:
    orders = draft.choices["rank_order"]
    keep = np.ones(draft.num_rows, np.bool_)
    # an order is compared with those before it, of the same row of everything else
    for later in range(1, len(orders)):
        rows = np.flatnonzero(draft.codes["rank_order"] == later)
        part = draft.take(rows)
        if not part.num_rows:
            continue
        mine = signature(part, orders[later], task.machine, task.devices)
        for earlier in range(later):
            legal = np.array(orders[earlier][-1] == "pipeline") | ~(
                (part.product("expert", "expert_tensor") > 1) & (part.numbers("pipeline") > 1)
            )
            keep[rows] &= ~(same(mine, signature(part, orders[earlier], task.machine, task.devices)) & legal)
    return keep


def is_data_by_z(task, draft) -> Mask:
    stack = task.stack
    if not shards_over_z_are_data(stack):
        return np.zeros(draft.num_rows, np.bool_)
    z, stage, shard, data = (
        draft.numbers("tensor_z"),
        draft.numbers("zero_stage"),
        shards(draft),
        draft.numbers("data"),
    )
    allowed = np.isin(3, stack.supports.zero_with_pipeline) | (draft.numbers("pipeline") == 1)
    found = np.zeros(draft.num_rows, np.bool_)
    node, devices = task.machine.node.devices, task.devices
    one = draft.numbers("expert") == 1
    for order_code, order in enumerate(draft.choices["rank_order"]):
        mine = draft.codes["rank_order"] == order_code
        at = strides(draft, order)
        beside = at["data"] == at["tensor_z"] * z
        plain = (
            (stage == 0)
            & (draft.numbers("context") == 1)
            & one
            & (stack.memory.weights_at_rest != "master")
            & ((data > 1) | (not stack.memory.working_gradients))
        )
        apart = local_members([(z, at["tensor_z"]), (shard, at["data"])], node, devices)
        joint = local_members([(z * shard, at["tensor_z"])], node, devices)
        kept = (stage == 3) & (apart == joint)
        kept &= (data * draft.numbers("context") > 1) | (not stack.memory.working_gradients)
        found |= mine & (z > 1) & beside & (plain | kept) & allowed
    return found


def _with_switch(task, draft, switch):
    options = values(task, f"overlap.{switch}")
    if len(options) == 1 and options[0] is not True:
        return draft.fixed(f"overlap.{switch}", options[0])
    there, own = communicates(draft, switch)[:, None], own_switch(draft, switch, task.stack)[:, None]
    wish = np.array([-1 if each is None else int(each) for each in options])
    has = (wish != 1) | (switch in task.stack.supports.overlaps)
    another = (wish < 0) | (None not in options and True) | (wish != own)
    first = np.arange(len(options)) == 0
    keep = has & np.where(there, another, first)
    return draft.expand((f"overlap.{switch}",), [(o,) for o in options], keep)
