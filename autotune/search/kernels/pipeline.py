"""Makespan of a pipeline straight from its schedule: the graph of `schedules.expand` without building it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numba.extending import register_jitable
from numpy.typing import NDArray

from towtank.autotune.search.kernels.lanes import stretch, union
from towtank.autotune.search.kernels.walk import FIRST_FORWARD, LAST_BACKWARD, Walk

Array = NDArray[Any]
_SEND_FORWARD, _SEND_BACKWARD, _DATA = 0, 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """How a step is built around the passes of its schedule, and its durations in seconds.

    `passes` [2, stages, chunks] of forward and backward passes; collectives of single layers
    [stages, chunks, most layers], of whole stages and ends [stages].
    """

    layers: NDArray[np.int64]
    """Layers [stages, chunks]."""
    blocking_sends: bool
    unroll_first_forward: bool
    unroll_last_backward: bool
    gathers_after: bool
    passes: NDArray[np.float64]
    gather: NDArray[np.float64]
    reduce: NDArray[np.float64]
    send: float
    reduce_all: NDArray[np.float64]
    norm: NDArray[np.float64]
    optimizer: NDArray[np.float64]
    gather_after: NDArray[np.float64]


def pipeline_makespan(order: Walk, step: Step, slowdown: float) -> float:
    """Seconds of one step; `slowdown` of compute beside communication."""
    return float(
        _makespan(
            (order.stage, order.cell, order.source, order.direction, order.end),
            step.layers,
            (step.blocking_sends, step.unroll_first_forward, step.unroll_last_backward, step.gathers_after),
            (step.passes.ravel(), (step.passes / np.maximum(step.layers, 1)).ravel()),
            (step.gather, step.reduce),
            step.send,
            (step.reduce_all, step.norm, step.optimizer, step.gather_after),
            slowdown,
        )
    )


@register_jitable
def _fill(
    stage: Array,
    cell: Array,
    direction: Array,
    end: Array,
    layers: Array,
    flags: tuple[bool, bool, bool, bool],
    passes: Array,
    parts: Array,
    send: float,
    first: Array,
    alone: Array,
    tail: tuple[Array, Array, Array, Array],
) -> None:
    """Durations of the compute tasks: those of stage s begin at `first[s]`, in the order of issue."""
    cursor = first[:-1].copy()
    per_stage = layers.ravel()
    for k in range(len(stage)):
        s, which = stage[k], cell[k]
        count = per_stage[which % len(per_stage)]
        unrolled = (end[k] == FIRST_FORWARD and flags[1]) or (end[k] == LAST_BACKWARD and flags[2])
        if unrolled and count > 0:
            for _ in range(count):
                alone[cursor[s]] = parts[which]
                cursor[s] += 1
        else:
            alone[cursor[s]] = passes[which]
            cursor[s] += 1
        if flags[0] and direction[k] >= 0:
            alone[cursor[s]] = send
            cursor[s] += 1
    for s in range(len(first) - 1):
        alone[cursor[s]] = tail[1][s]
        alone[cursor[s] + 1] = tail[2][s]


@register_jitable
def _places(stage: Array, direction: Array, layers: Array, blocking: bool) -> tuple[Array, Array]:
    """Where the compute tasks of each stage begin [stages + 1], and its sends and data collectives [stages, 3]."""
    stages, chunks = layers.shape
    first, comm_first = np.zeros(stages + 1, np.int64), np.zeros((stages, 3), np.int64)
    sends = np.zeros((stages, 2), np.int64)
    count = np.zeros(stages, np.int64)
    for k in range(len(stage)):
        count[stage[k]] += 1
        if direction[k] >= 0:
            sends[stage[k], direction[k]] += 1
    beside = 2 * chunks * max(1, layers.max()) + 2
    place = 0
    for s in range(stages):
        room = count[s] + beside + (sends[s].sum() if blocking else 0)
        first[s + 1] = first[s] + room
        comm_first[s, _SEND_FORWARD] = place
        comm_first[s, _SEND_BACKWARD] = comm_first[s, _SEND_FORWARD] + sends[s, 0]
        comm_first[s, _DATA] = comm_first[s, _SEND_BACKWARD] + sends[s, 1]
        place = comm_first[s, _DATA] + beside
    return first, comm_first


@register_jitable
def _gather_all(
    stage: Array,
    cell: Array,
    end: Array,
    layers: Array,
    gather: Array,
    comm_start: Array,
    comm_finish: Array,
    comm_cursor: Array,
    comm_free: Array,
) -> None:
    """Gathers of parameters before the first forward passes: from time 0, one after the other."""
    chunks = layers.shape[1]
    for k in range(len(stage)):
        if end[k] == FIRST_FORWARD:
            s, chunk = stage[k], cell[k] % chunks
            for layer in range(max(1, layers[s, chunk])):
                task = comm_cursor[s, _DATA]
                comm_start[task] = comm_free[s, _DATA]
                comm_finish[task] = comm_free[s, _DATA] + gather[s, chunk, layer]
                comm_free[s, _DATA] = comm_finish[task]
                comm_cursor[s, _DATA] = task + 1


@register_jitable
def _layer_by_layer(
    begin: float,
    s: int,
    chunk: int,
    count: int,
    kind: int,
    seconds: Array,
    start: Array,
    finish: Array,
    cursor: Array,
    gathered: Array,
    comm_start: Array,
    comm_finish: Array,
    comm_cursor: Array,
    comm_free: Array,
    reduce: Array,
) -> float:
    """A pass in layers: each waits for its parameters, or its gradients are reduced behind it; when it ends."""
    for part in range(count):
        if kind == FIRST_FORWARD:
            begin = max(begin, comm_finish[gathered[s]])
            gathered[s] += 1
        task = cursor[s]
        start[task] = begin
        begin = begin + seconds[task]
        finish[task] = begin
        cursor[s] = task + 1
        if kind == LAST_BACKWARD:
            beside = comm_cursor[s, _DATA]
            comm_start[beside] = max(comm_free[s, _DATA], begin)
            comm_finish[beside] = comm_start[beside] + reduce[s, chunk, count - 1 - part]
            comm_free[s, _DATA] = comm_finish[beside]
            comm_cursor[s, _DATA] = beside + 1
    return begin


@register_jitable
def _run(
    walk: tuple[Array, Array, Array, Array, Array],
    layers: Array,
    flags: tuple[bool, bool, bool, bool],
    layered: tuple[Array, Array],
    send: float,
    compute: tuple[Array, Array, Array, Array],
    comm: tuple[Array, Array, Array, Array, Array],
) -> tuple[Array, Array, Array]:
    """All passes on the clock: per stage the next compute task, when compute is free, finish of the last pass."""
    stage, cell, source, direction, end = walk
    first, seconds, start, finish = compute
    _, comm_start, comm_finish, comm_cursor, comm_free = comm
    cursor, gathered = first[:-1].copy(), comm_cursor[:, _DATA].copy()
    free, computed = np.zeros(len(cursor)), np.zeros(len(cursor))
    chunks, sent, blocking = layers.shape[1], np.empty(len(stage)), flags[0]
    if flags[1]:
        _gather_all(stage, cell, end, layers, layered[0], comm_start, comm_finish, comm_cursor, comm_free)
    for k in range(len(stage)):
        s = stage[k]
        begin = free[s]
        if source[k] >= 0:
            begin = max(begin, sent[source[k]])
        if end[k] > 0 and flags[end[k]]:
            chunk = cell[k] % chunks
            begin = _layer_by_layer(
                begin, s, chunk, max(1, layers[s, chunk]), end[k], seconds, start, finish, cursor,
                gathered, comm_start, comm_finish, comm_cursor, comm_free, layered[1],
            )  # fmt: skip
        else:
            task = cursor[s]
            start[task] = begin
            begin = begin + seconds[task]
            finish[task] = begin
            cursor[s] = task + 1
        computed[s] = begin
        way = direction[k]
        if way >= 0 and blocking:
            task = cursor[s]
            start[task] = begin
            begin = begin + seconds[task]
            finish[task] = begin
            cursor[s] = task + 1
            sent[k] = begin
        elif way >= 0:
            task = comm_cursor[s, way]
            comm_start[task] = max(comm_free[s, way], begin)
            comm_finish[task] = comm_start[task] + send
            comm_free[s, way] = sent[k] = comm_finish[task]
            comm_cursor[s, way] = task + 1
        free[s] = begin
    return cursor, free, computed


@register_jitable
def _finish_step(
    flags: tuple[bool, bool, bool, bool],
    tail: tuple[Array, Array, Array, Array],
    at: tuple[Array, Array, Array],
    compute: tuple[Array, Array, Array, Array],
    comm: tuple[Array, Array, Array, Array, Array],
) -> float:
    """Reduce what is left, norm of the gradients of all stages, optimizer, gathers behind it; the makespan."""
    cursor, free, computed = at
    _, seconds, start, finish = compute
    _, comm_start, comm_finish, comm_cursor, comm_free = comm
    reduced, makespan = 0.0, 0.0
    for s in range(len(cursor)):
        if not flags[2]:
            task = comm_cursor[s, _DATA]
            comm_start[task] = max(comm_free[s, _DATA], computed[s])
            comm_free[s, _DATA] = comm_finish[task] = comm_start[task] + tail[0][s]
            comm_cursor[s, _DATA] = task + 1
        reduced = max(reduced, comm_free[s, _DATA])
    for s in range(len(cursor)):
        begin = max(free[s], reduced)
        for task in range(cursor[s], cursor[s] + 2):
            start[task] = begin
            begin = begin + seconds[task]
            finish[task] = begin
        cursor[s] += 2
        if flags[3]:
            task = comm_cursor[s, _DATA]
            comm_start[task] = max(comm_free[s, _DATA], begin)
            begin = comm_finish[task] = comm_start[task] + tail[3][s]
            comm_cursor[s, _DATA] = task + 1
        makespan = max(makespan, begin)
    return makespan


@register_jitable
def _stretch_all(
    cursor: Array,
    compute: tuple[Array, Array, Array, Array],
    comm: tuple[Array, Array, Array, Array, Array],
    slowdown: float,
) -> None:
    """Lengthen compute tasks by the communication of their stage."""
    first, seconds, start, finish = compute
    comm_first, comm_start, comm_finish, comm_cursor, _ = comm
    most = 0
    for s in range(len(cursor)):
        most = max(most, (comm_cursor[s] - comm_first[s]).sum())
    time, progress = np.empty(2 * most + 2), np.empty(2 * most + 2)
    for s in range(len(cursor)):
        count = union(comm_start, comm_finish, comm_first[s].copy(), comm_cursor[s].copy(), time)
        if count:
            lane = slice(first[s], cursor[s])
            alone = seconds[lane].copy()
            stretch(alone, start[lane], finish[lane], seconds[lane], time, progress, count, slowdown)


@njit(cache=True)
def _makespan(
    walk: tuple[Array, Array, Array, Array, Array],
    layers: Array,
    flags: tuple[bool, bool, bool, bool],
    passes: tuple[Array, Array],
    layered: tuple[Array, Array],
    send: float,
    tail: tuple[Array, Array, Array, Array],
    slowdown: float,
) -> float:
    stage, cell, _, direction, end = walk
    first, comm_first = _places(stage, direction, layers, flags[0])
    seconds = np.empty(first[-1])
    _fill(stage, cell, direction, end, layers, flags, passes[0], passes[1], send, first, seconds, tail)
    compute = (first, seconds, np.empty(first[-1]), np.empty(first[-1]))
    room = comm_first[-1, _DATA] + 2 * layers.shape[1] * max(1, layers.max()) + 2
    comm = (comm_first, np.empty(room), np.empty(room), comm_first.copy(), np.zeros(comm_first.shape))
    at = _run(walk, layers, flags, layered, send, compute, comm)
    makespan = _finish_step(flags, tail, at, compute, comm)
    if slowdown > 0:
        _stretch_all(at[0], compute, comm, slowdown)
        comm = (comm_first, comm[1], comm[2], comm_first.copy(), np.zeros(comm_first.shape))
        at = _run(walk, layers, flags, layered, send, compute, comm)
        makespan = _finish_step(flags, tail, at, compute, comm)
    return makespan
