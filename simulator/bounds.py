"""Closed-form lower bound of a step: no task graph, no engine. It prunes a search and checks the engines.

Blocks are bounded by `block_bound`, the pipeline by `engines.bounds`; here both meet, with the collectives over data
around them. All figures may be those of one plan or arrays over many that cut the model alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from towtank.simulator.block_bound import Figures, TemplateFigures, Terms, block_bound_s, template_figures
from towtank.simulator.cost.model import CostModel
from towtank.simulator.engines.bounds import (
    Passes,
    PipelineShape,
    PipelineTerms,
    pipeline_bounds,
    pipeline_terms,
)
from towtank.simulator.lowering.sizes import Sizes, local_sizes
from towtank.simulator.lowering.stages import (
    Chunk,
    chunks_of,
    distinct_stages,
    segments_of,
)
from towtank.simulator.lowering.weights import gradient_messages, parameter_messages, stage_weights
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.operations import Segment
from towtank.simulator.program import send_message
from towtank.simulator.schedules import SCHEDULES
from towtank.simulator.step_ends import (
    Collectives,
    gradient_norm_s,
    in_buckets,
    layer_seconds,
    messages_s,
    optimizer_s,
)

NUM_ENDS = 8
"""Figures of a stage's ends: see `StageEnds.values`."""


@dataclass(frozen=True, slots=True)
class StageEnds:
    """Seconds around the passes of stages, last axis of `values` [..., stages, NUM_ENDS].

    Gathers of parameters before the first forward pass: of the first layer of the first chunk, of the whole chunk, of
    all chunks. Reductions of gradients after the last backward pass: of the layer that runs last, of its chunk, of
    all chunks; 1 if they go layer by layer beside the pass, else 0. Gradient norm, optimizer, gathers at the end.
    """

    values: Figures

    def head_s(self, forward: Passes, layers: NDArray[np.integer]) -> Figures:
        """Start of the first chunk's first forward pass at which it ends as early as its gathers allow."""
        hidden = _all_but_one(forward.first_s, layers[0])
        return np.maximum(self.values[..., 0], self.values[..., 1] - hidden)

    def tail_s(self, backward: Passes, layers: NDArray[np.integer]) -> Figures:
        """Time from the end of the last backward pass to that of the reductions of its chunk."""
        hidden = self.values[..., 6] * _all_but_one(backward.first_s, layers[0])
        return np.maximum(self.values[..., 3], self.values[..., 4] - hidden)

    @property
    def all_gathers_s(self) -> Figures:
        """Gathers of all chunks."""
        return self.values[..., 2]

    @property
    def all_reductions_s(self) -> Figures:
        """Reductions of all chunks where they go layer by layer, else 0."""
        return self.values[..., 5]

    @property
    def after_s(self) -> Figures:
        """What follows when all gradients of all stages are reduced."""
        return self.values[..., 7]


def _all_but_one(pass_s: Figures, layers: NDArray[np.integer]) -> Figures:
    """Seconds of a pass without one of its layers, which share it alike."""
    result: Figures = pass_s * (1.0 - 1.0 / np.maximum(layers, 1))
    return result


def stage_ends(sizes: Sizes, chunks: Sequence[Chunk], cost: CostModel, *, gathers: bool) -> list[float]:
    """Figures of one stage's ends, [NUM_ENDS]; `gathers`: whether parameters are gathered once a step."""
    total, overlap = stage_weights(sizes, chunks), sizes.overlap
    head = [0.0, 0.0, 0.0]
    if gathers and overlap.parameter_gather:
        head = _in_layers(sizes, chunks, parameter_messages, cost, gathers=True)
    tail = [0.0, messages_s(in_buckets(sizes, total, gradient_messages), cost), 0.0, 0.0]
    if overlap.data_gradients:
        tail = [*_in_layers(sizes, chunks, gradient_messages, cost, gathers=False), 1.0]
    after = gradient_norm_s(sizes, chunks, cost) + optimizer_s(sizes, chunks, cost)
    if gathers and not overlap.parameter_gather:
        after += messages_s(in_buckets(sizes, total, parameter_messages), cost)
    return [*head, *tail, after]


def _in_layers(
    sizes: Sizes, chunks: Sequence[Chunk], collectives: Collectives, cost: CostModel, *, gathers: bool
) -> list[float]:
    """Collectives of the layers of a stage: of the first layer of its first chunk, of that chunk, of all chunks."""
    totals = []
    first = 0.0
    for chunk in chunks:
        total = 0.0
        for layer, seconds in layer_seconds(sizes, chunk, collectives, cost):
            if layer < 0 and not gathers:
                continue
            total += seconds
            if chunk is chunks[0] and layer <= 0:
                first = seconds
        totals.append(total)
    return [first, totals[0], sum(totals)]


@dataclass(frozen=True, slots=True, eq=False)
class StepTerms:
    """What bounds of steps need: those of one plan, or of many that cut the model alike and have one schedule."""

    schedule: str
    shape: PipelineShape
    layers: NDArray[np.integer]
    """Layers of the first and of the last chunk, shape [2, entries]."""
    num_micro_batches: NDArray[np.integer]
    """Shape [...]."""
    send_s: Figures
    """Seconds of a transfer between stages, shape [...]."""
    blocking_sends: NDArray[np.bool_]
    ends: StageEnds


_ROUNDING = 1e-12
"""Part of a bound by which its sums may round differently from an engine's: it is never above the answer."""

_ENDLESS = 1 << 40
"""Micro-batches of a pipeline whose warm-up they do not limit."""


def step_bounds_s(forward: Passes, backward: Passes, terms: StepTerms) -> Figures:
    """Lower bounds of step times in seconds, shape [...].

    The pipeline is bound by the stage whose first micro-batch arrives, whose work and whose last gradient returns
    latest (`pipeline_bounds`); when the last stage has reduced its gradients, norm and optimizer follow.
    """
    ends, shape = terms.ends, terms.shape
    send = terms.send_s[..., None]
    pipeline = pipeline_terms(
        shape,
        forward,
        backward,
        terms.num_micro_batches,
        send_forward_s=send,
        send_backward_s=send,
        blocking_sends=terms.blocking_sends,
        head_s=ends.head_s(forward, terms.layers),
        tail_s=ends.tail_s(backward, terms.layers),
    )
    in_flight = None
    if shape.num_chunks == 1:
        in_flight = SCHEDULES[terms.schedule].warm_up(shape.num_stages, 1, _ENDLESS)[shape.first] + 1
    until = pipeline_bounds(pipeline, in_flight)
    if shape.num_chunks > 1:
        until = np.maximum(until, _all_chunks_s(pipeline, terms))
    total: Figures = (until + ends.after_s.max(axis=-1)) * (1 - _ROUNDING)
    return total


def _all_chunks_s(pipeline: PipelineTerms, terms: StepTerms) -> Figures:
    """Bound by the collectives of all chunks of a stage, one after the other.

    The last chunk's first forward pass waits for all gathers, and what went before it are first passes of the chunks
    before. The reductions begin in the last chunk's last backward pass, behind which come those of the chunks before,
    of the last micro-batches, as many as there are stages.
    """
    forward, backward, stages = pipeline.forward, pipeline.backward, terms.shape.num_stages
    work = pipeline.num_micro_batches[..., None] * (forward.total_s + backward.total_s)
    layers = terms.layers[-1]
    before = stages * (forward.total_s - forward.last_s) + _all_but_one(forward.last_s, layers)
    gathered = terms.ends.all_gathers_s + work - before + pipeline.leaving_s
    behind = stages * (backward.total_s - backward.last_s) + _all_but_one(backward.last_s, layers)
    reduced = pipeline.arrival_s + work - behind + terms.ends.all_reductions_s
    result: Figures = np.maximum(gathered, reduced).max(axis=-1)
    return result


class _Templates:
    """Figures of the templates of one plan, each worked out once."""

    def __init__(self, cost: CostModel) -> None:
        self.cost = cost
        self.single_queue = cost.machine.device.takes_turns
        self.known: dict[int, TemplateFigures] = {}

    def stage_s(self, sizes: Sizes, chunks: Sequence[Chunk], terms: Terms, *, backward: bool) -> list[float]:
        """Bounds of the passes through the chunks of a stage."""
        found: dict[tuple[object, ...], float] = {}
        for chunk in chunks:
            if chunk.signature not in found:
                found[chunk.signature] = self._block_s(segments_of(sizes, chunk, backward=backward), terms)
        return [found[chunk.signature] for chunk in chunks]

    def _block_s(self, segments: Sequence[Segment], terms: Terms) -> float:
        """Bound of a block."""
        parts = []
        for segment in segments:
            key = id(segment.template)
            if key not in self.known:
                values = template_figures(
                    segment.template, self.cost.duration_s, single_queue=self.single_queue
                )
                self.known[key] = TemplateFigures(values)
            parts.append((self.known[key], segment.repeat))
        return float(block_bound_s(parts, terms))


def step_bound(model: ModelSpec, cost: CostModel) -> float:
    """Lower bound of the step time in seconds, in closed form: `step_bounds_s` of one plan."""
    sizes = local_sizes(model, cost.plan, cost.stack)
    plan, stages = sizes.plan, chunks_of(sizes)
    firsts, counts = stage_entries(distinct_stages(sizes))
    judged = [stages[first] for first in firsts]
    templates, terms = _Templates(cost), Terms.of(cost)
    gathers = gathers_parameters(sizes, stages)
    ends = np.array([stage_ends(sizes, chunks, cost, gathers=gathers) for chunks in judged])
    forward, backward = (
        Passes.of_chunks(
            np.array([templates.stage_s(sizes, chunks, terms, backward=each) for chunks in judged]).T
        )
        for each in (False, True)
    )
    send = cost.duration_s(send_message(sizes)) if plan.pipeline > 1 else 0.0
    step = StepTerms(
        plan.schedule_name,
        PipelineShape(plan.virtual_stages, np.array(counts)),
        end_chunk_layers(judged),
        np.array(plan.num_micro_batches),
        np.array(send),
        np.array(not sizes.overlap.pipeline),
        StageEnds(ends),
    )
    return float(step_bounds_s(forward, backward, step))


def gathers_parameters(sizes: Sizes, stages: Sequence[Sequence[Chunk]]) -> bool:
    """Whether updated parameters are gathered once a step."""
    return bool(parameter_messages(sizes, stage_weights(sizes, stages[0])))


def stage_entries(alike: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Stages for `PipelineShape`: (first stage of each entry, number of its stages); `alike` as `distinct_stages`.

    Of consecutive stages that do the same, the last is an entry of its own: there a micro-batch arrives latest.
    """
    kind = {stage: number for number, same in enumerate(alike) for stage in same}
    firsts: list[int] = []
    counts: list[int] = []
    begin = 0
    for stage in range(1, len(kind) + 1):
        if stage < len(kind) and kind[stage] == kind[begin]:
            continue
        if stage - begin > 1:
            firsts.append(begin)
            counts.append(stage - 1 - begin)
        firsts.append(stage - 1)
        counts.append(1)
        begin = stage
    return firsts, counts


def end_chunk_layers(stages: Sequence[Sequence[Chunk]]) -> NDArray[np.int64]:
    """Layers of the first and of the last chunk of each stage, shape [2, stages]."""
    return np.array([[chunks[0].num_layers, chunks[-1].num_layers] for chunks in stages]).T
