"""FLOP of a model by component, per sequence.

Conventions. A multiply-add is 2 FLOP. Only matrix products count, as in every published figure: norms,
softmax, activations, rotary embeddings and the look-up of embeddings do not. Of s^2 pairs of positions
causal attention computes s^2 / 2 (the field's convention; the exact s (s + 1) / 2 differs by 1/s), a causal
window of w < s tokens s w - w^2 / 2 (equal to s^2 / 2 at w = s). Without `causal` they count s^2 and s w,
as sources do that ignore the mask. Routed experts count the top_k experts of each token, whatever capacity
or imbalance do to the work of a device.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

from towtank.simulator.models.layers import is_expert_layer, layer_window
from towtank.simulator.models.records import Attention, LatentAttention, ModelSpec


@dataclass(frozen=True, slots=True)
class LayerFlop:
    """Forward FLOP of one layer for one sequence."""

    qkv: float
    """Projections from the input to queries, keys and values, compressed ones included."""
    attention: float
    """Scores and weighted values."""
    projection: float
    """Output projection of the attention."""
    mlp: float
    router: float
    experts_routed: float
    experts_shared: float

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return sum(_values(self))


@dataclass(frozen=True, slots=True)
class FlopCount:
    """Forward FLOP of a model for one sequence, by component."""

    qkv: float
    attention: float
    projection: float
    mlp: float
    router: float
    experts_routed: float
    experts_shared: float
    embedding: float
    """In-projection of models whose embedding is narrower than `hidden`; otherwise 0."""
    head: float
    mtp: float
    """Multi-token-prediction modules with their passes through the shared head."""

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return sum(_values(self))


def forward_flop(model: ModelSpec, sequence: int, causal: bool) -> FlopCount:
    """Count the FLOP of one forward pass over one sequence of `sequence` tokens (conventions: see above)."""
    distinct: dict[tuple[bool, int | None], LayerFlop] = {}
    layers = []
    for index in range(model.num_layers):
        key = (is_expert_layer(model, index), layer_window(model, index))
        if key not in distinct:
            distinct[key] = layer_flop(model, index, sequence, causal)
        layers.append(distinct[key])
    width = model.embedding_projection or model.hidden
    in_projection = 2.0 * sequence * model.hidden * width if model.embedding_projection is not None else 0.0
    head = 2.0 * sequence * width * model.vocab + in_projection
    eh_projection = 2.0 * sequence * 2 * model.hidden * model.hidden
    mtp_layer = layer_flop(model, model.num_layers - 1, sequence, causal).total if model.mtp_layers else 0.0
    return FlopCount(
        **{field.name: sum(getattr(layer, field.name) for layer in layers) for field in fields(LayerFlop)},
        embedding=in_projection,
        head=head,
        mtp=model.mtp_layers * (mtp_layer + eh_projection + head),
    )


def layer_flop(model: ModelSpec, layer_index: int, sequence: int, causal: bool) -> LayerFlop:
    """Count the forward FLOP of layer `layer_index` (from 0) for one sequence of `sequence` tokens."""
    s, h, a = sequence, model.hidden, model.attention
    pairs = attention_pairs(sequence, layer_window(model, layer_index), causal)
    score_width, value_width = _head_widths(a)
    mlp = router = routed = shared = 0.0
    if model.experts is not None and is_expert_layer(model, layer_index):
        experts = model.experts
        matrices = 3 if experts.gated else 2
        routed = 2.0 * s * matrices * h * experts.hidden * experts.top_k
        shared = 2.0 * s * (matrices * h * experts.shared_hidden + h * experts.shared_gate)
        router = 2.0 * s * h * experts.num_experts
    else:
        mlp = 2.0 * s * (3 if model.mlp.gated else 2) * h * model.mlp.hidden
    return LayerFlop(
        qkv=2.0 * s * _qkv_weights(h, a),
        attention=2.0 * pairs * a.heads * (score_width + value_width),
        projection=2.0 * s * a.heads * value_width * h,
        mlp=mlp,
        router=router,
        experts_routed=routed,
        experts_shared=shared,
    )


def attention_pairs(sequence: int, window: int | None, causal: bool) -> float:
    """Number of (query, key) pairs that one head computes in one sequence (conventions: this module)."""
    s = sequence
    w = s if window is None else min(window, s)
    return s * w - w * w / 2 if causal else float(s * w)


def model_flop_per_token(model: ModelSpec, sequence: int, causal: bool) -> float:
    """Training FLOP per token without recompute: 3 x forward, since backward is twice the forward pass.

    This is the FLOP of MFU (Chowdhery et al., arXiv 2204.02311, appendix B, which leaves `causal` out).
    """
    return 3.0 * forward_flop(model, sequence, causal).total / sequence


def megatron_flop(model: ModelSpec, batch: int, sequence: int) -> float:
    """FLOP of one step with full recompute as Megatron-LM papers count them, for `batch` sequences.

    F = 96 B s l h^2 (1 + s / (6 h) + V / (16 l h))    Narayanan et al., arXiv 2104.04473, eq. 3.

    The formula assumes a feed-forward part of 4 h without gate and ungrouped attention without causal saving;
    sources apply it to other models too, which is why it is a function of its own.
    """
    B, s, l, h, V = batch, sequence, model.num_layers, model.hidden, model.vocab  # noqa: E741, N806
    return 96.0 * B * s * l * h**2 * (1 + s / (6 * h) + V / (16 * l * h))


def megatron_model_flop(model: ModelSpec, batch: int, sequence: int) -> float:
    """FLOP of one step without recompute in the same convention, for `batch` sequences.

    F = 72 B s l h^2 (1 + s / (6 h) + V / (12 l h))    Korthikanti et al., arXiv 2205.05198, appendix A.
    """
    B, s, l, h, V = batch, sequence, model.num_layers, model.hidden, model.vocab  # noqa: E741, N806
    return 72.0 * B * s * l * h**2 * (1 + s / (6 * h) + V / (12 * l * h))


def _head_widths(attention: Attention | LatentAttention) -> tuple[int, int]:
    """Width of one head's query (and key), and of its value."""
    if isinstance(attention, LatentAttention):
        return attention.nope_head_dim + attention.rope_head_dim, attention.value_head_dim
    return attention.head_dim, attention.head_dim


def _qkv_weights(h: int, attention: Attention | LatentAttention) -> int:
    if not isinstance(attention, LatentAttention):
        return h * (attention.heads + 2 * attention.kv_heads) * attention.head_dim
    a = attention
    q = a.heads * (a.nope_head_dim + a.rope_head_dim)
    query = h * q if a.q_rank is None else a.q_rank * (h + q)
    return (
        query + h * (a.kv_rank + a.rope_head_dim) + a.kv_rank * a.heads * (a.nope_head_dim + a.value_head_dim)
    )


def _values(record: LayerFlop | FlopCount) -> Iterator[float]:
    return (getattr(record, field.name) for field in fields(record))
