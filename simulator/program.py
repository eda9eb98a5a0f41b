"""The Program: one training step, lowered once. It knows operations and their order, not time."""

from dataclasses import dataclass
from functools import lru_cache

from towtank.simulator.lowering.sizes import Sizes, local_sizes
from towtank.simulator.lowering.stages import Chunk, backward_block, chunks_of, forward_block
from towtank.simulator.lowering.weights import parameter_messages, stage_weights
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.operations import Block, Message
from towtank.simulator.plan import Plan
from towtank.simulator.schedules.expand import pipeline_structure
from towtank.simulator.schedules.roles import PipelineStructure
from towtank.simulator.stacks.records import Stack


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """Operations of one step: blocks by [stage][chunk], and the pipeline tasks that order them.

    Ranks that do the same are one: a stage stands for all its tensor and data ranks.
    """

    sizes: Sizes
    chunks: tuple[tuple[Chunk, ...], ...]
    forward: tuple[tuple[Block, ...], ...]
    backward: tuple[tuple[Block, ...], ...]
    pipeline: PipelineStructure

    @property
    def send(self) -> Message:
        """Activations that a stage hands to the next one."""
        return send_message(self.sizes)


def send_message(sizes: Sizes) -> Message:
    """Transfer of one micro-batch's hidden state; in parts where the tensor group shares it."""
    parts = sizes.plan.tensor_x
    if not (sizes.sequence_split or sizes.stack.communication.scatter_gather_sends):
        parts = 1
    return Message("send", "pipeline", sizes.tokens * sizes.hidden * sizes.element_bytes / parts)


@lru_cache(maxsize=64)
def lower(model: ModelSpec, plan: Plan, stack: Stack) -> Program:
    """Lower a step. The plan must have passed its rules (`plan_rules.check`)."""
    sizes = local_sizes(model, plan, stack)
    stages = chunks_of(sizes)
    return Program(
        sizes=sizes,
        chunks=stages,
        forward=tuple(tuple(forward_block(sizes, chunk) for chunk in chunks) for chunks in stages),
        backward=tuple(tuple(backward_block(sizes, chunk) for chunk in chunks) for chunks in stages),
        pipeline=_structure(sizes, stages),
    )


def _structure(sizes: Sizes, stages: tuple[tuple[Chunk, ...], ...]) -> PipelineStructure:
    plan, overlap = sizes.plan, sizes.overlap
    layers = tuple(tuple(chunk.num_layers for chunk in chunks) for chunks in stages)
    gathers = bool(parameter_messages(sizes, stage_weights(sizes, stages[0])))
    return pipeline_structure(
        plan.schedule_name,
        plan.pipeline,
        plan.virtual_stages,
        plan.num_micro_batches,
        blocking_sends=not overlap.pipeline,
        layers_per_chunk=layers,
        unroll_first_forward=gathers and bool(overlap.parameter_gather),
        unroll_last_backward=bool(overlap.data_gradients),
        reduce_gradients=True,
        gradient_norm=True,
        gather_after_optimizer=gathers and not overlap.parameter_gather,
        by_chunk=sizes.stack.communication.collectives_by_chunk,
    )
