"""Peak memory of each pipeline stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from towtank.kernels.counts import BYTES_PER_ELEMENT
from towtank.simulator.groups import expert_mapped, expert_weight_shards
from towtank.simulator.lowering.ends import embedding_shards, local_embedding_weights
from towtank.simulator.lowering.layer import (
    largest_linear,
    local_layer_weights,
    num_linears,
    scatters_in_pass,
)
from towtank.simulator.lowering.sizes import Sizes, activation_precision, parameter_bytes
from towtank.simulator.lowering.stages import Chunk
from towtank.simulator.lowering.weights import (
    Weights,
    at_rest,
    gradient_precision,
    stage_weights,
    with_states,
)
from towtank.simulator.memory.activations import (
    gathered_input_bytes,
    head_bytes,
    last_logits_bytes,
    layer_activations,
    layer_input_bytes,
)
from towtank.simulator.plan import Plan
from towtank.simulator.program import Program, send_message
from towtank.simulator.schedules import alive_micro_batches
from towtank.simulator.stacks.records import Memory

_MOMENT_BYTES = 4.0
"""Bytes of one fp32 moment of Adam."""


@dataclass(frozen=True, slots=True)
class StageMemory:
    """Peak of one stage in bytes per device; `parts` sums to it."""

    stage: int
    parts: Mapping[str, float]
    alive_micro_batches: int
    """Chunk passes whose activations are held at the peak."""

    @property
    def peak_bytes(self) -> float:
        """Sum of the parts."""
        return sum(self.parts.values())


Quantity = float | NDArray[np.float64]
"""Bytes of one stage, or of the same stage of many plans."""


@dataclass(frozen=True, slots=True)
class StageFigures:
    """What the peak of a stage is made of, in bytes per device."""

    weights: Quantity
    gradients: Quantity
    optimizer: Quantity
    gathered: Quantity
    """Weights gathered for use and gradients before they are scattered."""
    kept: Quantity
    """Activations that the passes of all chunks keep for one micro-batch, over the number of chunks."""
    working: Quantity
    """Working set of a layer that is recomputed or run backward."""
    head: Quantity
    """Activations kept at the end of the model."""
    logits: Quantity
    gathered_inputs: Quantity
    """Part of `kept` that is inputs gathered over tensor ranks."""
    late_gradients: Quantity
    """Gradients of one micro-batch in working precision, where the stack keeps such."""
    buffers: Quantity
    """Communication buffers."""


def stage_parts(figures: StageFigures, alive: Quantity, memory: Memory) -> dict[str, Quantity]:
    """Parts of the peak when `alive` passes of single chunks hold their activations.

    Passes are taken as the stage's mean, of whatever size they are. At the end of a micro-batch's backward pass its
    activations are gone, and those of `alive` - 1 others are held: of its gradients in working precision counts what
    is more than the activations which they replace. Allocator blocks leave holes beside tensors of many sizes;
    gathered inputs all have one size, in which a freed block fits the next.
    """
    activations = figures.kept * alive + figures.head
    freed = activations / alive + figures.logits
    parts = {
        "weights": figures.weights,
        "gradients": figures.gradients + np.maximum(0.0, figures.late_gradients - freed),
        "optimizer": figures.optimizer,
        "gathered weights": figures.gathered,
        "activations": activations,
        "recompute working set": figures.working,
        "logits": figures.logits,
        "communication buffers": figures.buffers,
    }
    everything = memory.fragments == "everything"
    fragmented = sum(parts.values()) if everything else activations - figures.gathered_inputs * alive
    parts["fragmentation"] = memory.fragmentation * fragmented
    parts["device context"] = memory.context_bytes
    return parts


def state_bytes(sizes: Sizes, weights: Weights) -> dict[str, float]:
    """Weights, gradients and optimizer states at rest."""
    plan = sizes.plan
    working = BYTES_PER_ELEMENT[activation_precision(plan.precision)]
    master = 0.0 if plan.master_precision == "none" else BYTES_PER_ELEMENT[plan.master_precision]
    gradient = BYTES_PER_ELEMENT[gradient_precision(sizes)]
    states = with_states(sizes, weights)
    resting = at_rest(sizes, weights)
    moment = _MOMENT_BYTES
    if master and sizes.stack.memory.weights_at_rest == "master" and plan.zero_stage == 3:
        # FSDP keeps the master weights themselves in shards and casts what it gathers; PyTorch keeps the moments of
        # a parameter, and its gradient in the end, in the precision of the parameter
        weight_bytes, master_bytes = resting * master, 0.0
        moment, gradient = min(moment, master), min(gradient, master)
    elif working == master:
        weight_bytes, master_bytes = resting * working, 0.0
    else:
        weight_bytes, master_bytes = resting * working, states * master
    if sizes.stack.memory.sharded_weights_apart and _sends_shards(plan):
        weight_bytes += states * working
    if sizes.stack.memory.working_gradients and plan.data * plan.context > 1:
        gradient += working  # the buckets of DistributedDataParallel
    held = _held_gradients(sizes, weights)
    return {
        "weights": weight_bytes,
        "gradients": held * gradient + _accumulated(sizes, held, states),
        "optimizer": master_bytes + states * 2 * moment,
    }


def _sends_shards(plan: Plan) -> bool:
    """Whether updated weights are gathered from those who keep their states (ZeRO 1 and 2)."""
    return plan.zero_stage in (1, 2) and plan.shard_degree * plan.context > 1


def _accumulated(sizes: Sizes, held: float, states: float) -> float:
    """Bytes of the wide copy of the gradients, where the stack has one.

    Under bf16 micro-batches are added up in it, so it holds all gradients. Under fp16 they are added up as they
    travel, with the loss scaled, and only what the optimizer keeps is widened (the BLOOM chronicles, "Rebalancing
    layers": the bf16 optimizer costs 4 bytes a parameter more, not sharded).
    """
    if sizes.stack.memory.accumulation_precision == "none":
        return 0.0
    return BYTES_PER_ELEMENT["fp32"] * (states if sizes.plan.precision == "fp16" else held)


def _has_shard_buckets(sizes: Sizes) -> bool:
    """Whether gradients and weights of sharded states travel in the stack's buckets.

    The bf16 optimizer shards by itself and has none (tr11-176B-ml.slurm: "it implements its own zero stage 1").
    """
    return sizes.plan.state_shards > 1 and sizes.plan.precision != "bf16"


def _shard_buckets_bytes(sizes: Sizes) -> float:
    """Buckets of gradients and of weights: of the plan's size where it has one and the stack has such buckets."""
    usual, size = sizes.stack.memory.shard_buckets_bytes, sizes.plan.gradient_bucket
    if usual == 0 or size is None:
        return usual
    return 2 * size * BYTES_PER_ELEMENT[activation_precision(sizes.plan.precision)]


def _held_gradients(sizes: Sizes, weights: Weights) -> float:
    """Gradients that a device keeps through the backward pass.

    Sharded from ZeRO 2 on, except where the stack reduces them only after the last of several micro-batches.
    """
    plan = sizes.plan
    once = plan.num_micro_batches > 1 and not sizes.stack.communication.reduce_every_micro_batch
    if plan.zero_stage == 3 and plan.num_micro_batches > 1 and not scatters_in_pass(sizes):
        return weights.dense + weights.experts + weights.embedding
    if plan.zero_stage == 3 or (plan.zero_stage == 2 and not once):
        return with_states(sizes, weights)
    experts = weights.experts / (expert_weight_shards(plan) if expert_mapped(plan) else plan.tensor_z)
    table = weights.embedding / min(embedding_shards(sizes), plan.tensor_z)
    return weights.dense / plan.tensor_z + experts + table


def gathered_bytes(sizes: Sizes, chunks: Sequence[Chunk]) -> float:
    """Weights gathered for use and gradients before they are scattered: present and prefetched unit."""
    if sizes.plan.weight_shards == 1:
        return 0.0
    kinds = {run.kind[0] for chunk in chunks for run in chunk.runs}
    by_linear = sizes.stack.communication.shard_unit == "linear"
    unit = max((_unit_weights(sizes, experts, by_linear=by_linear) for experts in kinds), default=0)
    ends = any(chunk.has_embedding or chunk.has_head for chunk in chunks)
    table = local_embedding_weights(sizes) if ends and embedding_shards(sizes) > 1 else 0
    units = 2 if sizes.overlap.all_gather else 1
    element = parameter_bytes(sizes)
    reduced = element if by_linear else BYTES_PER_ELEMENT[gradient_precision(sizes)]
    kept = _kept_gathered(sizes, chunks)
    gradients = max((_whole_gradients(sizes, experts, unit) for experts in kinds), default=0)
    return max((kept + units * unit) * element + gradients * reduced, (table + unit) * element)


def _whole_gradients(sizes: Sizes, experts: bool, unit: int) -> int:
    """Gradients that are there before they are scattered: the one computed and those under way."""
    under_way = sizes.stack.communication.scatters_under_way if sizes.overlap.reduce_scatter else 0
    if under_way < 2:
        return (1 + under_way) * unit
    # of a layer's linear layers not all are as large as the largest
    layers = -(-(1 + under_way) // num_linears(sizes, experts))
    return min((1 + under_way) * unit, layers * sum(local_layer_weights(sizes, experts)))


def _unit_weights(sizes: Sizes, experts: bool, *, by_linear: bool) -> int:
    """Weights that one gather brings: a whole layer, or its largest linear layer (routed experts count as one)."""
    dense, routed = local_layer_weights(sizes, experts)
    return max(largest_linear(sizes, experts), routed) if by_linear else dense + routed


def _kept_gathered(sizes: Sizes, chunks: Sequence[Chunk]) -> int:
    """Weights that stay gathered between the passes: of layers that the backward pass does not gather again."""
    if sizes.regathers:
        return 0
    # recomputation gathers again what it needs, unless all of it stays
    whole = sizes.pipeline_keeps_gathered
    runs = [run for chunk in chunks for run in chunk.runs if whole or run.cached or not run.recomputed]
    return sum(run.num_layers * sum(local_layer_weights(sizes, run.kind[0])) for run in runs)


def _activation_figures(sizes: Sizes, chunks: Sequence[Chunk]) -> tuple[float, float, float]:
    """(kept, kept of gathered inputs, working set) of one micro-batch; the first two over the number of chunks."""
    kept, gathered, working = 0.0, 0.0, 0.0
    for chunk in chunks:
        for run in chunk.runs:
            one = layer_activations(sizes, run.kind, run.recomputed)
            kept += one.kept * run.num_layers
            gathered += gathered_input_bytes(sizes, run.kind, run.recomputed) * run.num_layers
            working = max(working, one.working)
    return kept / len(chunks), gathered / len(chunks), working


def end_bytes(sizes: Sizes) -> tuple[float, float]:
    """(activations kept at the end of the model, logits) of the last stage."""
    each, logits = head_bytes(sizes)
    return each, logits * (1 + sizes.model.mtp_layers) + last_logits_bytes(sizes)


def late_gradient_bytes(sizes: Sizes, weights: Weights) -> float:
    """Gradients of one micro-batch in working precision; 0 where the stack keeps none beside the main ones."""
    if not sizes.stack.memory.working_gradients:
        return 0.0
    return _held_gradients(sizes, weights) * BYTES_PER_ELEMENT[activation_precision(sizes.plan.precision)]


def buffer_bytes(sizes: Sizes) -> float:
    """Communication buffers: buckets of shards, a send and a receive in both directions, the gathered input of a
    linear layer and of the one after it."""
    sends = 4 * send_message(sizes).bytes if sizes.plan.pipeline > 1 else 0.0
    buckets = _shard_buckets_bytes(sizes) if _has_shard_buckets(sizes) else 0.0
    gathered = sizes.plan.tensor_x if sizes.sequence_split else 1
    return buckets + sends + 2 * layer_input_bytes(sizes) * gathered


def stage_memory(program: Program, stage: int, alive: int) -> StageMemory:
    """Peak memory of one stage."""
    sizes, chunks = program.sizes, program.chunks[stage]
    weights = stage_weights(sizes, chunks)
    states = state_bytes(sizes, weights)
    kept, gathered_inputs, working = _activation_figures(sizes, chunks)
    head, logits = end_bytes(sizes) if any(chunk.has_head for chunk in chunks) else (0.0, 0.0)
    figures = StageFigures(
        weights=states["weights"],
        gradients=states["gradients"],
        optimizer=states["optimizer"],
        gathered=gathered_bytes(sizes, chunks),
        kept=kept,
        working=working,
        head=head,
        logits=logits,
        gathered_inputs=gathered_inputs,
        late_gradients=late_gradient_bytes(sizes, weights),
        buffers=buffer_bytes(sizes),
    )
    parts = stage_parts(figures, alive, sizes.stack.memory)
    return StageMemory(stage, {name: float(size) for name, size in parts.items() if size > 0}, alive)


def stage_memories(program: Program) -> tuple[StageMemory, ...]:
    """Peak memory of every stage; stages with the same chunks and the same number alive are worked out once."""
    plan = program.sizes.plan
    alive = alive_micro_batches(
        plan.schedule_name, plan.pipeline, plan.virtual_stages, plan.num_micro_batches
    )
    known: dict[tuple[object, ...], StageMemory] = {}
    result = []
    for stage in range(plan.pipeline):
        key = (int(alive[stage]), *(block.signature for block in program.forward[stage]))
        if key not in known:
            known[key] = stage_memory(program, stage, int(alive[stage]))
        found = known[key]
        result.append(StageMemory(stage, found.parts, found.alive_micro_batches))
    return tuple(result)
