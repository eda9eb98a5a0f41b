"""Time of one step: blocks on the pipeline's tasks, and where the time goes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from towtank.simulator.block_time import BlockTime, time_block
from towtank.simulator.breakdown import break_down, task_view
from towtank.simulator.cost.model import CostModel
from towtank.simulator.graph import Contention, Engine, TaskGraph, Timeline
from towtank.simulator.lowering.stages import Chunk, distinct_stages
from towtank.simulator.lowering.weights import gradient_messages, parameter_messages, stage_weights
from towtank.simulator.operations import Block, Message
from towtank.simulator.program import Program
from towtank.simulator.schedules.roles import Role
from towtank.simulator.step_ends import gradient_norm_s, in_buckets, layer_messages, optimizer_s
from towtank.simulator.step_flows import StepFlows
from towtank.simulator.waiting import with_waiting


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


TaskKey = tuple[Role, int, int, int]
"""Role, stage, chunk and layer of pipeline tasks that do the same."""


class DurationTable:
    """Seconds of pipeline tasks by role, stage, chunk and layer; layer -1 is the whole chunk or stage."""

    def __init__(self, program: Program) -> None:
        plan = program.sizes.plan
        self.seconds = np.zeros((len(Role), plan.pipeline, plan.virtual_stages, _most_layers(program) + 1))
        self.messages: dict[TaskKey, list[Message]] = {}
        """Collectives of the tasks that consist of nothing else."""

    def set(self, role: Role, stage: int, seconds: float, chunk: int = 0, layer: int = -1) -> None:
        """Set one entry."""
        self.seconds[role, stage, chunk, layer + 1] = seconds

    def set_messages(self, key: TaskKey, messages: list[Message], cost: CostModel) -> None:
        """Set an entry to collectives one after the other."""
        self.messages[key] = messages
        role, stage, chunk, layer = key
        self.set(role, stage, sum(cost.duration_s(message) for message in messages), chunk, layer)

    def copy_stage(self, source: int, targets: list[int]) -> None:
        """Give stages the times of another one that does the same."""
        self.seconds[:, targets] = self.seconds[:, [source]]
        for role, stage, chunk, layer in tuple(self.messages):
            if stage == source:
                same = self.messages[role, stage, chunk, layer]
                self.messages |= {(role, target, chunk, layer): same for target in targets}

    def durations(self, index: NDArray[np.intp]) -> NDArray[np.float64]:
        """Seconds of every task; `index` [tasks] is its place in the flattened table."""
        seconds: NDArray[np.float64] = self.seconds.ravel()[index]
        return seconds


def _most_layers(program: Program) -> int:
    return max((chunk.num_layers for chunks in program.chunks for chunk in chunks), default=0)


def _share_among_layers(
    table: DurationTable, role: Role, stage: int, chunk: int, total: float, count: int
) -> None:
    """Layers of an unrolled pass share the time of the whole pass, so that both add up to the same."""
    for layer in range(count):
        table.set(role, stage, total / count, chunk, layer)


def _fill_collectives(table: DurationTable, program: Program, cost: CostModel, stage: int) -> None:
    """Reductions and gathers over data, layer by layer (unrolled) and for the whole stage."""
    sizes, chunks = program.sizes, program.chunks[stage]
    total = stage_weights(sizes, chunks)
    whole = in_buckets(sizes, total, gradient_messages), in_buckets(sizes, total, parameter_messages)
    table.set_messages((Role.GRADIENT_REDUCE, stage, 0, -1), whole[0], cost)
    table.set_messages((Role.PARAMETER_GATHER_AFTER, stage, 0, -1), whole[1], cost)
    for chunk in chunks:
        place = chunk.stage, chunk.index
        for layer, messages in layer_messages(sizes, chunk, gradient_messages):
            if layer >= 0:
                table.set_messages((Role.GRADIENT_REDUCE, *place, layer), messages, cost)
        for layer, messages in layer_messages(sizes, chunk, parameter_messages):
            table.set_messages((Role.PARAMETER_GATHER, *place, layer), messages, cost)


def _fill_ends(table: DurationTable, program: Program, cost: CostModel, stage: int) -> None:
    """Gradient norm, optimizer and what lies outside of all passes."""
    sizes, chunks = program.sizes, program.chunks[stage]
    table.set(Role.GRADIENT_NORM, stage, gradient_norm_s(sizes, chunks, cost))
    table.set(Role.OPTIMIZER, stage, optimizer_s(sizes, chunks, cost))


def _fill_passes(
    table: DurationTable,
    stage: int,
    chunks: tuple[Chunk, ...],
    times: dict[Role, tuple[BlockTime, ...]],
    send: float,
) -> None:
    for chunk in chunks:
        for role, blocks in times.items():
            seconds = blocks[chunk.index].makespan_s
            table.set(role, stage, seconds, chunk.index)
            _share_among_layers(table, role, stage, chunk.index, seconds, chunk.num_layers)
        table.set(Role.SEND_FORWARD, stage, send, chunk.index)
        table.set(Role.SEND_BACKWARD, stage, send, chunk.index)


def _time_blocks(
    blocks: tuple[tuple[Block, ...], ...],
    cost: CostModel,
    engine: Engine,
    contention: Contention,
    flows: StepFlows | None,
) -> tuple[tuple[BlockTime, ...], ...]:
    """Time blocks; those with one signature once."""
    known: dict[tuple[object, ...], BlockTime] = {}

    def time_one(block: Block) -> BlockTime:
        if block.signature not in known:
            known[block.signature] = time_block(block, cost, engine, contention, flows)
        return known[block.signature]

    return tuple(tuple(time_one(block) for block in chunk) for chunk in blocks)


def time_step(program: Program, cost: CostModel, engine: Engine, flows: StepFlows | None = None) -> StepTime:
    """Run a step on an engine; where `flows` are given, in processes whose collectives are flows on the network.

    Raises:
        UnknownFigure: the machine's profile lacks a figure that the step needs.
    """
    contention = Contention(program.sizes.stack.fitted.compute_slowdown)
    forward = _time_blocks(program.forward, cost, engine, contention, flows)
    backward = _time_blocks(program.backward, cost, engine, contention, flows)
    table = DurationTable(program)
    send = cost.duration_s(program.send) if program.sizes.plan.pipeline > 1 else 0.0
    for first, *others in distinct_stages(program.sizes):
        _fill_collectives(table, program, cost, first)
        _fill_ends(table, program, cost, first)
        passes = {Role.FORWARD: forward[first], Role.BACKWARD: backward[first]}
        _fill_passes(table, first, program.chunks[first], passes, send)
        table.copy_stage(first, others)
    view = task_view(program.pipeline, _most_layers(program))
    graph = TaskGraph(program.pipeline.structure, table.durations(view.table_index))
    if flows is None:
        timeline = engine(graph, contention)
    else:
        graph, timeline = flows.run_pipeline(program.pipeline, graph, table.messages, contention)
    parts = with_waiting(break_down(view, (forward, backward), graph, timeline), cost.slowest)
    return StepTime(program, forward, backward, graph, timeline, timeline.makespan_s, parts)
