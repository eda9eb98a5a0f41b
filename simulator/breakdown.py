"""Where the time of a step goes: every second of every stage's compute stream, by what it was spent on."""

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from towtank.simulator.block_time import BlockTime
from towtank.simulator.graph import TaskGraph, Timeline
from towtank.simulator.schedules.roles import PipelineStructure, Role, StreamKind

StageBlocks = tuple[tuple[BlockTime, ...], ...]
"""Times of blocks by [stage][chunk]."""

_PASSES = (Role.FORWARD, Role.BACKWARD)

_ROW = {
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
"""Row in which a task counts, if it is on the compute stream or the compute stream waits for it."""


@dataclass(frozen=True, slots=True, eq=False)
class TaskView:
    """Index arrays of a pipeline's tasks; they depend on its structure only, hence cached.

    `table_index` [tasks] is the place of a task in the flattened duration table. The others are [compute tasks],
    in order of stage and time: task number, whether it is the first or last of its stage, and a number that
    identifies role, stage and chunk.
    """

    pipeline: PipelineStructure
    table_index: NDArray[np.intp]
    compute: NDArray[np.intp]
    first: NDArray[np.bool_]
    last: NDArray[np.bool_]
    place: NDArray[np.intp]


@lru_cache(maxsize=32)
def task_view(pipeline: PipelineStructure, most_layers: int) -> TaskView:
    """Work out the index arrays of a pipeline whose chunks have up to `most_layers` layers."""
    stages, chunks = pipeline.num_stages, pipeline.num_chunks
    chunk = np.maximum(pipeline.chunk, 0).astype(np.intp)
    role, stage = pipeline.role.astype(np.intp), pipeline.stage.astype(np.intp)
    place = (role * stages + stage) * chunks + chunk
    compute = np.flatnonzero(pipeline.structure.stream // stages == StreamKind.COMPUTE)
    compute = compute[np.argsort(stage[compute], kind="stable")]
    first = np.r_[True, np.diff(stage[compute]) != 0]
    return TaskView(
        pipeline=pipeline,
        table_index=place * (most_layers + 1) + pipeline.layer + 1,
        compute=compute,
        first=first,
        last=np.r_[first[1:], True],
        place=place[compute],
    )


def break_down(
    view: TaskView, blocks: tuple[StageBlocks, StageBlocks], graph: TaskGraph, timeline: Timeline
) -> dict[str, float]:
    """Seconds by row, mean over stages; they sum to the makespan. `blocks` are forward and backward passes."""
    parts: dict[str, float] = defaultdict(float)
    alone = graph.duration_s[view.compute]
    start, finish = timeline.start_s[view.compute], timeline.finish_s[view.compute]
    _add_work(parts, view, blocks, alone)
    parts["contention"] += float(finish.sum() - start.sum() - alone.sum())
    before = np.empty_like(finish)
    before[1:] = finish[:-1]
    before[view.first] = 0.0
    _add_waits(parts, view, graph, timeline, start - before)
    parts["idle"] += float((timeline.makespan_s - finish[view.last]).sum())
    smallest = 1e-12 * timeline.makespan_s
    stages = view.pipeline.num_stages
    return {name: seconds / stages for name, seconds in parts.items() if seconds / stages > smallest}


def _add_work(
    parts: dict[str, float],
    view: TaskView,
    blocks: tuple[StageBlocks, StageBlocks],
    alone: NDArray[np.float64],
) -> None:
    """Add what runs on the compute stream; passes by the breakdown of their blocks."""
    stages, chunks = view.pipeline.num_stages, view.pipeline.num_chunks
    spent = np.bincount(view.place, weights=alone, minlength=len(Role) * stages * chunks)
    by_role = spent.reshape(len(Role), stages, chunks)
    for role in Role:
        if role not in _PASSES:
            parts[_ROW[role]] += float(by_role[role].sum())
    total: dict[int, float] = defaultdict(float)
    times: dict[int, BlockTime] = {}
    for role, stage_blocks in zip(_PASSES, blocks, strict=True):
        for stage, row in enumerate(by_role[role].tolist()):
            for block, seconds in zip(stage_blocks[stage], row, strict=True):
                times[id(block)] = block
                total[id(block)] += seconds
    for key, seconds in total.items():
        if times[key].makespan_s > 0:
            for name, part in times[key].breakdown_s.items():
                parts[name] += part * seconds / times[key].makespan_s


def _add_waits(
    parts: dict[str, float], view: TaskView, graph: TaskGraph, timeline: Timeline, gap: NDArray[np.float64]
) -> None:
    """Add the gaps of the compute streams to what they waited for.

    What a wait is longer than a message from another stage is the lateness of whoever sent it: bubble.
    """
    waiting = np.flatnonzero(gap > 0)
    gaps, binding = gap[waiting], timeline.binding[view.compute[waiting]]
    known = binding >= 0
    role = np.where(known, view.pipeline.role[binding], Role.FORWARD)
    message = np.minimum(gaps, np.where(known, graph.duration_s[binding], 0.0))
    message[(role == Role.FORWARD) | (role == Role.BACKWARD)] = 0.0
    # collectives of one stage queue behind each other: the whole wait for the last of a queue is theirs
    at_home = known & (view.pipeline.stage[binding] == view.pipeline.stage[view.compute[waiting]])
    queued = at_home & ((role == Role.PARAMETER_GATHER) | (role == Role.GRADIENT_REDUCE))
    message[queued] = gaps[queued]
    own = np.bincount(role, weights=message, minlength=len(Role))
    for kind in Role:
        parts[_ROW[kind]] += float(own[kind])
    parts["bubble"] += float(gaps.sum() - message.sum())
