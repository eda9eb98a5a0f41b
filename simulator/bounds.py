"""Closed-form lower bound of a step: no task graph, no engine. It prunes a search and checks the engines."""

import numpy as np

from towtank.simulator.cost.model import CostModel
from towtank.simulator.engines.bounds import pipeline_bound
from towtank.simulator.lowering.sizes import Sizes, local_sizes
from towtank.simulator.lowering.stages import (
    Chunk,
    backward_segments,
    chunks_of,
    distinct_stages,
    forward_segments,
)
from towtank.simulator.lowering.weights import gradient_norm_work, optimizer_work, stage_weights
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.operations import Message, Operation, Segment, Stream
from towtank.simulator.program import send_message

_STREAMS = tuple(Stream)


def template_busy_s(template: tuple[Operation, ...], cost: CostModel) -> dict[Stream, float]:
    """Seconds of work of one template on each stream."""
    busy = dict.fromkeys(_STREAMS, 0.0)
    for operation in template:
        busy[operation.stream] += cost.duration_s(operation.work)
    return busy


def segments_bound_s(
    segments: list[Segment], cost: CostModel, known: dict[int, dict[Stream, float]]
) -> float:
    """Lower bound of a block: the busiest of its streams."""
    total = dict.fromkeys(_STREAMS, 0.0)
    for segment in segments:
        key = id(segment.template)
        if key not in known:
            known[key] = template_busy_s(segment.template, cost)
        for stream, seconds in known[key].items():
            total[stream] += segment.repeat * seconds
    return max(total.values())


def step_bound(model: ModelSpec, cost: CostModel) -> float:
    """Lower bound of the step time in seconds, in closed form.

    Stages are bound by their busiest stream; the pipeline by the stage whose first micro-batch arrives, whose
    work and whose last gradient returns latest (`pipeline_bound`); gradient norm and optimizer follow.
    """
    sizes = local_sizes(model, cost.plan, cost.stack)
    plan = sizes.plan
    stages = chunks_of(sizes)
    forward = np.empty((plan.virtual_stages, plan.pipeline))
    backward = np.empty((plan.virtual_stages, plan.pipeline))
    tail = np.empty(plan.pipeline)
    templates: dict[int, dict[Stream, float]] = {}
    for same in distinct_stages(sizes):
        members = list(same)
        for chunk in stages[same[0]]:
            forward[chunk.index, members] = segments_bound_s(forward_segments(sizes, chunk), cost, templates)
            backward[chunk.index, members] = segments_bound_s(
                backward_segments(sizes, chunk), cost, templates
            )
        tail[members] = _tail(sizes, stages[same[0]], cost)
    send = cost.duration_s(send_message(sizes)) if plan.pipeline > 1 else 0.0
    return pipeline_bound(
        forward,
        backward,
        plan.num_micro_batches,
        send_forward_s=send,
        send_backward_s=send,
        blocking_sends=not sizes.overlap.pipeline,
        tail_s=tail,
    )


def _tail(sizes: Sizes, chunks: tuple[Chunk, ...], cost: CostModel) -> float:
    """Gradient norm and optimizer of a stage."""
    weights = stage_weights(sizes, chunks)
    norm = cost.duration_s(gradient_norm_work(sizes, weights)) + cost.duration_s(
        Message("all-reduce", "world", 4.0)
    )
    return norm + cost.duration_s(optimizer_work(sizes, weights)) + sizes.stack.step_overhead_s
