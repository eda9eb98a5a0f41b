"""Lower bounds of the makespan that cost next to nothing, for pruning and for tests."""

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from towtank.simulator.engines.layout import by_stream
from towtank.simulator.graph import GraphStructure, TaskGraph

_EPSILON = float(np.finfo(np.float64).eps)


def lower_bound(graph: TaskGraph) -> float:
    """Seconds that no evaluation of the graph can beat, with or without contention.

    max over streams of (head + busy time + tail): the head is the time before the first task of the stream
    can start, found through what precedes its predecessors in their own streams; the tail is the same
    behind its last task. Loose where a stream ends with a task that nothing waits for: `pipeline_bound` is
    tight for pipelines. Lowered by the rounding that a sum over all tasks can have, so that it never
    exceeds an engine's answer.
    """
    structure, duration_s = graph.structure, graph.duration_s
    if not structure.num_tasks:
        return 0.0
    task, offset = by_stream(structure.stream, len(structure.device))
    lanes = [task[begin:end] for begin, end in pairwise(offset.tolist()) if begin < end]
    until_s = np.empty(structure.num_tasks)
    for lane in lanes:
        until_s[lane] = np.cumsum(duration_s[lane])
    busy_s = np.zeros(len(structure.device))
    for lane in lanes:
        busy_s[structure.stream[lane[0]]] = until_s[lane[-1]]
    rank = np.empty(structure.num_tasks, np.int32)
    rank[structure.order] = np.arange(structure.num_tasks, dtype=np.int32)
    head_s = _heads(structure, until_s, sorted((lane[0] for lane in lanes), key=rank.__getitem__))
    from_s = busy_s[structure.stream] - until_s + duration_s
    lasts = sorted((lane[-1] for lane in lanes), key=rank.__getitem__, reverse=True)
    tail_s = _tails(structure, from_s, lasts)
    bound_s = float((head_s + busy_s + tail_s).max())
    return max(0.0, bound_s * (1 - 4 * structure.num_tasks * _EPSILON))


def _heads(
    structure: GraphStructure, until_s: NDArray[np.float64], firsts: list[np.int32]
) -> NDArray[np.float64]:
    """Earliest start of the first task of each stream; `firsts` in topological order."""
    head_s = np.zeros(len(structure.device))
    for first in firsts:
        before = structure.predecessor[
            structure.predecessor_offset[first] : structure.predecessor_offset[first + 1]
        ]
        if len(before):
            head_s[structure.stream[first]] = (head_s[structure.stream[before]] + until_s[before]).max()
    return head_s


def _tails(
    structure: GraphStructure, from_s: NDArray[np.float64], lasts: list[np.int32]
) -> NDArray[np.float64]:
    """Least time from the end of each stream to the end of all; `lasts` in reverse topological order."""
    tail_s = np.zeros(len(structure.device))
    is_last = np.zeros(structure.num_tasks, np.bool_)
    is_last[lasts] = True
    edges = np.flatnonzero(is_last[structure.predecessor])
    after = np.searchsorted(structure.predecessor_offset, edges, side="right") - 1
    source = structure.predecessor[edges]
    for last in lasts:
        behind = after[source == last]
        if len(behind):
            tail_s[structure.stream[last]] = (from_s[behind] + tail_s[structure.stream[behind]]).max()
    return tail_s


def pipeline_bound(
    forward_s: ArrayLike,
    backward_s: ArrayLike,
    num_micro_batches: int,
    *,
    send_forward_s: ArrayLike = 0.0,
    send_backward_s: ArrayLike = 0.0,
    blocking_sends: bool = False,
    head_s: ArrayLike = 0.0,
    tail_s: ArrayLike = 0.0,
) -> float:
    """Seconds that no schedule of a pipeline can beat, in closed form.

    max over stages s of (arrival of the first forward pass + all passes of s + return of the last backward
    pass)

    `forward_s`, `backward_s` [chunks, stages] per micro-batch; `send_forward_s`, `send_backward_s` [stages]
    of the sending stage (scalars hold for all), `blocking_sends` if they occupy its compute stream;
    `head_s` [stages] passes before the first forward pass of a stage can start, `tail_s` [stages] after its
    last backward pass. Equal stages without sends: (m v + p - 1)(f + b), which is what 1F1B takes, with v =
    1 (m + p - 1)(f + b).
    """
    forward, backward = np.array(forward_s, np.float64, ndmin=2), np.array(backward_s, np.float64, ndmin=2)
    chunks, stages = forward.shape
    send_f, send_b, head, tail = np.zeros((4, stages))
    send_f[:], send_b[:], head[:], tail[:] = send_forward_s, send_backward_s, head_s, tail_s
    # way[s]: from the start of stage 0 to the arrival at stage s, through the first chunk
    way_forward = _sum_before(forward[0] + send_f)
    way_back = _sum_before(backward[0] + np.roll(send_b, -1))
    arrival = way_forward + np.maximum.accumulate(head - way_forward)
    leaving = way_back + np.maximum.accumulate(tail - way_back)
    work = num_micro_batches * (forward.sum(axis=0) + backward.sum(axis=0))
    if blocking_sends and stages > 1:
        work += (num_micro_batches * chunks) * (send_f + send_b)
        work[-1] -= num_micro_batches * send_f[-1]  # the end of the model sends nothing on
        work[0] -= num_micro_batches * send_b[0]
        work[1:] -= send_b[1:]  # the last send is part of the way back
    return max(float((arrival + work + leaving).max()), _round_trip(forward, backward, send_f, send_b))


def _sum_before(values: NDArray[np.float64]) -> NDArray[np.float64]:
    total: NDArray[np.float64] = np.cumsum(values) - values
    return total


def _round_trip(
    forward: NDArray[np.float64],
    backward: NDArray[np.float64],
    send_forward: NDArray[np.float64],
    send_backward: NDArray[np.float64],
) -> float:
    """One micro-batch through all chunks and back, alone."""
    chunks, stages = forward.shape
    total = float(forward.sum() + backward.sum())
    if stages > 1:
        total += chunks * float(send_forward.sum() + send_backward.sum())
        total -= float(send_forward[-1] + send_backward[0])
    return total
