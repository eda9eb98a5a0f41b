"""Makespan of a block from its templates: the graph of `block_graph` without building it in Python."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numba.extending import register_jitable
from numpy.typing import NDArray

from towtank.autotune.search.kernels.lanes import interpolated, stretch, union


class Templates(NamedTuple):
    """Templates of a block one after the other, and the segments that repeat them.

    `stream`, `computes` (whether it is a compute operation) and `seconds` [operations]; dependencies of operation o
    are `position` and `back` from `offset[o]` to `offset[o + 1]`; segment k repeats operations `begin[k]` to
    `end[k]` `repeat[k]` times.
    """

    stream: NDArray[Any]
    computes: NDArray[Any]
    offset: NDArray[Any]
    position: NDArray[Any]
    back: NDArray[Any]
    begin: NDArray[Any]
    end: NDArray[Any]
    repeat: NDArray[Any]
    seconds: NDArray[Any]
    family: NDArray[Any]
    """0, or 1 and 2 for collectives of the two families that share the node's interfaces [operations]."""


class _Tasks(NamedTuple):
    """Tasks [tasks] of a block, and their predecessors as in GraphStructure."""

    operation: NDArray[Any]
    offset: NDArray[Any]
    predecessor: NDArray[Any]


class _Clock(NamedTuple):
    seconds: NDArray[Any]
    start: NDArray[Any]
    finish: NDArray[Any]


@register_jitable
def _earlier(
    computes: NDArray[Any], compute_offset: NDArray[Any], instance: int, position: int, back: int
) -> int:
    """Compute task at `position` from the end of the instance `back` before; -1 where there is none."""
    found = instance - back
    if found < 0:
        return -1
    count = compute_offset[found + 1] - compute_offset[found]
    if count == 0:
        return -1
    return int(computes[compute_offset[found] + count + max(position, -count)])


@register_jitable
def _sizes(templates: Templates) -> tuple[int, int, int]:
    """Tasks, dependencies at most, and instances."""
    tasks = edges = instances = 0
    for segment in range(len(templates.repeat)):
        begin, end, repeat = templates.begin[segment], templates.end[segment], templates.repeat[segment]
        tasks += repeat * (end - begin)
        edges += repeat * (templates.offset[end] - templates.offset[begin])
        instances += repeat
    return tasks, edges, instances


@register_jitable
def _expand(templates: Templates) -> _Tasks:
    """Repeat the templates and resolve dependencies on earlier instances."""
    num_tasks, num_edges, instances = _sizes(templates)
    tasks = _Tasks(
        np.empty(num_tasks, np.int64), np.empty(num_tasks + 1, np.int64), np.empty(num_edges, np.int64)
    )
    computes, compute_offset = np.empty(num_tasks, np.int64), np.zeros(instances + 1, np.int64)
    task = edge = instance = 0
    for segment in range(len(templates.repeat)):
        for _ in range(templates.repeat[segment]):
            start = task
            compute_offset[instance + 1] = compute_offset[instance]
            for operation in range(templates.begin[segment], templates.end[segment]):
                tasks.operation[task], tasks.offset[task] = operation, edge
                for at in range(templates.offset[operation], templates.offset[operation + 1]):
                    before = start + templates.position[at]
                    if templates.back[at]:
                        before = _earlier(
                            computes, compute_offset, instance, templates.position[at], templates.back[at]
                        )
                    if before >= 0:
                        tasks.predecessor[edge] = before
                        edge += 1
                task += 1
            for operation in range(templates.begin[segment], templates.end[segment]):
                if templates.computes[operation]:
                    computes[compute_offset[instance + 1]] = start + operation - templates.begin[segment]
                    compute_offset[instance + 1] += 1
            instance += 1
    tasks.offset[task] = edge
    return tasks


@register_jitable
def _pass(templates: Templates, tasks: _Tasks, seconds: NDArray[Any], clock: _Clock, streams: int) -> None:
    """Start and finish of each task with the durations `seconds` [tasks]."""
    free = np.zeros(streams)
    for task in range(len(tasks.operation)):
        stream = templates.stream[tasks.operation[task]]
        begin = free[stream]
        for edge in range(tasks.offset[task], tasks.offset[task + 1]):
            begin = max(begin, clock.finish[tasks.predecessor[edge]])
        clock.start[task] = begin
        clock.finish[task] = begin + seconds[task]
        free[stream] = clock.finish[task]


@register_jitable
def _by_stream(templates: Templates, tasks: _Tasks, streams: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Tasks of each stream in order of issue, and where each stream begins."""
    offset = np.zeros(streams + 1, np.int64)
    for operation in tasks.operation:
        offset[templates.stream[operation] + 1] += 1
    for stream in range(streams):
        offset[stream + 1] += offset[stream]
    place, order = offset[:-1].copy(), np.empty(len(tasks.operation), np.int64)
    for task in range(len(tasks.operation)):
        stream = templates.stream[tasks.operation[task]]
        order[place[stream]] = task
        place[stream] += 1
    return order, offset


@register_jitable
def _evaluate(
    templates: Templates,
    tasks: _Tasks,
    order: NDArray[Any],
    offset: NDArray[Any],
    clock: _Clock,
    slowdown: float,
) -> None:
    """Run the block by `clock.seconds`, as `compiled.evaluate` does; stream 0 computes, the others communicate."""
    streams = len(offset) - 1
    _pass(templates, tasks, clock.seconds, clock, streams)
    compute = order[: offset[1]]
    if slowdown <= 0 or len(compute) == 0:
        return
    time, progress = np.empty(2 * len(order) + 2), np.empty(2 * len(order) + 2)
    cursor, end = offset[1:-1].copy(), offset[2:].copy()
    count = union(clock.start[order], clock.finish[order], cursor, end, time)
    if count == 0:
        return
    lane = np.empty(len(compute))
    stretch(
        clock.seconds[compute],
        clock.start[compute],
        clock.finish[compute],
        lane,
        time,
        progress,
        count,
        slowdown,
    )
    seconds = clock.seconds.copy()
    seconds[compute] = lane
    _pass(templates, tasks, seconds, clock, streams)


@register_jitable
def _overlap(clock: _Clock, members: NDArray[Any], others: NDArray[Any], alone: NDArray[Any]) -> None:
    """Lengthen each of `members` by half of what it runs beside `others` (`shared_interfaces.overlap_s`)."""
    count = 2 * len(others)
    edges, busy = np.empty(count), np.empty(count)
    reach, total = 0.0, 0.0
    by_start = others[np.argsort(clock.start[others], kind="mergesort")]
    for k in range(len(by_start)):
        edges[2 * k] = max(clock.start[by_start[k]], reach)
        reach = max(reach, clock.finish[by_start[k]])
        edges[2 * k + 1] = max(edges[2 * k], reach)
        busy[2 * k] = total
        total += edges[2 * k + 1] - edges[2 * k]
        busy[2 * k + 1] = total
    at_start = at_finish = 0
    for task in members:
        until_finish, at_finish = interpolated(clock.finish[task], edges, busy, count, at_finish)
        until_start, at_start = interpolated(clock.start[task], edges, busy, count, at_start)
        clock.seconds[task] = alone[task] + (until_finish - until_start) / 2


@register_jitable
def _members(templates: Templates, tasks: _Tasks, family: int) -> NDArray[Any]:
    found = np.empty(len(tasks.operation), np.int64)
    count = 0
    for task in range(len(tasks.operation)):
        if templates.family[tasks.operation[task]] == family:
            found[count] = task
            count += 1
    return found[:count]


@njit(cache=True)
def block_makespan(templates: Templates, streams: int, slowdown: float, rounds: int) -> float:
    """Seconds of one block; `rounds` of the fixed point where two families share the node's interfaces."""
    tasks = _expand(templates)
    alone = templates.seconds[tasks.operation]
    clock = _Clock(alone.copy(), np.zeros(len(alone)), np.zeros(len(alone)))
    order, offset = _by_stream(templates, tasks, streams)
    _evaluate(templates, tasks, order, offset, clock, slowdown)
    first, second = _members(templates, tasks, 1), _members(templates, tasks, 2)
    if len(first) and len(second):
        for _ in range(rounds):
            before = _Clock(clock.seconds, clock.start.copy(), clock.finish.copy())
            _overlap(before, first, second, alone)
            _overlap(before, second, first, alone)
            _evaluate(templates, tasks, order, offset, clock, slowdown)
    return clock.finish.max() if len(alone) else 0.0
