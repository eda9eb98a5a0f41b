"""ZeRO stages, the HSDP split, and the order in which dimensions lie on ranks."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from towtank.autotune.space.dimensions import values
from towtank.autotune.space.draft import Draft
from towtank.autotune.space.placements import strides
from towtank.autotune.space.sameness import shards_over_z_are_data
from towtank.autotune.space.steps import Options, Rule, beside, numbers
from towtank.autotune.task import TuningTask


def zero_options(task: TuningTask) -> Options:
    """Pairs of ZeRO stage and data_shard; None shards over all of data."""
    parts = (None, *values(task, "data_shard"))
    return [(stage, part) for stage in values(task, "zero_stage") for part in (parts if stage else (None,))]


def zero(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """ZeRO stages and the part of data over which they shard."""
    stage, shard = numbers(options), numbers(options, 1)
    can, name = task.stack.supports, task.stack.name
    yield f"zero_stage is one that {name} has", np.isin(stage, can.zero_stages)
    alone = beside(draft.numbers("pipeline")) == 1
    with_pipeline = alone | np.isin(stage, can.zero_with_pipeline)
    yield f"zero_stage is one that {name} has with a pipeline", with_pipeline
    replicas = beside(draft.numbers("data"))
    yield "data_shard divides data", (shard < 0) | (replicas % np.maximum(1, shard) == 0)
    yield "", (shard < 0) | (shard < replicas)
    degree = np.where(stage == 0, 1, np.where(shard < 0, replicas, shard))
    yield from _shard_limits(task, degree)
    node = task.machine.node.devices
    inner = beside(draft.product("tensor_x", "tensor_y", "context", "tensor_z"))
    if not task.constraints.lifts("data_shard"):
        fills = (shard < 0) | ((shard > 1) & (inner * shard == node))
        yield "data_shard is data or fills one node (usual limit of data_shard)", fills
    if not task.constraints.lifts("tensor_z") and shards_over_z_are_data(task.stack):
        z = beside(draft.numbers("tensor_z"))
        yield "tensor_z fills one node (usual limit of tensor_z)", (z == 1) | (inner == node)


def _shard_limits(task: TuningTask, degree: Any) -> Iterator[Rule]:
    """What a constraint says of data_shard, which is 1 under ZeRO 0."""
    limits = task.constraints
    if "data_shard" in limits.fixed:
        wanted = limits.fixed["data_shard"]
        yield "data_shard is as fixed (1 under ZeRO 0)", np.isin(degree, wanted)
    least, most = limits.least.get("data_shard", 1), limits.most.get("data_shard", task.devices)
    yield "data_shard lies between its limits (1 under ZeRO 0)", (degree >= least) & (degree <= most)


def rank_order(task: TuningTask, draft: Draft, options: Options) -> Iterator[Rule]:
    """Orders that the software has, of dimensions above degree 1."""
    orders = task.stack.supports.rank_orders
    if orders != "all":
        has = np.zeros((draft.num_rows, len(options)), np.bool_)
        own = [strides(draft, order) for order in orders]
        for place, (order,) in enumerate(options):
            at = strides(draft, order)
            for each in own:
                agree = [(at[name] == each[name]) | (draft.numbers(name) == 1) for name in at]
                has[:, place] |= np.logical_and.reduce(agree)
        yield f"rank_order is one that {task.stack.name} has", has
    last = np.array([order[-1] == "pipeline" for (order,) in options])
    yield "pipeline is last in rank_order beside expert parallelism", ~beside(tiles_stages(draft)) | last


def tiles_stages(draft: Draft) -> Any:
    """Rows whose experts tile the ranks of pipeline stages, shape [rows]."""
    return (draft.product("expert", "expert_tensor") > 1) & (draft.numbers("pipeline") > 1)
