"""FLOP: hand calculations, and the formulas of the papers."""

from dataclasses import replace

import pytest

from towtank.simulator.models.count import (
    attention_pairs,
    forward_flop,
    layer_flop,
    megatron_flop,
    megatron_model_flop,
    model_flop_per_token,
    parameters,
)
from towtank.simulator.models.load import load_model


def test_tiny_moe_by_hand() -> None:
    # s 100, h 256, 8 heads of 32, 4 key heads, 8 experts of 512 gated, 2 active, 4 layers, V 4096
    flop = forward_flop(load_model("tiny-moe"), 100, causal=False)
    assert flop.qkv == 4 * 2 * 100 * 256 * (8 + 2 * 4) * 32
    assert flop.attention == 4 * 2 * 100 * 100 * 8 * (32 + 32)
    assert flop.projection == 4 * 2 * 100 * 256 * 256
    assert flop.router == 4 * 2 * 100 * 256 * 8
    assert flop.experts_routed == 4 * 2 * 100 * 3 * 256 * 512 * 2
    assert flop.head == 2 * 100 * 256 * 4096
    assert (flop.mlp, flop.experts_shared, flop.embedding, flop.mtp) == (0, 0, 0, 0)


def test_tiny_mla_attention_by_hand() -> None:
    # 8 heads: queries and keys of 32 + 16, values of 32; half of s^2 pairs
    flop = layer_flop(load_model("tiny-mla"), 1, 64, causal=True)
    assert flop.attention == 2 * (64 * 64 / 2) * 8 * (48 + 32)
    assert flop.qkv == 2 * 64 * (256 * 64 + 64 * 8 * 48 + 256 * 48 + 32 * 8 * 64)
    assert flop.projection == 2 * 64 * 8 * 32 * 256
    assert flop.experts_shared == 2 * 64 * 3 * 256 * 256


@pytest.mark.parametrize(
    ("window", "causal", "expected"),
    [(None, False, 10_000), (None, True, 5_000), (20, True, 1_800), (20, False, 2_000), (500, True, 5_000)],
)
def test_pairs_of_100_tokens(window: int | None, causal: bool, expected: float) -> None:
    assert attention_pairs(100, window, causal) == expected


def test_llama2_70b_at_4096_agrees_with_the_hand_formula() -> None:
    # 2 (P - embedding) s + 4 l s^2 h; PyTorch's counter gives 606.9 TFLOP on transformers' module
    model = load_model("llama2-70b")
    s, norms = 4096, 161 * 8192
    matrices = parameters(model).total - 32000 * 8192 - norms
    flop = forward_flop(model, s, causal=False)
    assert flop.total == 2 * matrices * s + 4 * 80 * s * s * 8192
    assert flop.total / 1e12 == pytest.approx(606.9, abs=0.05)


@pytest.mark.parametrize("name", ["megatron-1.7b", "megatron-175b", "megatron-1t"])
def test_megatron_formulas_follow_from_the_count(name: str) -> None:
    # Eq. 3 is 4 forward passes of the layers (s^2 pairs) and 3 of the head
    model = load_model(name)
    forward = forward_flop(model, 2048, causal=False)
    layers = forward.total - forward.head
    assert megatron_flop(model, 8, 2048) == pytest.approx(8 * (4 * layers + 3 * forward.head), rel=1e-12)
    assert megatron_model_flop(model, 8, 2048) == pytest.approx(8 * 3 * forward.total, rel=1e-12)


def test_narayanan_table_1_reproduces_its_own_times() -> None:
    # 1008B: 3072 devices at 163 TFLOP/s and a batch of 3072 sequences; section 5.1 of the paper gives
    # 84 days for 450B tokens: 450e9 / (3072 x 2048) steps
    model = load_model("megatron-1t")
    step_s = megatron_flop(model, 3072, 2048) / (3072 * 163e12)
    assert step_s * 450e9 / (3072 * 2048) / 86400 == pytest.approx(84, rel=0.02)


def test_palm_rule_of_six_per_parameter_and_token() -> None:
    # 6 N + 12 l h s per token without the causal saving (arXiv 2204.02311, appendix B), N without embedding
    model = load_model("llama3-8b")
    n = 6 * (parameters(model).total - 128256 * 4096 - 65 * 4096)
    assert model_flop_per_token(model, 8192, causal=False) == n + 12 * 32 * 4096 * 8192


def test_mtp_adds_a_layer_a_projection_and_a_head() -> None:
    model = load_model("deepseek-v3")
    s = 4096
    flop, without = (forward_flop(m, s, causal=True) for m in (model, replace(model, mtp_layers=0)))
    layer = layer_flop(model, 60, s, causal=True).total
    assert flop.mtp == layer + 2 * s * 2 * 7168 * 7168 + flop.head
    assert flop.total - without.total == flop.mtp
