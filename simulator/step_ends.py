"""What a stage does once per step around its passes: collectives over data, gradient norm, optimizer."""

from collections.abc import Sequence

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
