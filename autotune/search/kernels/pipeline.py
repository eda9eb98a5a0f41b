"""Makespan of a pipeline straight from its schedule: the graph of `schedules.expand` without building it."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numba.extending import register_jitable
from numpy.typing import NDArray

from towtank.autotune.search.kernels.lanes import stretch, union

_FORWARD = 0
_SEND_FORWARD, _SEND_BACKWARD, _DATA = 0, 1, 2


class Order(NamedTuple):
    """What runs in which order: passes [stages, slots] of a schedule, and how the step is built around them."""

    phase: NDArray[Any]
    chunk: NDArray[Any]
    micro_batch: NDArray[Any]
    layers: NDArray[Any]
    """Layers [stages, chunks]."""
    num_micro_batches: int
    blocking_sends: bool
    unroll_first_forward: bool
    unroll_last_backward: bool
    gather_after: bool


class Durations(NamedTuple):
    """Seconds. Passes [2, stages, chunks] and each layer's part of them; collectives [stages, chunks, most layers]."""

    passes: NDArray[Any]
    layer_parts: NDArray[Any]
    gather: NDArray[Any]
    reduce: NDArray[Any]
    send: float
    reduce_all: NDArray[Any]
    """Reduction of the gradients of a whole stage [stages], where they are not reduced layer by layer."""
    norm: NDArray[Any]
    optimizer: NDArray[Any]
    gather_after: NDArray[Any]


class _Lanes(NamedTuple):
    """Tasks of all streams. Compute [tasks] from `first[s]`; communication [tasks] from `comm_first[s, kind]`."""

    first: NDArray[Any]
    seconds: NDArray[Any]
    start: NDArray[Any]
    finish: NDArray[Any]
    comm_first: NDArray[Any]
    comm_start: NDArray[Any]
    comm_finish: NDArray[Any]


class _State(NamedTuple):
    """Of each stage: the next slot, the next compute task, when compute is free, tasks of communication so far."""

    slot: NDArray[Any]
    task: NDArray[Any]
    free: NDArray[Any]
    computed: NDArray[Any]
    """Finish of the last pass."""
    comm_task: NDArray[Any]
    comm_free: NDArray[Any]
    gathered: NDArray[Any]
    """Gathers that layers have waited for."""
    arrival: NDArray[Any]
    """When the input of a pass [phase, stage, chunk, micro-batch] is there; -1 until known."""
    waits: NDArray[Any]
    ready: NDArray[Any]
    """Stack of stages that can go on; the last place is its height."""


@register_jitable  # type: ignore[untyped-decorator]
def _unrolled(order: Order, phase: int, micro_batch: int) -> bool:
    if phase == _FORWARD:
        return order.unroll_first_forward and micro_batch == 0
    return order.unroll_last_backward and micro_batch == order.num_micro_batches - 1


@register_jitable  # type: ignore[untyped-decorator]
def _has_input(stages: int, chunks: int, phase: int, stage: int, chunk: int) -> bool:
    if phase == _FORWARD:
        return stage > 0 or chunk > 0
    return stage < stages - 1 or chunk < chunks - 1


@register_jitable  # type: ignore[untyped-decorator]
def _sends(stages: int, chunks: int, phase: int, stage: int, chunk: int) -> bool:
    return _has_input(stages, chunks, 1 - phase, stage, chunk)


@register_jitable  # type: ignore[untyped-decorator]
def _fill(order: Order, seconds: Durations, first: NDArray[Any], alone: NDArray[Any]) -> None:
    """Durations of all compute tasks, in the order of each stage; `first` [stages + 1] is where a stage begins."""
    stages, slots = order.phase.shape
    chunks = order.layers.shape[1]
    task = 0
    for stage in range(stages):
        first[stage] = task
        for slot in range(slots):
            phase, chunk = order.phase[stage, slot], order.chunk[stage, slot]
            if _unrolled(order, phase, order.micro_batch[stage, slot]) and order.layers[stage, chunk]:
                for _ in range(order.layers[stage, chunk]):
                    alone[task] = seconds.layer_parts[phase, stage, chunk]
                    task += 1
            else:
                alone[task] = seconds.passes[phase, stage, chunk]
                task += 1
            if order.blocking_sends and _sends(stages, chunks, phase, stage, chunk):
                alone[task] = seconds.send
                task += 1
        alone[task] = seconds.norm[stage]
        alone[task + 1] = seconds.optimizer[stage]
        task += 2
    first[stages] = task


@register_jitable  # type: ignore[untyped-decorator]
def _compute(state: _State, lanes: _Lanes, stage: int, earliest: float) -> float:
    """Run the next compute task of a stage, not before `earliest`; when it finishes."""
    task = state.task[stage]
    begin = max(state.free[stage], earliest)
    lanes.start[task] = begin
    lanes.finish[task] = begin + lanes.seconds[task]
    state.free[stage] = lanes.finish[task]
    state.task[stage] = task + 1
    return state.free[stage]


@register_jitable  # type: ignore[untyped-decorator]
def _communicate(
    state: _State, lanes: _Lanes, stage: int, kind: int, earliest: float, seconds: float
) -> float:
    """Run the next task of a communication stream, not before `earliest`; when it finishes."""
    task = state.comm_task[stage, kind]
    begin = max(state.comm_free[stage, kind], earliest)
    lanes.comm_start[task] = begin
    lanes.comm_finish[task] = begin + seconds
    state.comm_free[stage, kind] = lanes.comm_finish[task]
    state.comm_task[stage, kind] = task + 1
    return state.comm_free[stage, kind]


@register_jitable  # type: ignore[untyped-decorator]
def _gather_all(order: Order, seconds: Durations, lanes: _Lanes, state: _State) -> None:
    """Gathers of parameters before the first forward passes: from time 0, one after the other."""
    stages, slots = order.phase.shape
    for stage in range(stages):
        for slot in range(slots):
            if order.phase[stage, slot] != _FORWARD or order.micro_batch[stage, slot]:
                continue
            chunk = order.chunk[stage, slot]
            for layer in range(max(1, order.layers[stage, chunk])):
                _communicate(state, lanes, stage, _DATA, 0.0, seconds.gather[stage, chunk, layer])


@register_jitable  # type: ignore[untyped-decorator]
def _layers(
    order: Order,
    seconds: Durations,
    lanes: _Lanes,
    state: _State,
    stage: int,
    chunk: int,
    phase: int,
    earliest: float,
) -> float:
    """Run a pass layer by layer: each waits for its parameters, or its gradients are reduced behind it."""
    count, finish = max(1, order.layers[stage, chunk]), 0.0
    for part in range(count):
        begin = earliest if part == 0 else 0.0
        if phase == _FORWARD:
            gather = lanes.comm_first[stage, _DATA] + state.gathered[stage]
            state.gathered[stage] += 1
            finish = _compute(state, lanes, stage, max(begin, lanes.comm_finish[gather]))
        else:
            finish = _compute(state, lanes, stage, begin)
            _communicate(state, lanes, stage, _DATA, finish, seconds.reduce[stage, chunk, count - 1 - part])
    return finish


@register_jitable  # type: ignore[untyped-decorator]
def _hand_on(
    seconds: Durations,
    order: Order,
    lanes: _Lanes,
    state: _State,
    stage: int,
    chunk: int,
    phase: int,
    finish: float,
) -> tuple[int, int, float]:
    """Send the result of a pass: (stage and chunk that receive it, when)."""
    stages = order.phase.shape[0]
    if order.blocking_sends:
        there = _compute(state, lanes, stage, 0.0)
    else:
        there = _communicate(state, lanes, stage, _SEND_FORWARD + phase, finish, seconds.send)
    if phase == _FORWARD:
        return (stage + 1, chunk, there) if stage < stages - 1 else (0, chunk + 1, there)
    return (stage - 1, chunk, there) if stage > 0 else (stages - 1, chunk - 1, there)


@register_jitable  # type: ignore[untyped-decorator]
def _advance(order: Order, seconds: Durations, lanes: _Lanes, state: _State, stage: int) -> None:
    """Run a stage until it waits for another one."""
    stages, slots = order.phase.shape
    chunks = order.layers.shape[1]
    while state.slot[stage] < slots:
        slot = state.slot[stage]
        phase, chunk = order.phase[stage, slot], order.chunk[stage, slot]
        micro_batch = order.micro_batch[stage, slot]
        earliest = 0.0
        if _has_input(stages, chunks, phase, stage, chunk):
            earliest = state.arrival[phase, stage, chunk, micro_batch]
            if earliest < 0:
                state.waits[stage] = True
                return
        if _unrolled(order, phase, micro_batch):
            finish = _layers(order, seconds, lanes, state, stage, chunk, phase, earliest)
        else:
            finish = _compute(state, lanes, stage, earliest)
        state.computed[stage] = finish
        state.slot[stage] = slot + 1
        if _sends(stages, chunks, phase, stage, chunk):
            to, to_chunk, there = _hand_on(seconds, order, lanes, state, stage, chunk, phase, finish)
            state.arrival[phase, to, to_chunk, micro_batch] = there
            if state.waits[to]:
                state.waits[to] = False
                state.ready[state.ready[stages]] = to
                state.ready[stages] += 1


@register_jitable  # type: ignore[untyped-decorator]
def _finish_step(order: Order, seconds: Durations, lanes: _Lanes, state: _State) -> float:
    """Reduce what is left, norm of the gradients of all stages, optimizer, gathers behind it; the makespan."""
    stages = order.phase.shape[0]
    reduced, makespan = 0.0, 0.0
    for stage in range(stages):
        if not order.unroll_last_backward:
            _communicate(state, lanes, stage, _DATA, state.computed[stage], seconds.reduce_all[stage])
        reduced = max(reduced, state.comm_free[stage, _DATA])
    for stage in range(stages):
        _compute(state, lanes, stage, reduced)
        finish = _compute(state, lanes, stage, 0.0)
        if order.gather_after:
            finish = _communicate(state, lanes, stage, _DATA, finish, seconds.gather_after[stage])
        makespan = max(makespan, finish)
    return makespan


@register_jitable  # type: ignore[untyped-decorator]
def _run(order: Order, seconds: Durations, lanes: _Lanes, state: _State) -> float:
    """One pass of the engine over all tasks: the makespan; -1 if stages wait for each other."""
    stages, slots = order.phase.shape
    state.slot[:], state.gathered[:], state.free[:], state.comm_free[:] = 0, 0, 0.0, 0.0
    state.task[:], state.comm_task[:] = lanes.first[:-1], lanes.comm_first
    state.arrival[:], state.waits[:] = -1.0, False
    if order.unroll_first_forward:
        _gather_all(order, seconds, lanes, state)
    for stage in range(stages):
        state.ready[stage] = stages - 1 - stage
    state.ready[stages] = stages
    while state.ready[stages] > 0:
        state.ready[stages] -= 1
        _advance(order, seconds, lanes, state, state.ready[state.ready[stages]])
    if state.slot.min() < slots:
        return -1.0
    return _finish_step(order, seconds, lanes, state)


@register_jitable  # type: ignore[untyped-decorator]
def _stretch_all(order: Order, lanes: _Lanes, state: _State, slowdown: float) -> None:
    """Lengthen compute tasks by the communication of their stage; `lanes.seconds` afterwards hold that."""
    most = 0
    for stage in range(order.phase.shape[0]):
        most = max(most, int((state.comm_task[stage] - lanes.comm_first[stage]).sum()))
    time, progress = np.empty(2 * most + 2), np.empty(2 * most + 2)
    for stage in range(order.phase.shape[0]):
        cursor, end = lanes.comm_first[stage].copy(), state.comm_task[stage].copy()
        count = union(lanes.comm_start, lanes.comm_finish, cursor, end, time)
        if count:
            lane = slice(lanes.first[stage], lanes.first[stage + 1])
            alone = lanes.seconds[lane].copy()
            stretch(
                alone,
                lanes.start[lane],
                lanes.finish[lane],
                lanes.seconds[lane],
                time,
                progress,
                count,
                slowdown,
            )


@register_jitable  # type: ignore[untyped-decorator]
def _lanes_and_state(order: Order, seconds: Durations) -> tuple[_Lanes, _State]:
    stages, slots = order.phase.shape
    chunks = order.layers.shape[1]
    longest = max(1, order.layers.max())
    room = stages * (slots * (2 if order.blocking_sends else 1) + 2 * chunks * longest + 2)
    first, alone = np.empty(stages + 1, np.int64), np.empty(room)
    _fill(order, seconds, first, alone)
    sends = 0 if order.blocking_sends else chunks * order.num_micro_batches
    beside = 2 * chunks * longest + 2
    comm_first = np.empty((stages, 3), np.int64)
    for stage in range(stages):
        comm_first[stage, _SEND_FORWARD] = stage * (2 * sends + beside)
        comm_first[stage, _SEND_BACKWARD] = comm_first[stage, _SEND_FORWARD] + sends
        comm_first[stage, _DATA] = comm_first[stage, _SEND_BACKWARD] + sends
    comm = stages * (2 * sends + beside)
    lanes = _Lanes(first, alone, np.empty(room), np.empty(room), comm_first, np.empty(comm), np.empty(comm))
    state = _State(
        np.empty(stages, np.int64),
        np.empty(stages, np.int64),
        np.empty(stages),
        np.empty(stages),
        np.empty((stages, 3), np.int64),
        np.empty((stages, 3)),
        np.empty(stages, np.int64),
        np.empty((2, stages, chunks, order.num_micro_batches)),
        np.empty(stages, np.bool_),
        np.empty(stages + 1, np.int64),
    )
    return lanes, state


@njit(cache=True)  # type: ignore[untyped-decorator]
def pipeline_makespan(order: Order, seconds: Durations, slowdown: float) -> float:
    """Seconds of one step; `slowdown` of compute beside communication. -1 if stages wait for each other."""
    lanes, state = _lanes_and_state(order, seconds)
    makespan = _run(order, seconds, lanes, state)
    if slowdown > 0 and makespan >= 0:
        _stretch_all(order, lanes, state, slowdown)
        makespan = _run(order, seconds, lanes, state)
    return makespan
