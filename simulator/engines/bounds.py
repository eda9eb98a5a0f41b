"""Lower bounds of the makespan that cost next to nothing, for pruning and for tests."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from towtank.simulator.engines.layout import by_stream
from towtank.simulator.graph import GraphStructure, TaskGraph

Seconds = NDArray[np.float64]

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
    in_flight: ArrayLike | None = None,
) -> float:
    """Seconds that no schedule of a pipeline can beat, in closed form: `pipeline_bounds` of one pipeline.

    `forward_s`, `backward_s` [chunks, stages] per micro-batch, or [stages] for a single chunk; scalars among the
    others hold for all stages. Equal stages without sends: (m v + p - 1)(f + b), which is what 1F1B takes, with
    v = 1 (m + p - 1)(f + b).
    """
    forward = np.array(forward_s, np.float64, ndmin=2)
    shape = PipelineShape.of_stages(*forward.shape)
    terms = pipeline_terms(
        shape,
        Passes.of_chunks(forward),
        Passes.of_chunks(np.array(backward_s, np.float64, ndmin=2)),
        np.array(num_micro_batches),
        send_forward_s=np.array(send_forward_s, np.float64),
        send_backward_s=np.array(send_backward_s, np.float64),
        blocking_sends=np.array(blocking_sends),
        head_s=np.array(head_s, np.float64),
        tail_s=np.array(tail_s, np.float64),
    )
    return float(pipeline_bounds(terms, None if in_flight is None else np.array(in_flight)))


@dataclass(frozen=True, slots=True, eq=False)
class PipelineShape:
    """Stages of a pipeline, of which consecutive ones that are alike may be one entry of the last axis.

    An entry is judged at the place of its first stage.
    """

    num_chunks: int
    count: NDArray[np.int64]
    """Stages that each entry stands for, shape [entries]."""

    @classmethod
    def of_stages(cls, num_chunks: int, num_stages: int) -> "PipelineShape":
        """Every stage an entry of its own."""
        return cls(num_chunks, np.ones(num_stages, np.int64))

    @property
    def num_stages(self) -> int:
        """Number of stages."""
        return int(self.count.sum())

    @property
    def first(self) -> NDArray[np.int64]:
        """Number of the first stage of each entry, shape [entries]."""
        first: NDArray[np.int64] = np.cumsum(self.count) - self.count
        return first


@dataclass(frozen=True, slots=True, eq=False)
class Passes:
    """Passes of a micro-batch through the chunks of a stage, in seconds; shapes [..., entries]."""

    first_s: Seconds
    """Through the first chunk."""
    last_s: Seconds
    total_s: Seconds
    """Through all chunks, one after the other."""

    @classmethod
    def of_chunks(cls, chunks_s: Seconds) -> "Passes":
        """From chunks, shape [..., chunks, entries]."""
        return cls(chunks_s[..., 0, :], chunks_s[..., -1, :], chunks_s.sum(axis=-2))


@dataclass(frozen=True, slots=True, eq=False)
class PipelineTerms:
    """Pipelines of one shape; shapes [..., entries] or [...], in seconds."""

    shape: PipelineShape
    forward: Passes
    backward: Passes
    num_micro_batches: NDArray[np.integer]
    send_forward_s: Seconds
    send_backward_s: Seconds
    arrival_s: Seconds
    """Earliest start of the first forward pass of each stage."""
    work_s: Seconds
    """What occupies the compute stream of each stage."""
    leaving_s: Seconds
    """Least time from the last backward pass of each stage to the end."""


def pipeline_terms(
    shape: PipelineShape,
    forward: Passes,
    backward: Passes,
    num_micro_batches: NDArray[np.integer],
    *,
    send_forward_s: Seconds,
    send_backward_s: Seconds,
    blocking_sends: NDArray[np.bool_],
    head_s: Seconds,
    tail_s: Seconds,
) -> PipelineTerms:
    """When stages begin, work and end, for one pipeline or many of one shape.

    `send_forward_s`, `send_backward_s` [..., entries] of the sending stage, `blocking_sends` [...] if they occupy its
    compute stream; `head_s` [..., entries] passes before the first forward pass of a stage can start, `tail_s`
    [..., entries] after its last backward pass.
    """
    send_f, send_b = (
        np.broadcast_to(send, forward.first_s.shape) for send in (send_forward_s, send_backward_s)
    )
    # way: from the start of stage 0 to the arrival at a stage, through the first chunk
    way_forward = _sum_before(shape.count * (forward.first_s + send_f))
    way_back = _sum_before(shape.count * (backward.first_s + _of_next(send_b, shape)))
    arrival = way_forward + np.maximum.accumulate(head_s - way_forward, axis=-1)
    leaving = way_back + np.maximum.accumulate(tail_s - way_back, axis=-1)
    count = num_micro_batches[..., None]
    work = count * (forward.total_s + backward.total_s)
    if shape.num_stages > 1 and blocking_sends.any():
        sends = count * shape.num_chunks * (send_f + send_b)
        sends[..., -1] -= num_micro_batches * send_f[..., -1]  # the end of the model sends nothing on
        sends[..., 0] -= num_micro_batches * send_b[..., 0]
        sends[..., 1:] -= send_b[..., 1:]  # the last send is part of the way back
        work = work + sends * blocking_sends[..., None]
    return PipelineTerms(shape, forward, backward, num_micro_batches, send_f, send_b, arrival, work, leaving)


def _of_next(values: Seconds, shape: PipelineShape) -> Seconds:
    """Values of the stage behind each; of an entry of several stages, those of the entry itself."""
    return np.where(shape.count > 1, values, np.roll(values, -1, axis=-1))


def pipeline_bounds(terms: PipelineTerms, in_flight: NDArray[np.integer] | None = None) -> Seconds:
    """Seconds that no schedule of the pipelines can beat, shape [...].

    max over stages of (arrival of the first forward pass + all passes of the stage + return of the last backward
    pass), and of what `in_flight` [entries] adds: a single-chunk schedule in which a stage starts a forward pass only
    when the backward pass of so many micro-batches before has ended. Then each so many micro-batches cost at least
    the way from the stage to the end of the pipeline and back, sends included.
    """
    result: Seconds = (terms.arrival_s + terms.work_s + terms.leaving_s).max(axis=-1)
    result = np.maximum(result, _round_trip(terms))
    if in_flight is not None and terms.shape.num_stages > 1:
        result = np.maximum(result, _cycles(terms, in_flight))
    return result


def _cycles(terms: PipelineTerms, in_flight: NDArray[np.integer]) -> Seconds:
    """Rounds of w = `in_flight` micro-batches: m - 1 = q w + r, so q rounds, r passes, and the last way back."""
    forward, backward = terms.forward.first_s, terms.backward.first_s
    hop = terms.send_forward_s + _of_next(terms.send_backward_s, terms.shape)
    hop = terms.shape.count * hop
    hop[..., -1] -= terms.send_forward_s[..., -1] + _of_next(terms.send_backward_s, terms.shape)[..., -1]
    there_and_back = np.cumsum((terms.shape.count * (forward + backward) + hop)[..., ::-1], axis=-1)[
        ..., ::-1
    ]
    rounds, rest = np.divmod(terms.num_micro_batches[..., None] - 1, in_flight)
    # in the first round no backward pass lies between forward passes
    between = forward + backward * (rounds > 0)
    total = terms.arrival_s + (rounds + 1) * there_and_back + rest * between + terms.leaving_s
    result: Seconds = total.max(axis=-1)
    return result


def _sum_before(values: Seconds) -> Seconds:
    total: Seconds = np.cumsum(values, axis=-1) - values
    return total


def _round_trip(terms: PipelineTerms) -> Seconds:
    """One micro-batch through all chunks and back, alone."""
    shape = terms.shape
    total: Seconds = (shape.count * (terms.forward.total_s + terms.backward.total_s)).sum(axis=-1)
    if shape.num_stages > 1:
        sends = shape.count * (terms.send_forward_s + terms.send_backward_s)
        total = total + shape.num_chunks * sends.sum(axis=-1)
        total = total - (terms.send_forward_s[..., -1] + terms.send_backward_s[..., 0])
    return total
