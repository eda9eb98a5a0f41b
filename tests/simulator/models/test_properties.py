"""Properties of the counts that hold for every model."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towtank.simulator.models.count import (
    attention_pairs,
    forward_flop,
    layer_flop,
    layer_parameters,
    parameters,
)
from towtank.simulator.models.load import load_model
from towtank.simulator.models.records import Attention, Experts, LatentAttention, Mlp, ModelSpec

small = st.integers(1, 8)


@st.composite
def attentions(draw: st.DrawFn) -> Attention:
    kv_heads = draw(small)
    return Attention(
        heads=kv_heads * draw(small),
        kv_heads=kv_heads,
        head_dim=draw(st.sampled_from([8, 16, 64])),
        qkv_bias=draw(st.booleans()),
        output_bias=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        windows=tuple(draw(st.lists(st.one_of(st.none(), st.integers(1, 64)), min_size=1, max_size=3))),
        sinks=draw(st.booleans()),
    )


latent_attentions = st.builds(
    LatentAttention,
    heads=small,
    q_rank=st.one_of(st.none(), st.integers(1, 64)),
    kv_rank=st.integers(1, 64),
    nope_head_dim=st.integers(1, 32),
    rope_head_dim=st.integers(1, 32),
    value_head_dim=st.integers(1, 32),
)

mlps = st.builds(Mlp, hidden=st.integers(1, 256), gated=st.booleans(), bias=st.booleans())


@st.composite
def experts(draw: st.DrawFn, num_layers: int) -> Experts:
    num_experts = draw(st.integers(1, 16))
    return Experts(
        num_experts=num_experts,
        top_k=draw(st.integers(1, num_experts)),
        hidden=draw(st.integers(1, 128)),
        gated=draw(st.booleans()),
        shared_hidden=draw(st.integers(0, 64)),
        shared_gate=draw(st.booleans()),
        first_dense_layers=draw(st.integers(0, num_layers - 1)),
        every=draw(st.integers(1, 3)),
        router_bias=draw(st.booleans()),
        bias=draw(st.booleans()),
    )


@st.composite
def models(draw: st.DrawFn) -> ModelSpec:
    num_layers, sequence = draw(st.integers(1, 12)), draw(st.integers(1, 256))
    positions = draw(st.sampled_from(["learned", "rope", "alibi"]))
    return ModelSpec(
        name="drawn",
        num_layers=num_layers,
        hidden=draw(st.integers(1, 128)),
        vocab=draw(st.integers(1, 512)),
        sequence=sequence,
        attention=draw(st.one_of(attentions(), latent_attentions)),
        mlp=draw(mlps),
        experts=draw(st.one_of(st.none(), experts(num_layers))),
        norm=draw(st.sampled_from(["layernorm", "rmsnorm"])),
        norm_bias=draw(st.booleans()),
        positions=positions,
        max_positions=sequence if positions == "learned" else 0,
        tied_embeddings=draw(st.booleans()),
        parallel_block=draw(st.booleans()),
        norms_per_layer=draw(st.integers(1, 4)),
        final_norm=draw(st.booleans()),
        embedding_norm=draw(st.booleans()),
        embedding_projection=draw(st.one_of(st.none(), st.integers(1, 64))),
        head_bias=draw(st.booleans()),
        mtp_layers=draw(st.integers(0, 2)),
    )


@given(models())
def test_total_is_the_sum_of_layers_and_the_rest(model: ModelSpec) -> None:
    count = parameters(model)
    assert count.layers == sum(layer_parameters(model, i).total for i in range(model.num_layers))
    assert 0 < count.active <= count.without_mtp <= count.total
    if model.experts is None:
        assert count.active == count.without_mtp


@given(models())
def test_doubling_the_layers_doubles_the_layer_parameters(model: ModelSpec) -> None:
    if model.experts is not None:
        model = replace(model, experts=replace(model.experts, first_dense_layers=0, every=1))
    once, twice = parameters(model), parameters(replace(model, num_layers=2 * model.num_layers))
    assert twice.layers == 2 * once.layers
    assert twice.total - twice.layers == once.total - once.layers


@given(attentions(), st.integers(1, 64))
def test_grouping_saves_exactly_the_keys_and_values(attention: Attention, hidden: int) -> None:
    classic = replace(attention, kv_heads=attention.heads)
    base = replace(load_model("tiny-llama"), hidden=hidden)
    per_head = attention.head_dim * (hidden + attention.qkv_bias)
    grouped = layer_parameters(replace(base, attention=attention), 0)
    full = layer_parameters(replace(base, attention=classic), 0)
    assert full.attention - grouped.attention == 2 * (attention.heads - attention.kv_heads) * per_head
    assert full.norms == grouped.norms


@given(models(), st.booleans())
def test_doubling_the_layers_doubles_the_layer_flop(model: ModelSpec, causal: bool) -> None:
    whole = len(getattr(model.attention, "windows", (None,)))
    model = replace(model, num_layers=whole * model.num_layers)
    if model.experts is not None:
        model = replace(model, experts=replace(model.experts, first_dense_layers=0, every=1))
    once = forward_flop(model, model.sequence, causal)
    twice = forward_flop(replace(model, num_layers=2 * model.num_layers), model.sequence, causal)
    per_layer = ("qkv", "attention", "projection", "mlp", "router", "experts_routed", "experts_shared")
    for name in per_layer:
        assert getattr(twice, name) == pytest.approx(2 * getattr(once, name), rel=1e-12)
    assert (twice.head, twice.embedding) == (once.head, once.embedding)


@given(models(), st.integers(1, 128))
def test_causal_is_never_more_and_everything_is_finite_and_not_negative(model: ModelSpec, s: int) -> None:
    causal, full = forward_flop(model, s, causal=True), forward_flop(model, s, causal=False)
    assert causal.attention <= full.attention
    assert all(getattr(causal, field.name) >= 0 for field in fields(causal))
    assert causal.total == pytest.approx(
        sum(layer_flop(model, i, s, True).total for i in range(model.num_layers))
        + causal.head
        + causal.embedding
        + causal.mtp
    )


@given(st.integers(1, 500), st.integers(1, 500))
def test_window_pairs_stay_within_half_a_row_of_the_exact_sum(s: int, w: int) -> None:
    exact = sum(min(i + 1, w) for i in range(s))
    assert exact - attention_pairs(s, w, causal=True) == pytest.approx(min(s, w) / 2)
