"""Time of one step: blocks on the pipeline's tasks, and where the time goes."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from towtank.simulator.block_time import BlockTime, Engine, time_block
from towtank.simulator.cost.model import CostModel
from towtank.simulator.graph import Contention, TaskGraph, Timeline
from towtank.simulator.lowering.weights import (
    Weights,
    chunk_weights,
    end_weights,
    gradient_messages,
    gradient_norm_work,
    layer_weights,
    optimizer_work,
    parameter_messages,
    stage_weights,
    tied_embedding_message,
)
from towtank.simulator.operations import Block, Message
from towtank.simulator.program import Program
from towtank.simulator.schedules.roles import Role, StreamKind


@dataclass(frozen=True, slots=True, eq=False)
class StepTime:
    """One step on the clock. `breakdown_s` is the mean over stages and sums to `step_time_s`."""

    program: Program
    forward: tuple[tuple[BlockTime, ...], ...]
    backward: tuple[tuple[BlockTime, ...], ...]
    graph: TaskGraph
    timeline: Timeline
    step_time_s: float
    breakdown_s: Mapping[str, float]


class DurationTable:
    """Seconds of pipeline tasks by role, stage, chunk and layer; layer -1 is the whole chunk or stage."""

    def __init__(self, program: Program) -> None:
        layers = max((chunk.num_layers for chunks in program.chunks for chunk in chunks), default=0)
        plan = program.sizes.plan
        self.seconds = np.zeros((len(Role), plan.pipeline, plan.virtual_stages, layers + 1))

    def set(self, role: Role, stage: int, seconds: float, chunk: int = 0, layer: int = -1) -> None:
        """Set one entry."""
        self.seconds[role, stage, chunk, layer + 1] = seconds

    def durations(self, program: Program) -> NDArray[np.float64]:
        """Seconds of every task of the program's pipeline."""
        tasks = program.pipeline
        chunk = np.maximum(tasks.chunk, 0)
        table: NDArray[np.float64] = self.seconds[tasks.role, tasks.stage, chunk, tasks.layer + 1]
        return table


def _seconds(cost: CostModel, messages: list[Message]) -> float:
    return sum(cost.duration_s(message) for message in messages)


def _share_among_layers(table: DurationTable, role: Role, stage: int, chunk: int, total: float, count: int) -> None:
    """Layers of an unrolled pass share the time of the whole pass, so that both add up to the same."""
    for layer in range(count):
        table.set(role, stage, total / count, chunk, layer)


def _fill_collectives(table: DurationTable, program: Program, cost: CostModel, stage: int) -> None:
    """Reductions and gathers over data, layer by layer (unrolled) and for the whole stage."""
    sizes, chunks = program.sizes, program.chunks[stage]
    # reductions of a stage that is not unrolled are one task, listed under chunk 0
    total = stage_weights(sizes, list(chunks))
    table.set(Role.GRADIENT_REDUCE, stage, _seconds(cost, gradient_messages(sizes, total)))
    table.set(Role.PARAMETER_GATHER_AFTER, stage, _seconds(cost, parameter_messages(sizes, total)))
    known: dict[Weights, tuple[float, float]] = {}
    for chunk in chunks:
        if chunk.num_layers == 0 and len(chunks) > 1:
            weights = chunk_weights(sizes, chunk)
            table.set(Role.PARAMETER_GATHER, stage, _seconds(cost, parameter_messages(sizes, weights)), chunk.index)
        for layer in range(chunk.num_layers):
            weights = layer_weights(sizes, chunk.first_layer + layer)
            if layer in (0, chunk.num_layers - 1) and (chunk.has_embedding or chunk.has_head):
                ends = end_weights(sizes, chunk)
                at_this_end = (layer == 0) == chunk.has_embedding or chunk.num_layers == 1
                weights = weights + ends if at_this_end else weights
            if weights not in known:
                known[weights] = (
                    _seconds(cost, gradient_messages(sizes, weights)),
                    _seconds(cost, parameter_messages(sizes, weights)),
                )
            reduce, gather = known[weights]
            table.set(Role.GRADIENT_REDUCE, stage, reduce, chunk.index, layer)
            table.set(Role.PARAMETER_GATHER, stage, gather, chunk.index, layer)


def _fill_ends(table: DurationTable, program: Program, cost: CostModel, stage: int) -> None:
    """Gradient norm, optimizer and what lies outside of all passes."""
    sizes, chunks = program.sizes, list(program.chunks[stage])
    weights = stage_weights(sizes, chunks)
    norm = cost.duration_s(gradient_norm_work(sizes, weights)) + cost.duration_s(Message("all-reduce", "world", 4.0))
    tied = tied_embedding_message(sizes, chunks)
    table.set(Role.GRADIENT_NORM, stage, norm + (cost.duration_s(tied) if tied else 0.0))
    optimizer = cost.duration_s(optimizer_work(sizes, weights))
    table.set(Role.OPTIMIZER, stage, optimizer + sizes.stack.step_overhead_s)


def _time_blocks(
    blocks: tuple[tuple[Block, ...], ...], cost: CostModel, engine: Engine, contention: Contention
) -> tuple[tuple[BlockTime, ...], ...]:
    """Time blocks; those with one signature once."""
    known: dict[tuple[object, ...], BlockTime] = {}

    def time_one(block: Block) -> BlockTime:
        if block.signature not in known:
            known[block.signature] = time_block(block, cost, engine, contention)
        return known[block.signature]

    return tuple(tuple(time_one(block) for block in chunk) for chunk in blocks)


def time_step(program: Program, cost: CostModel, engine: Engine) -> StepTime:
    """Run a step on an engine.

    Raises:
        UnknownFigure: the machine's profile lacks a figure that the step needs.
    """
    contention = Contention(program.sizes.stack.fitted.compute_slowdown)
    forward = _time_blocks(program.forward, cost, engine, contention)
    backward = _time_blocks(program.backward, cost, engine, contention)
    table = DurationTable(program)
    send = cost.duration_s(program.send) if program.sizes.plan.pipeline > 1 else 0.0
    for stage, chunks in enumerate(program.chunks):
        _fill_collectives(table, program, cost, stage)
        _fill_ends(table, program, cost, stage)
        for chunk in chunks:
            for role, times in ((Role.FORWARD, forward), (Role.BACKWARD, backward)):
                seconds = times[stage][chunk.index].makespan_s
                table.set(role, stage, seconds, chunk.index)
                _share_among_layers(table, role, stage, chunk.index, seconds, chunk.num_layers)
            table.set(Role.SEND_FORWARD, stage, send, chunk.index)
            table.set(Role.SEND_BACKWARD, stage, send, chunk.index)
    graph = TaskGraph(program.pipeline.structure, table.durations(program))
    timeline = engine(graph, contention)
    parts = _breakdown(program, forward, backward, graph, timeline)
    return StepTime(program, forward, backward, graph, timeline, timeline.makespan_s, parts)


_WAITING_FOR = {
    Role.FORWARD: "bubble",
    Role.BACKWARD: "bubble",
    Role.SEND_FORWARD: "exposed send pipeline",
    Role.SEND_BACKWARD: "exposed send pipeline",
    Role.PARAMETER_GATHER: "exposed parameter all-gather data",
    Role.GRADIENT_REDUCE: "exposed gradient reduction data",
    Role.GRADIENT_NORM: "gradient norm",
    Role.OPTIMIZER: "optimizer",
    Role.PARAMETER_GATHER_AFTER: "exposed parameter all-gather data",
}
"""Row in which the time of a task counts, if it is on the compute stream or the compute stream waits for it."""


def _breakdown(
    program: Program,
    forward: tuple[tuple[BlockTime, ...], ...],
    backward: tuple[tuple[BlockTime, ...], ...],
    graph: TaskGraph,
    timeline: Timeline,
) -> dict[str, float]:
    """Account for every second of every stage's compute stream, then take the mean over stages."""
    tasks, plan = program.pipeline, program.sizes.plan
    stages = plan.pipeline
    parts: dict[str, float] = defaultdict(float)
    compute = np.flatnonzero(tasks.structure.stream // stages == StreamKind.COMPUTE)
    compute = compute[np.lexsort((compute, tasks.stage[compute]))]
    start, finish = timeline.start_s[compute], timeline.finish_s[compute]
    role, stage = tasks.role[compute], tasks.stage[compute]
    _add_passes(parts, program, forward, backward, compute, graph)
    for other in Role:
        if other not in (Role.FORWARD, Role.BACKWARD):
            parts[_WAITING_FOR[other]] += float(graph.duration_s[compute[role == other]].sum())
    parts["contention"] += float((finish - start - graph.duration_s[compute]).sum())
    first = np.r_[True, stage[1:] != stage[:-1]]
    gap = start - np.where(first, 0.0, np.r_[0.0, finish[:-1]])
    _add_waits(parts, program, graph, timeline, compute, gap)
    last = np.r_[first[1:], True]
    parts["idle"] += float((timeline.makespan_s - finish[last]).sum())
    return {name: seconds / stages for name, seconds in parts.items() if seconds > 1e-12 * timeline.makespan_s}


def _add_passes(
    parts: dict[str, float],
    program: Program,
    forward: tuple[tuple[BlockTime, ...], ...],
    backward: tuple[tuple[BlockTime, ...], ...],
    compute: NDArray[np.intp],
    graph: TaskGraph,
) -> None:
    """Add the breakdown of each block as often as its passes run, unrolled layers by their share."""
    tasks, plan = program.pipeline, program.sizes.plan
    shape = (plan.pipeline, plan.virtual_stages)
    for role, times in ((Role.FORWARD, forward), (Role.BACKWARD, backward)):
        chosen = compute[tasks.role[compute] == role]
        where = np.ravel_multi_index((tasks.stage[chosen], tasks.chunk[chosen]), shape)
        spent = np.bincount(where, weights=graph.duration_s[chosen], minlength=shape[0] * shape[1])
        for number, seconds in enumerate(spent.tolist()):
            block = times[number // shape[1]][number % shape[1]]
            if block.makespan_s > 0:
                for name, part in block.breakdown_s.items():
                    parts[name] += part * seconds / block.makespan_s


def _add_waits(
    parts: dict[str, float],
    program: Program,
    graph: TaskGraph,
    timeline: Timeline,
    compute: NDArray[np.intp],
    gap: NDArray[np.float64],
) -> None:
    """Add the gaps of the compute streams to what they waited for; beyond a message's own time it is bubble."""
    waiting = gap > 0
    gaps, binding = gap[waiting], timeline.binding[compute[waiting]]
    role = np.where(binding >= 0, program.pipeline.role[binding], Role.FORWARD)
    message = np.minimum(gaps, np.where(binding >= 0, graph.duration_s[binding], 0.0))
    for kind in np.unique(role).tolist():
        of_kind = role == kind
        own = _WAITING_FOR[Role(kind)]
        if own == "bubble":
            parts["bubble"] += float(gaps[of_kind].sum())
            continue
        # what the wait is longer than the message is the lateness of whoever sent it
        parts[own] += float(message[of_kind].sum())
        parts["bubble"] += float((gaps[of_kind] - message[of_kind]).sum())
