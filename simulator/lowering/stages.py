"""Which layers each pipeline chunk holds, and the blocks of its passes."""

from dataclasses import dataclass
from functools import lru_cache

from towtank.simulator.lowering.ends import embedding_template, head_template, prediction_projection_template
from towtank.simulator.lowering.layer import backward_template, forward_template, layer_kind
from towtank.simulator.lowering.sizes import Sizes
from towtank.simulator.operations import Block, Operation, Segment


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive layers that one stage runs in one go."""

    stage: int
    index: int
    """0 for the first chunk of a stage; more under interleaving."""
    first_layer: int
    num_layers: int
    has_embedding: bool
    has_head: bool


@lru_cache(maxsize=512)
def layer_counts(num_layers: int, chunks: int, given: tuple[int, ...] | None) -> tuple[int, ...]:
    """Layers of each chunk in model order: the given split, or an even one.

    What does not divide is missing from the last and the first chunk, which hold head and embedding, and then
    from those beside them.
    """
    if given is not None:
        return given
    full = -(-num_layers // chunks)
    counts = [full] * chunks
    order = [index for pair in zip(range(chunks - 1, -1, -1), range(chunks), strict=True) for index in pair]
    missing, position = full * chunks - num_layers, 0
    while missing:
        index = order[position % len(order)]
        if counts[index] == full or position >= len(order):
            counts[index] -= 1
            missing -= 1
        position += 1
    return tuple(counts)


def chunks_of(sizes: Sizes) -> list[list[Chunk]]:
    """Chunks by stage. Chunk c of stage s is number c x pipeline + s in model order."""
    plan = sizes.plan
    total = plan.pipeline * plan.virtual_stages
    counts = layer_counts(sizes.model.num_layers, total, plan.stage_layers)
    stages: list[list[Chunk]] = [[] for _ in range(plan.pipeline)]
    first = 0
    for number, count in enumerate(counts):
        stage, index = number % plan.pipeline, number // plan.pipeline
        stages[stage].append(Chunk(stage, index, first, count, number == 0, number == total - 1))
        first += count
    return stages


def is_recomputed(sizes: Sizes, layer: int) -> bool:
    """Whether the layer's forward pass runs again in the backward pass."""
    return sizes.plan.recompute == "full" and layer % sizes.plan.recompute_every == 0


Run = tuple[tuple[bool, int | None], bool, int, int]
"""Kind of the layers, whether they are recomputed, first layer, number."""


def _runs(sizes: Sizes, chunk: Chunk) -> list[Run]:
    """Consecutive layers of one kind."""
    runs: list[Run] = []
    for layer in range(chunk.first_layer, chunk.first_layer + chunk.num_layers):
        kind, recomputed = layer_kind(sizes, layer), is_recomputed(sizes, layer)
        if runs and runs[-1][0] == kind and runs[-1][1] == recomputed:
            runs[-1] = (kind, recomputed, runs[-1][2], runs[-1][3] + 1)
        else:
            runs.append((kind, recomputed, layer, 1))
    return runs


def _names(first: int, count: int, *, backward: bool) -> tuple[str, ...]:
    layers = range(first + count - 1, first - 1, -1) if backward else range(first, first + count)
    return tuple(f"layer.{layer}" for layer in layers)


def _once(template: tuple[Operation, ...], prefix: str) -> Segment:
    return Segment(template, 1, (prefix,))


def _prediction_segments(sizes: Sizes, *, backward: bool) -> list[Segment]:
    """Multi-token prediction: a projection, a layer of the last kind and the head once more for each."""
    segments: list[Segment] = []
    kind = layer_kind(sizes, sizes.model.num_layers - 1)
    for number in range(sizes.model.mtp_layers):
        prefix = f"prediction.{number}"
        layer = backward_template(sizes, kind, sizes.plan.recompute == "full") if backward else forward_template(sizes, kind)
        part = [
            _once(prediction_projection_template(sizes, backward=backward), prefix),
            _once(layer, prefix),
            _once(head_template(sizes, backward=backward), prefix),
        ]
        segments += part
    return segments[::-1] if backward else segments


def forward_segments(sizes: Sizes, chunk: Chunk) -> list[Segment]:
    """Forward pass of a chunk for one micro-batch."""
    segments = [_once(embedding_template(sizes, backward=False), "model")] if chunk.has_embedding else []
    for kind, _, first, count in _runs(sizes, chunk):
        segments.append(Segment(forward_template(sizes, kind), count, _names(first, count, backward=False)))
    if chunk.has_head:
        segments.append(_once(head_template(sizes, backward=False), "model"))
        segments += _prediction_segments(sizes, backward=False)
    return segments


def backward_segments(sizes: Sizes, chunk: Chunk) -> list[Segment]:
    """Backward pass of a chunk for one micro-batch, recomputation included."""
    segments: list[Segment] = []
    if chunk.has_head:
        segments += _prediction_segments(sizes, backward=True)
        segments.append(_once(head_template(sizes, backward=True), "model"))
    for kind, recomputed, first, count in reversed(_runs(sizes, chunk)):
        template = backward_template(sizes, kind, recomputed)
        segments.append(Segment(template, count, _names(first, count, backward=True)))
    if chunk.has_embedding:
        segments.append(_once(embedding_template(sizes, backward=True), "model"))
    return segments


def forward_block(sizes: Sizes, chunk: Chunk) -> Block:
    """Block of the forward pass."""
    name = f"stage.{chunk.stage}.chunk.{chunk.index}.forward"
    return Block(name, tuple(forward_segments(sizes, chunk)), (False, *signature(sizes, chunk)))


def backward_block(sizes: Sizes, chunk: Chunk) -> Block:
    """Block of the backward pass."""
    name = f"stage.{chunk.stage}.chunk.{chunk.index}.backward"
    return Block(name, tuple(backward_segments(sizes, chunk)), (True, *signature(sizes, chunk)))


def signature(sizes: Sizes, chunk: Chunk) -> tuple[object, ...]:
    """Equal for chunks that take the same time: stages that do the same are simulated once."""
    runs = _runs(sizes, chunk)
    return (chunk.has_embedding, chunk.has_head, *((kind, again, count) for kind, again, _, count in runs))
