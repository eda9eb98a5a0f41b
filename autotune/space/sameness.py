"""When plans are the same by another name: conditions on columns, each read off the formulas of the simulator."""

import numpy as np

from towtank.autotune.space.draft import Draft, Mask, Numbers
from towtank.simulator.stacks.records import Stack


def expert_replicas(draft: Draft) -> Numbers:
    """Replicas of each expert, shape [rows] (`groups.expert_data_degree`)."""
    stage = draft.product("tensor_x", "tensor_y", "tensor_z", "context", "data")
    replicas: Numbers = stage // draft.product("expert", "expert_tensor")
    return replicas


def nothing_to_shard(draft: Draft) -> Mask:
    """Rows whose states no ZeRO stage splits: one data and context rank, one replica of each expert."""
    alone: Mask = draft.product("data", "context") == 1
    mine: Mask = (draft.numbers("expert") == 1) | (expert_replicas(draft) == 1)
    return alone & mine


def zero_is_moot(draft: Draft, stack: Stack) -> Mask:
    """Rows whose ZeRO stage above 0 changes nothing.

    Where weights at rest are the master weights, stage 3 keeps no others, even with nobody to share them with.
    """
    moot = nothing_to_shard(draft)
    if stack.memory.weights_at_rest == "master":
        moot &= draft.numbers("zero_stage") < 3
    return moot


def shards(draft: Draft) -> Numbers:
    """Degree over which the states of data ranks are split, 1 under ZeRO 0, shape [rows]."""
    shard, data = draft.numbers("data_shard"), draft.numbers("data")
    split: Numbers = np.where(draft.numbers("zero_stage") == 0, 1, np.where(shard < 0, data, shard))
    return split


def weight_shards(draft: Draft) -> Numbers:
    """Devices over which a weight at rest is split besides x and y, shape [rows] (`Plan.weight_shards`)."""
    whole = np.where(draft.numbers("zero_stage") == 3, shards(draft) * draft.numbers("context"), 1)
    found: Numbers = draft.numbers("tensor_z") * whole
    return found


def communicates(draft: Draft, switch: str) -> Mask:
    """Rows that have the communication which an overlap switch speaks of, shape [rows]."""
    experts = draft.numbers("expert") > 1
    replicas = draft.product("data", "context") > 1
    if switch == "data_gradients":
        return replicas | experts | (draft.numbers("tensor_z") > 1)
    if switch == "parameter_gather":
        stage = draft.numbers("zero_stage")
        found: Mask = (replicas | experts) & ((stage == 1) | (stage == 2))
        return found
    if switch == "tensor":
        return (draft.numbers("sequence_parallel") > 0) & (draft.numbers("tensor_x") > 1)
    if switch == "backward_all_reduce":
        return draft.product("tensor_x", "tensor_y") > 1
    if switch in ("reduce_scatter", "all_gather"):
        return (weight_shards(draft) > 1) | experts
    if switch == "pipeline":
        return draft.numbers("pipeline") > 1
    assert switch == "expert"
    return experts


def own_switch(draft: Draft, switch: str, stack: Stack) -> Mask:
    """Whether the stack runs a communication beside compute where the plan says nothing (`resolve_overlap`)."""
    own = np.full(draft.num_rows, switch in stack.communication.overlaps)
    if switch == "expert":
        own &= (draft.numbers("pipeline") == 1) | (draft.numbers("virtual_stages") > 1)
    return own


def shards_over_z_are_data(stack: Stack) -> bool:
    """Whether a shard over z and FSDP over data can be one step under a stack.

    Both must reduce gradients in each pass and shard the tables at the ends, and no weights may stay gathered over a
    pipeline. (Stacks for which z shards anything at all have no waits of their own in groups over z.)
    """
    communication = stack.communication
    in_pass = communication.shard_unit == "linear" or communication.reduce_every_micro_batch
    return (
        stack.supports.tensor_z
        and 3 in stack.supports.zero_stages
        and in_pass
        and communication.shard_embedding
        and not communication.pipeline_keeps_gathered
    )
