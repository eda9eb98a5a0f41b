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
Flags = tuple[bool, bool, bool, bool, bool]
"""Blocking sends; first forward and last backward passes in layers; gathers behind the optimizer; by chunk."""
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
    by_chunk: bool
    """Whether collectives of a chunk wait for its passes (`schedules.expand.pipeline_structure`)."""
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
            (
                step.blocking_sends,
                step.unroll_first_forward,
                step.unroll_last_backward,
                step.gathers_after,
                step.by_chunk,
            ),
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
    flags: Flags,
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
def _on_data(s: int, ready: float, seconds: float, comm: tuple[Array, Array, Array, Array, Array]) -> None:
    """Append a collective to the data stream of stage s that starts at `ready` or once the stream is free."""
    _, comm_start, comm_finish, comm_cursor, comm_free = comm
    task = comm_cursor[s, _DATA]
    comm_start[task] = max(comm_free[s, _DATA], ready)
    comm_free[s, _DATA] = comm_finish[task] = comm_start[task] + seconds
    comm_cursor[s, _DATA] = task + 1


@register_jitable
def _gather_all(
    stage: Array,
    cell: Array,
    end: Array,
    layers: Array,
    gather: Array,
    comm: tuple[Array, Array, Array, Array, Array],
) -> None:
    """Gathers of parameters before the first forward passes: from time 0, one after the other."""
    chunks = layers.shape[1]
    for k in range(len(stage)):
        if end[k] == FIRST_FORWARD:
            _gather_chunk(stage[k], cell[k] % chunks, 0.0, layers, gather, comm)


@register_jitable
def _reduce_ready(
    s: int,
    now: float,
    done: int,
    layers: Array,
    reduce: Array,
    waiting: tuple[Array, Array, Array],
    comm: tuple[Array, Array, Array, Array, Array],
) -> None:
    """Reduce the gradients of chunks of stage s that wait for backward pass number `done` of the stage."""
    chunk_of, until, place = waiting
    while place[s, 0] < place[s, 1] and until[s, place[s, 0]] <= done:
        chunk = chunk_of[s, place[s, 0]]
        place[s, 0] += 1
        count = max(1, layers[s, chunk])
        for part in range(count):
            _on_data(s, now, reduce[s, chunk, count - 1 - part], comm)


@register_jitable
def _layer_by_layer(
    begin: float,
    s: int,
    chunk: int,
    count: int,
    kind: int,
    at_once: bool,
    compute: tuple[Array, Array, Array, Array],
    cursor: Array,
    gathered: Array,
    comm: tuple[Array, Array, Array, Array, Array],
    reduce: Array,
) -> float:
    """A pass in layers, each of which waits for its parameters, or is reduced behind it (`at_once`); its end."""
    _, seconds, start, finish = compute
    for part in range(count):
        if kind == FIRST_FORWARD:
            begin = max(begin, comm[2][gathered[s]])
            gathered[s] += 1
        task = cursor[s]
        start[task] = begin
        begin = begin + seconds[task]
        finish[task] = begin
        cursor[s] = task + 1
        if kind == LAST_BACKWARD and at_once:
            _on_data(s, begin, reduce[s, chunk, count - 1 - part], comm)
    return begin


@register_jitable
def _one_task(begin: float, s: int, compute: tuple[Array, Array, Array, Array], cursor: Array) -> float:
    """The next compute task of stage s from `begin` on; when it ends."""
    _, seconds, start, finish = compute
    task = cursor[s]
    start[task] = begin
    finish[task] = begin + seconds[task]
    cursor[s] = task + 1
    return float(finish[task])


@register_jitable
def _gather_chunk(
    s: int,
    chunk: int,
    ready: float,
    layers: Array,
    gather: Array,
    comm: tuple[Array, Array, Array, Array, Array],
) -> None:
    """Gathers of the parameters of one chunk of stage s, from `ready` on."""
    for layer in range(max(1, layers[s, chunk])):
        _on_data(s, ready, gather[s, chunk, layer], comm)


@register_jitable
def _wait(s: int, chunk: int, until: int, waiting: tuple[Array, Array, Array]) -> None:
    """Let the gradients of a chunk of stage s wait for backward pass number `until` of the stage."""
    chunk_of, until_of, place = waiting
    chunk_of[s, place[s, 1]], until_of[s, place[s, 1]] = chunk, until
    place[s, 1] += 1


@register_jitable
def _sent(
    s: int, way: int, ready: float, seconds: float, comm: tuple[Array, Array, Array, Array, Array]
) -> float:
    """When a send of stage s beside compute arrives; `way` is its direction, -1 where nothing is sent."""
    if way < 0:
        return ready
    _, comm_start, comm_finish, comm_cursor, comm_free = comm
    task = comm_cursor[s, way]
    comm_start[task] = max(comm_free[s, way], ready)
    comm_free[s, way] = comm_finish[task] = comm_start[task] + seconds
    comm_cursor[s, way] = task + 1
    return float(comm_finish[task])


@register_jitable
def _run(
    walk: tuple[Array, Array, Array, Array, Array],
    layers: Array,
    flags: Flags,
    layered: tuple[Array, Array],
    send: float,
    compute: tuple[Array, Array, Array, Array],
    comm: tuple[Array, Array, Array, Array, Array],
) -> tuple[Array, Array, Array]:
    """All passes on the clock: per stage the next compute task, when compute is free, finish of the last pass."""
    stage, cell, source, direction, end = walk
    cursor, gathered = compute[0][:-1].copy(), comm[3][:, _DATA].copy()
    stages, chunks = layers.shape
    free, computed = np.zeros(stages), np.zeros(stages)
    backward, each = np.zeros(stages, np.int64), len(stage) // (2 * stages)
    waiting = (
        np.zeros(layers.shape, np.int64),
        np.zeros(layers.shape, np.int64),
        np.zeros((stages, 2), np.int64),
    )
    sent, by_chunk = np.empty(len(stage)), flags[4] and stages > 1
    if flags[1] and not by_chunk:
        _gather_all(stage, cell, end, layers, layered[0], comm)
    for k in range(len(stage)):
        s, chunk = stage[k], cell[k] % chunks
        count, kind = max(1, layers[s, chunk]), end[k]
        begin = free[s]
        if source[k] >= 0:
            begin = max(begin, sent[source[k]])
        if kind > 0 and flags[kind]:
            at_once = not by_chunk or (chunks == 1 and s == 0)
            if kind == FIRST_FORWARD and by_chunk:
                _gather_chunk(s, chunk, computed[s], layers, layered[0], comm)
            if kind == LAST_BACKWARD and not at_once:
                _wait(s, chunk, min(backward[s] + s, each - 1), waiting)
            begin = _layer_by_layer(
                begin, s, chunk, count, kind, at_once, compute, cursor, gathered, comm, layered[1]
            )
        else:
            begin = _one_task(begin, s, compute, cursor)
        computed[s] = begin
        if cell[k] >= stages * chunks:
            _reduce_ready(s, begin, backward[s], layers, layered[1], waiting, comm)
            backward[s] += 1
        if direction[k] >= 0 and flags[0]:
            begin = _one_task(begin, s, compute, cursor)
        sent[k] = _sent(s, direction[k], begin, send, comm) if not flags[0] else begin
        free[s] = begin
    return cursor, free, computed


@register_jitable
def _finish_step(
    flags: Flags,
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
    flags: Flags,
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
