"""What kind of layer each layer of a model is."""

from typing import Literal

from towtank.simulator.models.records import LatentAttention, ModelSpec

LayerKind = Literal["dense", "experts"]


def is_expert_layer(model: ModelSpec, layer_index: int) -> bool:
    """Whether layer `layer_index` (from 0) has experts in place of the dense feed-forward part."""
    if model.experts is None:
        return False
    past = layer_index - model.experts.first_dense_layers
    return past >= 0 and past % model.experts.every == 0


def layer_kind(model: ModelSpec, layer_index: int) -> LayerKind:
    """Return "experts" or "dense" for layer `layer_index` (from 0)."""
    return "experts" if is_expert_layer(model, layer_index) else "dense"


def layer_window(model: ModelSpec, layer_index: int) -> int | None:
    """Attention window of layer `layer_index` in tokens; None: the layer sees the whole sequence."""
    if isinstance(model.attention, LatentAttention):
        return None
    return model.attention.windows[layer_index % len(model.attention.windows)]
