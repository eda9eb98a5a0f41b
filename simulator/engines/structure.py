"""Building task graphs: checks of what comes in, and a topological order that respects streams."""

from collections.abc import MutableSequence, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from towtank.simulator.engines.jit import run_kernel
from towtank.simulator.engines.layout import by_stream, renumber
from towtank.simulator.graph import Contention, GraphStructure, TaskGraph


class GraphError(ValueError):
    """A task graph is wrong: the message names the rule, the tasks or streams and what to do."""


class DeadlockError(GraphError):
    """Tasks wait for each other for ever, through dependencies or through the order of a stream."""


def build_structure(
    stream: ArrayLike,
    source: ArrayLike,
    target: ArrayLike,
    device: ArrayLike,
    communicates: ArrayLike,
    *,
    jit: bool | None = None,
) -> GraphStructure:
    """Structure of the tasks of `stream` [tasks], where task `target[e]` waits for task `source[e]` [edges].

    `device` and `communicates` [streams] as in GraphStructure. The predecessors of a task keep the order in
    which their edges came. The arrays of the result cannot be written, because it is meant to be shared.
    Raises GraphError for indices out of range (all faults at once) and DeadlockError naming the tasks of a
    cycle.
    """
    lanes = np.array(stream, np.int32)
    sources, targets = np.array(source, np.int32), np.array(target, np.int32)
    devices, communicating = np.array(device, np.int32), np.array(communicates, np.bool_)
    _check_ranges(lanes, sources, targets, devices, communicating)
    offset = np.zeros(len(lanes) + 1, np.int64)
    np.cumsum(np.bincount(targets, minlength=len(lanes)), out=offset[1:])
    if len(targets) and (np.diff(targets) < 0).any():
        sources = sources[np.argsort(targets, kind="stable")]
    order = _topological_order(lanes, len(devices), offset, sources, jit)
    arrays = (lanes, offset, sources, order, devices, communicating)
    for array in arrays:
        array.setflags(write=False)
    return GraphStructure(*arrays)


def _check_ranges(
    lanes: NDArray[Any],
    sources: NDArray[Any],
    targets: NDArray[Any],
    devices: NDArray[Any],
    communicating: NDArray[Any],
) -> None:
    faults = []
    if len(devices) != len(communicating):
        faults.append(
            "device and communicates must have one entry a stream, "
            f"got {len(devices)} and {len(communicating)}"
        )
    if len(sources) != len(targets):
        faults.append(f"source and target must have one entry an edge, got {len(sources)} and {len(targets)}")
    for name, values, limit in (
        ("stream", lanes, len(devices)),
        ("source", sources, len(lanes)),
        ("target", targets, len(lanes)),
    ):
        wrong = np.flatnonzero((values < 0) | (values >= limit))
        if len(wrong):
            faults.append(f"{name} must be in 0..{limit - 1}, got {values[wrong[0]]} at position {wrong[0]}")
    if faults:
        raise GraphError("; ".join(faults))


def _topological_order(
    lanes: NDArray[np.int32],
    num_streams: int,
    offset: NDArray[np.int64],
    predecessor: NDArray[np.int32],
    jit: bool | None,
) -> NDArray[np.int32]:
    tasks = len(lanes)
    task, stream_offset = by_stream(lanes, num_streams)
    layout = renumber(task, offset, predecessor)
    more_offset = np.concatenate(([0], np.cumsum(layout.num_more)))[stream_offset]
    rank = np.full(tasks + 1, -1, np.int32)
    rank[tasks] = tasks
    cursor = stream_offset[:-1].copy()
    none = np.full(num_streams, -1, np.int32)
    ready = np.arange(num_streams, dtype=np.int32)[::-1].copy()
    count = run_kernel(
        _advance_streams,
        (
            *(layout.first, layout.num_more, layout.more, stream_offset),
            *(more_offset[:-1].copy(), np.full(tasks + 1, -1, np.int32), none, ready),
        ),
        (rank, cursor),
        tasks,
        jit,
    )
    if count < tasks:
        heads = task[cursor[cursor < stream_offset[1:]]]
        raise DeadlockError(explain_cycle(lanes, offset, predecessor, task[rank[:-1] >= 0], heads))
    order = np.empty(tasks, np.int32)
    order[rank[:-1]] = task
    return order


def _advance_streams(
    first: Sequence[int],
    num_more: Sequence[int],
    more: Sequence[int],
    stream_offset: Sequence[int],
    more_cursor: MutableSequence[int],
    waiting: MutableSequence[int],
    waiting_next: MutableSequence[int],
    ready: MutableSequence[int],
    rank: MutableSequence[int],
    cursor: MutableSequence[int],
) -> int:
    """Kahn's algorithm with streams in place of counters of missing predecessors; returns the tasks ranked.

    Tasks by position in `layout.by_stream`; `rank` [tasks + 1] is their place in the order, -1 until known.
    Each stream runs until a task of it misses a predecessor and hangs itself on that one: `waiting` [tasks]
    heads the list of the streams that wait for a task, linked by `waiting_next` [streams]. So no list of
    successors is needed, and each edge is looked at once or twice.
    """
    count, num_ready = 0, len(ready)
    while num_ready > 0:
        num_ready -= 1
        lane = ready[num_ready]
        stop = stream_offset[lane + 1]
        for position in range(cursor[lane], stop):
            missing = first[position]
            if num_more[position] > 0 and rank[missing] >= 0:
                for edge in range(more_cursor[lane], more_cursor[lane] + num_more[position]):
                    missing = more[edge]
                    if rank[missing] < 0:
                        break
                else:
                    more_cursor[lane] += num_more[position]
            if rank[missing] < 0:
                waiting_next[lane] = waiting[missing]
                waiting[missing] = lane
                stop = position
                break
            rank[position] = count
            count += 1
            wake = waiting[position]
            while wake >= 0:
                ready[num_ready] = wake
                num_ready += 1
                wake = waiting_next[wake]
        cursor[lane] = stop
    return count


def explain_cycle(
    lanes: NDArray[Any],
    offset: NDArray[Any],
    predecessor: NDArray[Any],
    done: NDArray[Any],
    heads: NDArray[Any],
) -> str:
    """Say which tasks wait for each other, walking from a waiting head of a stream until a head comes again.

    `done` are the tasks that ran, `heads` the next task of each stream that has not ended.
    """
    finished = np.zeros(len(lanes), np.bool_)
    finished[done] = True
    head_of = {int(lanes[head]): int(head) for head in heads}
    seen: dict[int, str] = {}
    head = int(heads[0])
    while head not in seen:
        missing = next(int(p) for p in predecessor[offset[head] : offset[head + 1]] if not finished[p])
        following = head_of[int(lanes[missing])]
        behind = (
            ""
            if missing == following
            else f", which stands behind task {following} in stream {lanes[missing]}"
        )
        seen[head] = f"task {head} (stream {lanes[head]}) waits for task {missing}{behind}"
        head = following
    cycle = list(seen.values())[list(seen).index(head) :]
    waiting = len(lanes) - len(done)
    return (
        f"tasks must not wait for each other: {'; '.join(cycle[:8])}{'; ...' if len(cycle) > 8 else ''}. "
        f"{waiting} of {len(lanes)} tasks never start; take out a dependency or change the order of issue"
    )


def check_graph(graph: TaskGraph, contention: Contention) -> None:
    """Raise GraphError unless each task has a finite duration of at least 0 s and the slow-down is one
    too."""
    duration_s = graph.duration_s
    if duration_s.shape != (graph.structure.num_tasks,):
        raise GraphError(
            f"duration_s must have one entry a task, got shape {duration_s.shape} "
            f"for {graph.structure.num_tasks} tasks"
        )
    right = (duration_s >= 0) & (duration_s < np.inf)
    if not right.all():
        wrong = np.flatnonzero(~right)
        raise GraphError(
            f"durations must be finite and at least 0 s, got {duration_s[wrong[0]]} for task {wrong[0]} "
            f"({len(wrong)} such tasks)"
        )
    if not 0 <= contention.compute_slowdown < np.inf:
        raise GraphError(
            f"compute_slowdown must be finite and at least 0, got {contention.compute_slowdown}; "
            "0.1 means a kernel takes 1.1 times as long under communication"
        )
