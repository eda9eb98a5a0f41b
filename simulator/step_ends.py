"""What a stage does once per step around its passes: collectives over data, gradient norm, optimizer."""

from collections.abc import Callable, Sequence

from towtank.simulator.cost.model import CostModel
from towtank.simulator.lowering.sizes import Sizes
from towtank.simulator.lowering.stages import Chunk
from towtank.simulator.lowering.weights import (
    Weights,
    chunk_weights,
    end_weights,
    gradient_norm_work,
    layer_weights,
    optimizer_work,
    stage_weights,
    tied_embedding_message,
)
from towtank.simulator.operations import Message


def unrolled_weights(sizes: Sizes, chunk: Chunk) -> list[tuple[int, Weights]]:
    """Weights that the collectives of an unrolled pass carry, by layer of the chunk; layer -1 of a chunk without any.

    The embedding goes with the first layer of the model, the head with the last one.
    """
    if chunk.num_layers == 0:
        return [(-1, chunk_weights(sizes, chunk))]
    found = []
    for layer in range(chunk.num_layers):
        weights = layer_weights(sizes, chunk.first_layer + layer)
        found.append((layer, weights + end_weights(sizes, chunk) if layer == end_layer(chunk) else weights))
    return found


Collectives = Callable[[Sizes, Weights], list[Message]]
"""Messages of some weights: `gradient_messages` or `parameter_messages`."""


def in_buckets(sizes: Sizes, weights: Weights, collectives: Collectives) -> list[Message]:
    """Messages of some weights, of at most a bucket each where the plan has buckets."""
    size, messages = sizes.plan.gradient_bucket, collectives(sizes, weights)
    parts = 1 if size is None else max(1, -(-_number(weights) // size))
    return [message._replace(bytes=message.bytes / parts) for message in messages for _ in range(parts)]


def _number(weights: Weights) -> int:
    return weights.dense + weights.experts + weights.embedding


def layer_messages(sizes: Sizes, chunk: Chunk, collectives: Collectives) -> list[tuple[int, list[Message]]]:
    """Messages of an unrolled pass by layer of the chunk.

    Gradients come from the last layer to the first, and a bucket is sent when it is full or the chunk is done, so
    what several layers fill stands at the first of them: the last that makes gradients, and the first whose weights
    are waited for. One layer may fill several.
    """
    layers = unrolled_weights(sizes, chunk)
    size = sizes.plan.gradient_bucket
    if size is None:
        return [(layer, collectives(sizes, weights)) for layer, weights in layers]
    found: list[tuple[int, list[Message]]] = []
    waiting = Weights(0, 0, 0)
    for place in reversed(range(len(layers))):
        layer, weights = layers[place]
        waiting += weights
        full = place == 0 or _number(waiting) >= size
        found.append((layer, in_buckets(sizes, waiting, collectives) if full else []))
        waiting = Weights(0, 0, 0) if full else waiting
    return found[::-1]


def layer_seconds(
    sizes: Sizes, chunk: Chunk, collectives: Collectives, cost: CostModel
) -> list[tuple[int, float]]:
    """Seconds of `layer_messages`; alike layers are timed once."""
    if sizes.plan.gradient_bucket is not None:
        return [
            (layer, messages_s(found, cost)) for layer, found in layer_messages(sizes, chunk, collectives)
        ]
    known: dict[Weights, float] = {}
    result = []
    for layer, weights in unrolled_weights(sizes, chunk):
        if weights not in known:
            known[weights] = messages_s(collectives(sizes, weights), cost)
        result.append((layer, known[weights]))
    return result


def messages_s(messages: Sequence[Message], cost: CostModel) -> float:
    """Seconds of messages one after the other."""
    return sum((cost.duration_s(message) for message in messages), 0.0)


def end_layer(chunk: Chunk) -> int:
    """Layer of a chunk with which its embedding or head is reduced and gathered; -1 if it has none of them."""
    if chunk.has_embedding:
        return 0
    return chunk.num_layers - 1 if chunk.has_head else -1


def gradient_norm_s(sizes: Sizes, chunks: Sequence[Chunk], cost: CostModel) -> float:
    """Seconds of the norm of all gradients, and of the sum of tied tables before it."""
    weights = stage_weights(sizes, chunks)
    norm = cost.duration_s(gradient_norm_work(sizes, weights)) + cost.duration_s(
        Message("all-reduce", "world", 4.0)
    )
    tied = tied_embedding_message(sizes, chunks)
    return norm + (cost.duration_s(tied) if tied else 0.0)


def optimizer_s(sizes: Sizes, chunks: Sequence[Chunk], cost: CostModel) -> float:
    """Seconds of the optimizer, and of the step outside of all passes."""
    optimizer = cost.duration_s(optimizer_work(sizes, stage_weights(sizes, chunks)))
    return optimizer + sizes.stack.step_overhead_s
