"""Templates of what lies around the layers: embedding, final norm, head, loss, multi-token prediction."""

from functools import lru_cache

from towtank.kernels import passes
from towtank.simulator.lowering.attention import norm_passes, reduce_statistics
from towtank.simulator.lowering.linear import backward_linear, forward_linear, normal
from towtank.simulator.lowering.sizes import Sizes
from towtank.simulator.lowering.template import Template
from towtank.simulator.operations import Message, Operation, Phase, Stream


def embedding_shards(sizes: Sizes) -> int:
    """Devices over which embedding and head are sharded at rest, besides x and y."""
    return sizes.plan.weight_shards if sizes.stack.communication.shard_embedding else 1


def local_embedding_weights(sizes: Sizes) -> int:
    """Weights of one vocabulary table on a device while in use, split over x and y together."""
    return sizes.vocab * sizes.model.hidden // (sizes.plan.tensor_x * sizes.plan.tensor_y)


def position_weights(sizes: Sizes) -> int:
    """Learned positions on a device while in use."""
    return sizes.model.max_positions * sizes.hidden if sizes.model.positions == "learned" else 0


def _gather(template: Template, name: str, weights: int) -> None:
    if embedding_shards(template.sizes) > 1:
        message = Message("all-gather", "weight_shard", template.weight_bytes(weights))
        template.collective(f"{name}.all-gather", Stream.GATHER, message)


def _scatter(template: Template, name: str, weights: int) -> None:
    if embedding_shards(template.sizes) > 1:
        size = template.scatter_bytes(weights)
        message = Message("reduce-scatter", "weight_shard", size)
        blocking = not template.sizes.overlap.reduce_scatter
        template.collective(f"{name}.reduce-scatter", Stream.SCATTER, message, blocking=blocking)


def _split_vocabulary(sizes: Sizes) -> bool:
    return sizes.plan.tensor_x * sizes.plan.tensor_y > 1


def _reduce(template: Template, name: str, *, scatter: bool) -> None:
    """Sum of partial results over the x.y group that splits the vocabulary."""
    sizes = template.sizes
    if not _split_vocabulary(sizes):
        return
    kind = "reduce-scatter" if scatter and sizes.sequence_split else "all-reduce"
    size = sizes.tokens * sizes.model.hidden * sizes.element_bytes
    template.collective(f"{name}.{kind}", Stream.TENSOR, Message(kind, "tensor_xy", size))


def _gather_tokens(template: Template, name: str) -> None:
    """Whole rows of all tokens: what sequence parallelism splits over x, and the hidden state over y."""
    sizes = template.sizes
    if not sizes.sequence_split and sizes.plan.tensor_y == 1:
        return
    both = sizes.sequence_split and sizes.plan.tensor_y > 1
    group = "tensor_xy" if both else "tensor_x" if sizes.sequence_split else "tensor_y"
    size = sizes.tokens * sizes.model.hidden * sizes.element_bytes
    template.collective(f"{name}.all-gather", Stream.TENSOR, Message("all-gather", group, size))


def _norm(template: Template, name: str, *, backward: bool) -> None:
    sizes = template.sizes
    template.elementwise(name, sizes.norm_tokens * sizes.hidden, norm_passes(sizes), backward=backward)
    reduce_statistics(template, name)


@lru_cache(maxsize=256)
def embedding_template(sizes: Sizes, *, backward: bool) -> tuple[Operation, ...]:
    """Vocabulary-parallel look-up, its sum over the tensor group, and the scatter of its gradient."""
    template = Template(sizes, Phase.BACKWARD if backward else Phase.FORWARD)
    elements = sizes.tokens * sizes.model.hidden
    if backward:
        _gather_tokens(template, "embedding")
        template.elementwise("embedding.gradient", elements, passes.EMBEDDING, backward=True)
        _scatter(template, "embedding.positions.weight", position_weights(sizes))
        _scatter(template, "embedding.weight", local_embedding_weights(sizes))
        return template.build()
    _gather(template, "embedding.weight", local_embedding_weights(sizes))
    _gather(template, "embedding.positions.weight", position_weights(sizes))
    template.elementwise("embedding.lookup", elements, passes.EMBEDDING)
    _reduce(template, "embedding", scatter=True)
    if sizes.model.embedding_norm:
        _norm(template, "embedding.norm", backward=False)
    return template.build()


def _cross_entropy(template: Template, *, backward: bool) -> None:
    sizes = template.sizes
    columns = sizes.vocab // (sizes.plan.tensor_x * sizes.plan.tensor_y)
    fused = sizes.stack.kernels.fused_cross_entropy
    kind = passes.CROSS_ENTROPY_FUSED if fused else passes.CROSS_ENTROPY_UNFUSED
    template.elementwise("loss", float(sizes.tokens) * columns, kind, backward=backward)
    if not backward and _split_vocabulary(sizes):
        # maximum, target logit and sum of exponentials: three fp32 numbers per token
        template.collective(
            "loss.all-reduce", Stream.TENSOR, Message("all-reduce", "tensor_xy", sizes.tokens * 12.0)
        )


@lru_cache(maxsize=256)
def head_template(sizes: Sizes, *, backward: bool) -> tuple[Operation, ...]:
    """Final norm, vocabulary projection and cross-entropy."""
    template = Template(sizes, Phase.BACKWARD if backward else Phase.FORWARD)
    hidden = sizes.model.hidden
    columns = sizes.vocab // (sizes.plan.tensor_x * sizes.plan.tensor_y)
    if not backward:
        _norm(template, "final-norm", backward=False)
        _gather(template, "head.weight", local_embedding_weights(sizes))
        _gather_tokens(template, "head")
        template.matmul("head", "forward", (sizes.tokens, columns, hidden), narrow=False)
        _cross_entropy(template, backward=False)
        for number in range(sizes.stack.kernels.training_metrics):
            template.elementwise(
                f"metric.{number}", float(sizes.tokens) * columns, passes.CROSS_ENTROPY_METRIC
            )
        return template.build()
    _cross_entropy(template, backward=True)
    template.matmul("head", "dgrad", (sizes.tokens, hidden, columns), narrow=False)
    _reduce(template, "head.dgrad", scatter=True)
    template.matmul("head", "wgrad", (columns, hidden, sizes.tokens), narrow=False)
    _scatter(template, "head.weight", local_embedding_weights(sizes))
    _norm(template, "final-norm", backward=True)
    return template.build()


@lru_cache(maxsize=256)
def prediction_projection_template(sizes: Sizes, *, backward: bool) -> tuple[Operation, ...]:
    """Projection of hidden state and next embedding to one input (multi-token prediction, arXiv 2412.19437)."""
    template = Template(sizes, Phase.BACKWARD if backward else Phase.FORWARD)
    projection = normal(template, "projection", 2 * sizes.model.hidden, sizes.model.hidden)
    if backward:
        backward_linear(template, projection, sizes.tokens, regather=sizes.regathers)
        return template.build()
    forward_linear(template, projection, sizes.tokens)
    if sizes.plan.tensor_x > 1:
        # the layer that follows reads the whole width
        size = sizes.tokens * sizes.hidden * sizes.element_bytes
        template.collective(
            "projection.output.all-gather", Stream.TENSOR, Message("all-gather", "tensor_x", size)
        )
    return template.build()
