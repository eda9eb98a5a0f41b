"""What a model counts: parameters here, by component and by layer, exact; FLOP in `flop`, re-exported."""

from dataclasses import dataclass, fields

from towtank.simulator.models.flop import (
    FlopCount,
    LayerFlop,
    attention_pairs,
    forward_flop,
    layer_flop,
    megatron_flop,
    megatron_model_flop,
    model_flop_per_token,
)
from towtank.simulator.models.layers import LayerKind, is_expert_layer, layer_kind, layer_window
from towtank.simulator.models.records import Attention, LatentAttention, ModelSpec

__all__ = [
    "FlopCount",
    "LayerFlop",
    "LayerKind",
    "LayerParameters",
    "ParameterCount",
    "attention_pairs",
    "forward_flop",
    "is_expert_layer",
    "layer_flop",
    "layer_kind",
    "layer_parameters",
    "layer_window",
    "megatron_flop",
    "megatron_model_flop",
    "model_flop_per_token",
    "mtp_parameters",
    "parameters",
]


@dataclass(frozen=True, slots=True)
class LayerParameters:
    """Parameters of one layer."""

    attention: int
    """Projections with their biases, and sinks; norms inside the attention are in `norms`."""
    mlp: int
    experts_routed: int
    """All routed experts, not only the active ones."""
    experts_shared: int
    router: int
    norms: int
    """Norms of the layer, of queries and keys, and of the compressed latents."""

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Parameters of a whole model by component; a tied head counts nothing, its table is the embedding."""

    embedding: int
    """Token table, with the norm and the in-projection that a few models put after it."""
    positions: int
    attention: int
    mlp: int
    experts_routed: int
    experts_shared: int
    router: int
    norms: int
    """Norms of all layers, without the final one."""
    final_norm: int
    head: int
    mtp: int
    """Multi-token-prediction modules without the embedding and the head, which they share with the model."""
    active: int
    """Parameters that one token uses: `experts_routed` reduced to top_k experts; embedding and head included,
    MTP modules left out (as Mixtral and Qwen3 print it; DeepSeek-V3 and gpt-oss leave out the embedding
    too)."""

    @property
    def total(self) -> int:
        """Everything that is trained, MTP modules included."""
        return sum(getattr(self, field.name) for field in fields(self) if field.name != "active")

    @property
    def without_mtp(self) -> int:
        """The count that papers print: the main model only."""
        return self.total - self.mtp

    @property
    def layers(self) -> int:
        """Parameters of all layers: attention, feed-forward parts, routers and norms."""
        return self.without_mtp - self.embedding - self.positions - self.final_norm - self.head


def layer_parameters(model: ModelSpec, layer_index: int) -> LayerParameters:
    """Count the parameters of layer `layer_index` (from 0) by part."""
    routed = shared = router = mlp = 0
    if model.experts is not None and is_expert_layer(model, layer_index):
        experts = model.experts
        routed = experts.num_experts * _feed_forward(
            model.hidden, experts.hidden, experts.gated, experts.bias
        )
        if experts.shared_hidden:
            shared = _feed_forward(model.hidden, experts.shared_hidden, experts.gated, experts.bias)
            shared += model.hidden * experts.shared_gate
        router = experts.num_experts * (model.hidden + experts.router_bias)
    else:
        mlp = _feed_forward(model.hidden, model.mlp.hidden, model.mlp.gated, model.mlp.bias)
        mlp += model.mlp.activation_parameters
    norm_width = model.norms_per_layer * model.hidden + _attention_norm_width(model.attention)
    return LayerParameters(
        attention=_attention(model.hidden, model.attention),
        mlp=mlp,
        experts_routed=routed,
        experts_shared=shared,
        router=router,
        norms=_norm(model, norm_width),
    )


def parameters(model: ModelSpec) -> ParameterCount:
    """Count the parameters of `model` by component.

    Checked against the counts that authors print and, to the digit, against transformers' own modules
    (tests).
    """
    # Layers of one kind are alike, so two counts serve all.
    by_kind = {kind: layer_parameters(model, index) for kind, index in _first_of_kind(model).items()}
    layers = [by_kind[layer_kind(model, index)] for index in range(model.num_layers)]
    width = model.embedding_projection or model.hidden
    projection = width * model.hidden if model.embedding_projection is not None else 0
    table = model.vocab * width
    routed = sum(layer.experts_routed for layer in layers)
    embedding = table + projection + _norm(model, model.hidden) * model.embedding_norm
    positions = model.max_positions * model.hidden if model.positions == "learned" else 0
    final_norm = _norm(model, model.hidden) * model.final_norm
    head = (0 if model.tied_embeddings else table) + projection + model.vocab * model.head_bias
    every_token = embedding + positions + final_norm + head + sum(layer.total for layer in layers) - routed
    return ParameterCount(
        embedding=embedding,
        positions=positions,
        attention=sum(layer.attention for layer in layers),
        mlp=sum(layer.mlp for layer in layers),
        experts_routed=routed,
        experts_shared=sum(layer.experts_shared for layer in layers),
        router=sum(layer.router for layer in layers),
        norms=sum(layer.norms for layer in layers),
        final_norm=final_norm,
        head=head,
        mtp=model.mtp_layers * mtp_parameters(model),
        active=every_token + _active_routed(model, routed),
    )


def mtp_parameters(model: ModelSpec) -> int:
    """Count the parameters of one multi-token-prediction module, without the shared embedding and head.

    A module is a layer like the last one, the projection of [hidden state, embedding] from 2h to h, the two
    norms before it and the norm before the head (DeepSeek-V3, arXiv 2412.19437, eq. 21).
    """
    h = model.hidden
    return layer_parameters(model, _mtp_layer_index(model)).total + 2 * h * h + _norm(model, 3 * h)


def _mtp_layer_index(model: ModelSpec) -> int:
    return model.num_layers - 1


def _first_of_kind(model: ModelSpec) -> dict[LayerKind, int]:
    first: dict[LayerKind, int] = {}
    for index in range(model.num_layers):
        first.setdefault(layer_kind(model, index), index)
    return first


def _active_routed(model: ModelSpec, routed: int) -> int:
    if model.experts is None:
        return 0
    return routed // model.experts.num_experts * model.experts.top_k


def _feed_forward(h: int, f: int, gated: bool, bias: bool) -> int:
    up = 2 if gated else 1
    return (up + 1) * h * f + bias * (up * f + h)


def _norm(model: ModelSpec, width: int) -> int:
    return width * (2 if model.norm_bias else 1)


def _attention_norm_width(attention: Attention | LatentAttention) -> int:
    if isinstance(attention, LatentAttention):
        return (attention.q_rank or 0) + attention.kv_rank
    return 2 * attention.head_dim if attention.qk_norm else 0


def _attention(h: int, attention: Attention | LatentAttention) -> int:
    if isinstance(attention, LatentAttention):
        return _latent_attention(h, attention)
    q = attention.heads * attention.head_dim
    kv = 2 * attention.kv_heads * attention.head_dim
    bias = (q + kv) * attention.qkv_bias + h * attention.output_bias
    return h * (q + kv) + q * h + bias + attention.heads * attention.sinks


def _latent_attention(h: int, a: LatentAttention) -> int:
    """Count the projections of arXiv 2405.04434, eqs. 37-47."""
    q = a.heads * (a.nope_head_dim + a.rope_head_dim)
    query = h * q if a.q_rank is None else a.q_rank * (h + q)
    down = h * (a.kv_rank + a.rope_head_dim)
    up = a.kv_rank * a.heads * (a.nope_head_dim + a.value_head_dim)
    return query + down + up + a.heads * a.value_head_dim * h
