"""Weights that one stage holds, and what is done with them once per step: reduction, optimizer, gathering."""

from collections.abc import Sequence
from dataclasses import dataclass

from towtank.kernels.counts import BYTES_PER_ELEMENT, adam_bytes_per_parameter
from towtank.simulator.groups import expert_mapped, expert_state_shards, expert_weight_shards
from towtank.simulator.lowering.ends import embedding_shards, local_embedding_weights, position_weights
from towtank.simulator.lowering.layer import layer_kind, local_layer_weights, scatters_in_pass
from towtank.simulator.lowering.sizes import Sizes, activation_precision, parameter_bytes
from towtank.simulator.lowering.stages import Chunk
from towtank.simulator.operations import Elementwise, Message

FOR_EACH_PASSES = 2.5
"""Traffic of an optimizer made of one kernel per arithmetic step over that of a fused one (counted by hand:
20 reads and writes of fp32 where the fused kernel has 8)."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights on one device while in use (before sharding), by how they are sharded."""

    dense: int
    experts: int
    embedding: int

    def __add__(self, other: "Weights") -> "Weights":
        return Weights(
            self.dense + other.dense, self.experts + other.experts, self.embedding + other.embedding
        )


def layer_weights(sizes: Sizes, layer: int) -> Weights:
    """Weights of one layer on a device."""
    dense, experts = local_layer_weights(sizes, layer_kind(sizes, layer)[0])
    return Weights(dense, experts, 0)


def end_weights(sizes: Sizes, chunk: Chunk) -> Weights:
    """Embedding and head of a chunk; tied tables exist twice where first and last stage differ."""
    table = local_embedding_weights(sizes)
    count = 0
    if chunk.has_embedding:
        count += 1
    if chunk.has_head and not (
        sizes.model.tied_embeddings and chunk.has_embedding and sizes.plan.pipeline == 1
    ):
        tied_here = sizes.model.tied_embeddings and sizes.plan.pipeline == 1
        count += 0 if tied_here else 1
    total = Weights(0, 0, count * table + (position_weights(sizes) if chunk.has_embedding else 0))
    if chunk.has_head:
        for _ in range(sizes.model.mtp_layers):
            total += layer_weights(sizes, sizes.model.num_layers - 1)
            total += Weights(2 * sizes.model.hidden * sizes.hidden // sizes.plan.tensor_x, 0, 0)
    return total


def chunk_weights(sizes: Sizes, chunk: Chunk) -> Weights:
    """All weights of a chunk on a device."""
    total = end_weights(sizes, chunk)
    for run in chunk.runs:
        dense, experts = local_layer_weights(sizes, run.kind[0])
        total += Weights(dense * run.num_layers, experts * run.num_layers, 0)
    return total


def stage_weights(sizes: Sizes, chunks: Sequence[Chunk]) -> Weights:
    """All weights of a stage on a device."""
    total = Weights(0, 0, 0)
    for chunk in chunks:
        total += chunk_weights(sizes, chunk)
    return total


def at_rest(sizes: Sizes, weights: Weights) -> float:
    """Weights that a device keeps between uses."""
    plan = sizes.plan
    return (
        weights.dense / plan.weight_shards
        + weights.experts / expert_weight_shards(plan)
        + weights.embedding / embedding_shards(sizes)
    )


def with_states(sizes: Sizes, weights: Weights) -> float:
    """Weights whose optimizer states a device keeps."""
    plan = sizes.plan
    if sizes.stack.communication.shard_embedding:
        table = plan.state_shards
    else:
        table = plan.state_shards // plan.tensor_z if plan.zero_stage in (1, 2) else 1
    return (
        weights.dense / plan.state_shards
        + weights.experts / expert_state_shards(plan)
        + weights.embedding / table
    )


def gradient_precision(sizes: Sizes) -> str:
    """Precision in which gradients are kept and reduced."""
    return sizes.plan.gradient_precision or sizes.stack.communication.gradient_precision


def gradient_messages(sizes: Sizes, weights: Weights) -> list[Message]:
    """Reduction of gradients over data once per step.

    DDP: all-reduce. ZeRO 1, 2: reduce-scatter over the shards, all-reduce over the replicas. ZeRO 3: the
    reduce-scatter belongs to the backward passes, or to the end of the step where the stack waits for it.
    Tables that z does not shard are reduced over z too: its members see different tokens.
    """
    plan = sizes.plan
    element = BYTES_PER_ELEMENT[gradient_precision(sizes)]
    dense, experts, whole = (elements * element for elements in _reduced_elements(sizes, weights))
    messages = [Message("all-reduce", "tensor_z", whole)] if plan.tensor_z > 1 else []
    if plan.zero_stage == 0:
        messages += [
            Message("all-reduce", "data", dense + whole),
            Message("all-reduce", "expert_replicate", experts),
        ]
    elif plan.zero_stage < 3:
        messages += [
            Message("reduce-scatter", "state_shard", dense + whole),
            Message("all-reduce", "replicate", (dense + whole) / plan.shard_degree / plan.context),
            Message("reduce-scatter", "expert_replicate", experts),
        ]
    else:
        if not scatters_in_pass(sizes):
            routed = weights.experts * element if expert_mapped(plan) else 0.0
            messages += [
                Message("reduce-scatter", "state_shard", dense),
                Message("reduce-scatter", "expert_data", routed),
            ]
        replica = dense / plan.shard_degree / plan.context
        messages += [Message("all-reduce", "replicate", replica), Message("all-reduce", "data", whole)]
    return [message for message in messages if message.bytes > 0]


def _reduced_elements(sizes: Sizes, weights: Weights) -> tuple[float, float, float]:
    """Gradients left to reduce over data: (most of them, experts with a group of their own, unsharded tables)."""
    plan, table = sizes.plan, float(weights.embedding)
    dense, whole = (
        (weights.dense + table, 0.0) if sizes.stack.communication.shard_embedding else (weights.dense, table)
    )
    if not expert_mapped(plan):
        return (dense + weights.experts) / plan.tensor_z, 0.0, whole
    return dense / plan.tensor_z, weights.experts / expert_weight_shards(plan), whole


def parameter_messages(sizes: Sizes, weights: Weights) -> list[Message]:
    """All-gather of updated parameters over the shards of ZeRO 1 and 2."""
    plan = sizes.plan
    if plan.zero_stage not in (1, 2):
        return []
    element = parameter_bytes(sizes)
    dense, experts, whole = _reduced_elements(sizes, weights)
    messages = [
        Message("all-gather", "state_shard", (dense + whole) * element),
        Message("all-gather", "expert_replicate", experts * element),
    ]
    return [message for message in messages if message.bytes > 0]


def tied_embedding_message(sizes: Sizes, chunks: Sequence[Chunk]) -> Message | None:
    """All-reduce of the tied table's gradient between the first and the last stage."""
    ends = any(chunk.has_embedding or chunk.has_head for chunk in chunks)
    if not ends or not sizes.model.tied_embeddings or sizes.plan.pipeline == 1:
        return None
    element = BYTES_PER_ELEMENT[gradient_precision(sizes)]
    return Message("all-reduce", "ends", local_embedding_weights(sizes) / embedding_shards(sizes) * element)


def optimizer_work(sizes: Sizes, weights: Weights) -> Elementwise:
    """AdamW over the states that a device keeps."""
    plan = sizes.plan
    master = 0.0 if plan.master_precision == "none" else BYTES_PER_ELEMENT[plan.master_precision]
    weight = BYTES_PER_ELEMENT[activation_precision(plan.precision)]
    one = adam_bytes_per_parameter(BYTES_PER_ELEMENT[gradient_precision(sizes)], master, weight)
    fused = sizes.stack.optimizer_kernels == "fused"
    return Elementwise(
        with_states(sizes, weights) * one * (1.0 if fused else FOR_EACH_PASSES),
        4 if fused else 40,
        "optimizer",
    )


def gradient_norm_work(sizes: Sizes, weights: Weights) -> Elementwise:
    """One reading of the gradients that a device keeps, and their scaling."""
    element = BYTES_PER_ELEMENT[gradient_precision(sizes)]
    return Elementwise(3 * with_states(sizes, weights) * element, 8, "gradient-norm")
