"""Which layers each pipeline chunk holds, and the blocks of its passes."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from towtank.simulator.lowering.ends import embedding_template, head_template, prediction_projection_template
from towtank.simulator.lowering.layer import backward_template, forward_template, layer_kind
from towtank.simulator.lowering.sizes import Sizes
from towtank.simulator.models.records import Attention
from towtank.simulator.operations import Block, Operation, Segment
from towtank.simulator.plan import Plan


class Run(NamedTuple):
    """Consecutive layers that do the same."""

    kind: tuple[bool, int | None]
    """Whether they have experts, and their attention window."""
    recomputed: bool
    first_layer: int
    num_layers: int
    cached: bool = False
    """Whether recomputation finds the weights gathered."""


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
    runs: tuple[Run, ...]

    @property
    def signature(self) -> tuple[object, ...]:
        """Equal for chunks that take the same time: stages that do the same are simulated once."""
        return (
            self.has_embedding,
            self.has_head,
            *((run.kind, run.recomputed, run.num_layers, run.cached) for run in self.runs),
        )


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


def counts_by_weights(sizes: Sizes, chunks: int) -> tuple[int, ...]:
    """Layers of each chunk when stages are filled by the weights of their multiplies, the head among them.

    Blocks are dealt out in model order; a chunk is full once the weights so far exceed its share of all of them. A
    layer counts 4 heads x head size x hidden + 3 x MLP width x hidden, the head vocabulary x hidden
    (huggingface/nanotron, models/base.py `build_model` and models/llama.py `get_block_compute_costs`).
    """
    model = sizes.model
    heads = model.attention
    width = heads.head_dim if isinstance(heads, Attention) else heads.nope_head_dim + heads.rope_head_dim
    layer = (4 * heads.heads * width + 3 * model.mlp.hidden) * model.hidden
    head = model.vocab * model.hidden
    total = model.num_layers * layer + head
    counts, index = [0] * chunks, 0
    for number in range(1, model.num_layers + 1):
        counts[index] += 1
        if number * layer * chunks > total * (index + 1):
            index += 1
    return tuple(counts)


@lru_cache(maxsize=256)
def chunks_of(sizes: Sizes) -> tuple[tuple[Chunk, ...], ...]:
    """Chunks by stage. Chunk c of stage s is number c x pipeline + s in model order."""
    plan = sizes.plan
    total = plan.pipeline * plan.virtual_stages
    if plan.stage_layers is None and total > 1 and sizes.stack.stage_balance == "weights":
        counts = counts_by_weights(sizes, total)
    else:
        counts = layer_counts(sizes.model.num_layers, total, plan.stage_layers)
    stages: list[list[Chunk]] = [[] for _ in range(plan.pipeline)]
    first = 0
    for number, count in enumerate(counts):
        stage, index = number % plan.pipeline, number // plan.pipeline
        runs = _runs(sizes, first, count)
        stages[stage].append(Chunk(stage, index, first, count, number == 0, number == total - 1, runs))
        first += count
    return tuple(tuple(chunks) for chunks in stages)


@lru_cache(maxsize=256)
def distinct_stages(sizes: Sizes) -> tuple[tuple[int, ...], ...]:
    """Stages in groups that do the same; the first of a group stands for all of it."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for stage, chunks in enumerate(chunks_of(sizes)):
        groups.setdefault(tuple(chunk.signature for chunk in chunks), []).append(stage)
    return tuple(tuple(stages) for stages in groups.values())


def _runs(sizes: Sizes, first: int, count: int) -> tuple[Run, ...]:
    """Split consecutive layers into runs of one kind."""
    runs: list[Run] = []
    for layer in range(first, first + count):
        kind, recomputed = layer_kind(sizes, layer), is_recomputed(sizes.plan, layer)
        cached = recomputed and layer < sizes.plan.cached_layers
        if runs and (runs[-1].kind, runs[-1].recomputed, runs[-1].cached) == (kind, recomputed, cached):
            runs[-1] = runs[-1]._replace(num_layers=runs[-1].num_layers + 1)
        else:
            runs.append(Run(kind, recomputed, layer, 1, cached))
    return tuple(runs)


def is_recomputed(plan: Plan, layer: int) -> bool:
    """Whether the layer's forward pass runs again in the backward pass."""
    return plan.recompute == "full" and layer % plan.recompute_every == 0


def _names(first: int, count: int, *, backward: bool) -> tuple[str, ...]:
    layers = range(first + count - 1, first - 1, -1) if backward else range(first, first + count)
    return tuple(f"layer.{layer}" for layer in layers)


class Part(NamedTuple):
    """A template of a pass over a chunk, repeated once for each prefix."""

    name: Literal["embedding", "layer", "projection", "head"]
    prefixes: tuple[str, ...]
    kind: tuple[bool, int | None] = (False, None)
    """Of a layer, as its run's."""
    recomputed: bool = False
    cached: bool = False


def _prediction_parts(sizes: Sizes, *, backward: bool) -> list[Part]:
    """Multi-token prediction: a projection, a layer of the last kind and the head once more for each."""
    parts: list[Part] = []
    kind = layer_kind(sizes, sizes.model.num_layers - 1)
    recomputed = sizes.plan.recompute == "full"
    for number in range(sizes.model.mtp_layers):
        prefixes = (f"prediction.{number}",)
        parts += [
            Part("projection", prefixes),
            Part("layer", prefixes, kind, recomputed),
            Part("head", prefixes),
        ]
    return parts[::-1] if backward else parts


def parts_of(sizes: Sizes, chunk: Chunk, *, backward: bool) -> list[Part]:
    """Templates of a pass of a chunk for one micro-batch in order; the backward pass recomputes."""
    parts = [Part("embedding", ("model",))] if chunk.has_embedding else []
    for kind, recomputed, first, count, cached in chunk.runs:
        parts.append(Part("layer", _names(first, count, backward=backward), kind, recomputed, cached))
    if chunk.has_head:
        parts.append(Part("head", ("model",)))
    if backward:
        parts.reverse()
        return (_prediction_parts(sizes, backward=True) if chunk.has_head else []) + parts
    return parts + (_prediction_parts(sizes, backward=False) if chunk.has_head else [])


def template_of(sizes: Sizes, part: Part, *, backward: bool) -> tuple[Operation, ...]:
    """Template of one part of a pass."""
    if part.name == "layer":
        if backward:
            return backward_template(sizes, part.kind, part.recomputed, part.cached)
        return forward_template(sizes, part.kind)
    makers = {
        "embedding": embedding_template,
        "projection": prediction_projection_template,
        "head": head_template,
    }
    return makers[part.name](sizes, backward=backward)


def segments_of(sizes: Sizes, chunk: Chunk, *, backward: bool) -> list[Segment]:
    """Pass of a chunk for one micro-batch, in the backward pass with recomputation."""
    return [
        Segment(template_of(sizes, part, backward=backward), len(part.prefixes), part.prefixes)
        for part in parts_of(sizes, chunk, backward=backward)
    ]


def forward_block(sizes: Sizes, chunk: Chunk) -> Block:
    """Block of the forward pass."""
    name = f"stage.{chunk.stage}.chunk.{chunk.index}.forward"
    return Block(name, tuple(segments_of(sizes, chunk, backward=False)), (False, *chunk.signature))


def backward_block(sizes: Sizes, chunk: Chunk) -> Block:
    """Block of the backward pass."""
    name = f"stage.{chunk.stage}.chunk.{chunk.index}.backward"
    return Block(name, tuple(segments_of(sizes, chunk, backward=True)), (True, *chunk.signature))
