"""From a schedule to the task graph of one training step.

Tasks are numbered stage by stage in the order of issue (pass, its layers, its send), then come the
collectives of the data-parallel group and the optimizer, so that the index order of each stream is its
order of issue.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from towtank.simulator.engines.structure import build_structure
from towtank.simulator.schedules import schedule, schedule_faults
from towtank.simulator.schedules.roles import PipelineStructure, Role, StreamKind
from towtank.simulator.schedules.slots import Phase, ScheduleError, Slots

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Shape:
    kind: str
    num_stages: int
    num_chunks: int
    num_micro_batches: int
    blocking_sends: bool
    layers_per_chunk: tuple[tuple[int, ...], ...] | None
    unroll_first_forward: bool
    unroll_last_backward: bool
    reduce_gradients: bool
    gradient_norm: bool
    gather_after_optimizer: bool
    by_chunk: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Passes:
    """Where the tasks of each slot are; arrays [stages * slots], stage by stage."""

    stage: Indices
    first: Indices
    """First compute task of the slot."""
    last: Indices
    """Last compute task of the slot; the same as `first` unless the pass is unrolled."""
    unrolled: NDArray[np.bool_]
    sends: NDArray[np.bool_]
    """Whether a send follows; its task is `last` + 1."""


@dataclass(frozen=True, slots=True, eq=False)
class _Tasks:
    """Properties of a block of tasks, all of one length."""

    role: NDArray[Any]
    stage: NDArray[Any]
    chunk: NDArray[Any]
    micro_batch: NDArray[Any]
    layer: NDArray[Any]
    stream_kind: NDArray[Any]


@lru_cache(maxsize=32)
def pipeline_structure(
    kind: str,
    num_stages: int,
    num_chunks: int,
    num_micro_batches: int,
    *,
    blocking_sends: bool = False,
    layers_per_chunk: tuple[tuple[int, ...], ...] | None = None,
    unroll_first_forward: bool = False,
    unroll_last_backward: bool = False,
    reduce_gradients: bool = False,
    gradient_norm: bool = False,
    gather_after_optimizer: bool = False,
    by_chunk: bool = False,
) -> PipelineStructure:
    """Task graph of one step of a pipeline under schedule `kind`.

    Between neighbouring virtual stages a send runs on a stream of its own for each direction; with
    `blocking_sends` it occupies the sender's compute stream. The receiver waits for its finish.

    `unroll_first_forward` splits the first forward pass of each chunk into its
    `layers_per_chunk[stage][chunk]` layers, each of which waits for a PARAMETER_GATHER on the data stream
    (issued in order from time 0). `unroll_last_backward` splits the last backward pass, and a
    GRADIENT_REDUCE follows each layer. A chunk of no layers stays whole and has one such collective.
    `reduce_gradients` without unrolling gives one GRADIENT_REDUCE a stage after its last backward pass.
    `gradient_norm` adds a task that waits for the gradients of every stage. The OPTIMIZER follows on the
    compute stream, and with `gather_after_optimizer` a PARAMETER_GATHER_AFTER.

    `by_chunk`: in a pipeline the collectives of a chunk's layers wait for the passes of the chunk. Those of its
    parameters begin when the pass before its first one is done, those of its gradients when all its backward passes
    are, on stage s by s more of the stage's backward passes if there are as many: all stages begin together. Without
    interleaving the first stage reduces layer by layer (Megatron-LM, core/pipeline_parallel/schedules.py with
    --align-grad-reduce, its default).

    Cached. Raises ScheduleError with all faults.
    """
    shape = _Shape(
        kind,
        num_stages,
        num_chunks,
        num_micro_batches,
        blocking_sends,
        layers_per_chunk,
        unroll_first_forward,
        unroll_last_backward,
        reduce_gradients,
        gradient_norm,
        gather_after_optimizer,
        by_chunk and num_stages > 1,
    )
    found = schedule_faults(kind, num_stages, num_chunks, num_micro_batches) or _layer_faults(shape)
    if found:
        raise ScheduleError("; ".join(found))
    slots = schedule(kind, num_stages, num_chunks, num_micro_batches)
    passes = _place_passes(shape, slots)
    blocks = [_pass_tasks(shape, slots, passes)]
    edges = _send_edges(shape, slots, passes)
    _add_collectives_and_optimizer(shape, passes, blocks, edges)
    return _assemble(shape, blocks, edges)


def _layer_faults(shape: _Shape) -> list[str]:
    if not (shape.unroll_first_forward or shape.unroll_last_backward):
        return []
    layers = shape.layers_per_chunk
    if layers is None:
        return ["unrolling needs layers_per_chunk; give the layers of each stage and chunk"]
    if len(layers) != shape.num_stages or any(len(row) != shape.num_chunks for row in layers):
        return [
            f"layers_per_chunk must have {shape.num_stages} stages of {shape.num_chunks} chunks, "
            f"got {[len(row) for row in layers]} chunks"
        ]
    return [
        f"layers_per_chunk must be at least 0, got {count} at stage {stage} chunk {chunk}"
        for stage, row in enumerate(layers)
        for chunk, count in enumerate(row)
        if count < 0
    ]


def _place_passes(shape: _Shape, slots: Slots) -> _Passes:
    """Number the tasks of the passes and of their sends."""
    stage = np.repeat(np.arange(shape.num_stages), slots.phase.shape[1])
    phase, chunk, micro_batch = slots.phase.ravel(), slots.chunk.ravel(), slots.micro_batch.ravel()
    forward = phase == Phase.FORWARD
    unrolled = np.zeros(len(phase), np.bool_)
    # every schedule takes the micro-batches of a chunk in order, in both directions
    if shape.unroll_first_forward:
        unrolled |= forward & (micro_batch == 0)
    if shape.unroll_last_backward:
        unrolled |= ~forward & (micro_batch == shape.num_micro_batches - 1)
    parts = np.ones(len(phase), np.int64)
    if shape.layers_per_chunk is not None and unrolled.any():
        layers = np.array(shape.layers_per_chunk)[stage, chunk]
        parts[unrolled] = np.maximum(layers[unrolled], 1)
    ends = (stage == shape.num_stages - 1) & (chunk == shape.num_chunks - 1)
    begins = (stage == 0) & (chunk == 0)
    sends = ~np.where(forward, ends, begins)
    width = parts + sends
    first = np.cumsum(width) - width
    return _Passes(stage, first, first + parts - 1, unrolled, sends)


def _pass_tasks(shape: _Shape, slots: Slots, passes: _Passes) -> _Tasks:
    width = passes.last - passes.first + 1 + passes.sends
    slot = np.repeat(np.arange(len(width)), width)
    within = np.arange(len(slot)) - passes.first[slot]
    parts = (passes.last - passes.first + 1)[slot]
    is_send = within == parts
    backward = slots.phase.ravel()[slot]
    stage, chunk = passes.stage[slot], slots.chunk.ravel()[slot]
    layer = np.where(backward == Phase.BACKWARD, parts - 1 - within, within)
    whole = is_send | ~passes.unrolled[slot]
    if shape.layers_per_chunk is not None:
        whole |= np.array(shape.layers_per_chunk)[stage, chunk] == 0
    send_kind = np.where(shape.blocking_sends, StreamKind.COMPUTE, StreamKind.SEND_FORWARD + backward)
    return _Tasks(
        role=np.where(is_send, Role.SEND_FORWARD + backward, backward),
        stage=stage,
        chunk=chunk,
        micro_batch=slots.micro_batch.ravel()[slot],
        layer=np.where(whole, -1, layer),
        stream_kind=np.where(is_send, send_kind, StreamKind.COMPUTE),
    )


def _send_edges(shape: _Shape, slots: Slots, passes: _Passes) -> list[tuple[Indices, Indices]]:
    """Edges from a pass to its send and from the send to the pass that receives.

    The edge from a forward pass to its own backward pass is left out: the order of the stream implies it.
    """
    slot_of = np.empty((2, shape.num_stages, shape.num_chunks, shape.num_micro_batches), np.int64)
    at = (slots.phase.ravel(), passes.stage, slots.chunk.ravel(), slots.micro_batch.ravel())
    slot_of[at] = np.arange(len(passes.first))
    forward, backward = slot_of[Phase.FORWARD], slot_of[Phase.BACKWARD]
    edges = [
        (passes.last[sender.ravel()] + 1, passes.first[receiver.ravel()])
        for sender, receiver in (
            (forward[:-1], forward[1:]),
            (forward[-1, :-1], forward[0, 1:]),
            (backward[1:], backward[:-1]),
            (backward[0, 1:], backward[-1, :-1]),
        )
    ]
    if not shape.blocking_sends:
        computed = passes.last[passes.sends]
        edges.append((computed, computed + 1))
    return edges


def _add_collectives_and_optimizer(
    shape: _Shape, passes: _Passes, blocks: list[_Tasks], edges: list[tuple[Indices, Indices]]
) -> None:
    """Append the tasks around the passes to `blocks` and their dependencies to `edges`."""
    main = blocks[0]
    stages = np.arange(shape.num_stages)
    ready = passes.last.reshape(shape.num_stages, -1)[:, -1]
    count = len(main.role)

    def add(role: Role, kind: StreamKind, like: Indices | None = None) -> Indices:
        nonlocal count
        blocks.append(_around(role, kind, stages) if like is None else _beside(role, kind, main, like))
        added = np.arange(count, count + len(blocks[-1].role))
        count += len(added)
        return added

    unrolled = np.zeros(len(main.role), np.bool_)
    for first, last in zip(passes.first[passes.unrolled], passes.last[passes.unrolled], strict=True):
        unrolled[first : last + 1] = True
    if shape.unroll_first_forward:
        layers = np.flatnonzero(unrolled & (main.role == Role.FORWARD))
        gathers = add(Role.PARAMETER_GATHER, StreamKind.DATA, layers)
        edges.append((gathers, layers))
        edges += _before_chunks(passes, layers, gathers) if shape.by_chunk else []
    if shape.unroll_last_backward:
        layers = np.flatnonzero(unrolled & (main.role == Role.BACKWARD))
        reductions = add(Role.GRADIENT_REDUCE, StreamKind.DATA, layers)
        edges.append((_reducible(shape, passes, main, layers) if shape.by_chunk else layers, reductions))
        ready = reductions[np.searchsorted(main.stage[layers], stages, side="right") - 1]
    elif shape.reduce_gradients:
        reductions = add(Role.GRADIENT_REDUCE, StreamKind.DATA)
        edges.append((ready, reductions))
        ready = reductions
    if shape.gradient_norm:
        norms = add(Role.GRADIENT_NORM, StreamKind.COMPUTE)
        edges.append((np.tile(ready, shape.num_stages), np.repeat(norms, shape.num_stages)))
        ready = norms
    optimizers = add(Role.OPTIMIZER, StreamKind.COMPUTE)
    edges.append((ready, optimizers))
    if shape.gather_after_optimizer:
        edges.append((optimizers, add(Role.PARAMETER_GATHER_AFTER, StreamKind.DATA)))


def _before_chunks(passes: _Passes, layers: Indices, gathers: Indices) -> list[tuple[Indices, Indices]]:
    """Edges to the first gather of each chunk from the pass before its first one; a stage's first pass has none."""
    slot = np.searchsorted(passes.first, layers)
    begins = (passes.first[np.minimum(slot, len(passes.first) - 1)] == layers) & (slot > 0)
    begins[begins] = passes.stage[slot[begins] - 1] == passes.stage[slot[begins]]
    return [(passes.last[slot[begins] - 1], gathers[begins])]


def _reducible(shape: _Shape, passes: _Passes, main: _Tasks, layers: Indices) -> Indices:
    """Compute task after which the gradient of each of `layers` (of last backward passes) is reduced."""
    slot = np.searchsorted(passes.first, layers, side="right") - 1
    backward = np.flatnonzero(main.role[passes.first] == Role.BACKWARD)
    place = np.searchsorted(backward, slot) + passes.stage[slot]
    final = np.searchsorted(passes.stage[backward], passes.stage[slot], side="right") - 1
    ends = passes.last[backward[np.minimum(place, final)]]
    at_once = (shape.num_chunks == 1) & (passes.stage[slot] == 0)
    result: Indices = np.where(at_once, layers, ends)
    return result


def _beside(role: Role, kind: StreamKind, main: _Tasks, layers: Indices) -> _Tasks:
    """One collective for each of the compute tasks `layers`."""
    return _Tasks(
        role=np.full(len(layers), role),
        stage=main.stage[layers],
        chunk=main.chunk[layers],
        micro_batch=np.full(len(layers), -1),
        layer=main.layer[layers],
        stream_kind=np.full(len(layers), kind),
    )


def _around(role: Role, kind: StreamKind, stages: Indices) -> _Tasks:
    """One task a stage that belongs to no chunk or micro-batch."""
    nothing = np.full(len(stages), -1)
    return _Tasks(np.full(len(stages), role), stages, nothing, nothing, nothing, np.full(len(stages), kind))


def _assemble(shape: _Shape, blocks: list[_Tasks], edges: list[tuple[Indices, Indices]]) -> PipelineStructure:
    def joined(name: str, dtype: type[np.generic]) -> NDArray[Any]:
        values = np.concatenate([getattr(block, name) for block in blocks]).astype(dtype)
        values.setflags(write=False)
        return values

    stage = joined("stage", np.int32)
    kinds = np.repeat(np.array(list(StreamKind)), shape.num_stages)
    structure = build_structure(
        joined("stream_kind", np.int32) * shape.num_stages + stage,
        np.concatenate([source for source, _ in edges]),
        np.concatenate([target for _, target in edges]),
        np.tile(np.arange(shape.num_stages), len(StreamKind)),
        kinds != StreamKind.COMPUTE,
    )
    return PipelineStructure(
        structure,
        joined("role", np.int8),
        stage,
        joined("chunk", np.int16),
        joined("micro_batch", np.int32),
        joined("layer", np.int16),
        shape.num_stages,
        shape.num_chunks,
        shape.num_micro_batches,
    )
