"""When plans are the same by another name: conditions on columns, each read off the formulas of the simulator."""

from collections.abc import Callable

import numpy as np

from towtank.autotune.space.draft import Draft, Mask, Numbers
from towtank.hardware_profiles.records import Device
from towtank.simulator.stacks.records import Stack


def expert_replicas(draft: Draft) -> Numbers:
    """Replicas of each expert, shape [rows] (`groups.expert_data_degree`)."""
    stage = draft.product("tensor_x", "tensor_y", "tensor_z", "context", "data")
    replicas: Numbers = stage // draft.product("expert", "expert_tensor")
    return replicas


def zero_is_moot(draft: Draft, stack: Stack) -> Mask:
    """Rows whose ZeRO stage above 0 changes nothing: states are split over one device, and so are those of experts.

    Stage 3 is a case of its own: where weights at rest are the master weights it keeps no others, even alone; and
    where tables at the ends are not sharded they are reduced apart, if there are replicas.
    """
    alone = shards(draft) * draft.numbers("context") == 1
    moot: Mask = alone & ((draft.numbers("expert") == 1) | (expert_replicas(draft) == 1))
    last = draft.numbers("zero_stage") == 3
    if stack.memory.weights_at_rest == "master":
        moot &= ~last
    if not stack.communication.shard_embedding:
        moot &= ~last | (draft.numbers("data") == 1)
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


def reduces_in_passes(draft: Draft, stack: Stack) -> Mask:
    """Rows whose gradients are reduced over weight shards in each backward pass (`layer.scatters_in_pass`)."""
    communication = stack.communication
    always = communication.shard_unit == "linear" or communication.reduce_every_micro_batch
    found: Mask = (weight_shards(draft) > 1) & (always | (draft.numbers("tensor_z") > 1))
    if communication.pipeline_keeps_gathered:
        found &= draft.numbers("pipeline") == 1
    return found


def reduces_gradients(draft: Draft, stack: Stack) -> Mask:
    """Rows that reduce gradients over replicas once per step (`weights.gradient_messages`)."""
    several = draft.product("data", "context") > 1
    found: Mask = several | (draft.numbers("expert") > 1)
    if not stack.communication.shard_embedding:
        found |= draft.numbers("tensor_z") > 1  # its members see different tokens, and none shards the tables
    else:
        done = (draft.numbers("zero_stage") == 3) & reduces_in_passes(draft, stack)
        found &= ~done | (shards(draft) < draft.numbers("data"))
    return found


def _gathers_parameters(draft: Draft, stack: Stack) -> Mask:
    stage = draft.numbers("zero_stage")
    several = (draft.product("data", "context") > 1) | (draft.numbers("expert") > 1)
    found: Mask = several & ((stage == 1) | (stage == 2))
    return found


def _gathers_weights(draft: Draft, stack: Stack) -> Mask:
    found: Mask = (weight_shards(draft) > 1) | (draft.numbers("expert") > 1)
    return found


_COMMUNICATION: dict[str, Callable[[Draft, Stack], Mask]] = {
    "data_gradients": reduces_gradients,
    "parameter_gather": _gathers_parameters,
    "tensor": lambda draft, stack: draft.product("sequence_parallel", "tensor_x") > 1,
    "backward_all_reduce": lambda draft, stack: draft.product("tensor_x", "tensor_y") > 1,
    "reduce_scatter": _gathers_weights,
    "all_gather": _gathers_weights,
    "pipeline": lambda draft, stack: draft.numbers("pipeline") > 1,
    "expert": lambda draft, stack: draft.numbers("expert") > 1,
}


def communicates(draft: Draft, switch: str, stack: Stack, device: Device) -> Mask:
    """Rows that have the communication which an overlap switch speaks of, shape [rows].

    On a device that runs one kernel after the other nothing overlaps with data-parallel collectives, and the switch
    says nothing (`predict._possible_overlap`).
    """
    if device.takes_turns and switch in ("data_gradients", "parameter_gather"):
        return np.zeros(draft.num_rows, np.bool_)
    return _COMMUNICATION[switch](draft, stack)


def own_switch(draft: Draft, switch: str, stack: Stack) -> Mask:
    """Whether the stack runs a communication beside compute where the plan says nothing (`resolve_overlap`)."""
    own = np.full(draft.num_rows, switch in stack.communication.overlaps)
    if switch == "expert":
        own &= passes_meet(draft)
    return own


def passes_meet(draft: Draft) -> Mask:
    """Rows in which forward and backward pass of two micro-batches meet on a device (`Plan.passes_meet`)."""
    meet: Mask = (draft.numbers("pipeline") == 1) | (draft.numbers("virtual_stages") > 1)
    return meet


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
