"""Parameter counts: hand calculations on small models."""

from dataclasses import replace

import pytest

from towtank.simulator.models.count import (
    is_expert_layer,
    layer_kind,
    layer_parameters,
    layer_window,
    parameters,
)
from towtank.simulator.models.load import load_model


def test_tiny_llama_by_hand() -> None:
    # h 256, 8 heads of 32, 4 key heads, f 1024 gated, 4 layers, V 4096, untied
    count = parameters(load_model("tiny-llama"))
    assert count.embedding == count.head == 4096 * 256
    assert count.attention == 4 * (256 * 256 + 2 * 256 * 128 + 256 * 256)
    assert count.mlp == 4 * 3 * 256 * 1024
    assert count.norms == 4 * 2 * 256
    assert count.final_norm == 256
    assert count.total == 6_031_616 == count.active
    assert (count.positions, count.experts_routed, count.experts_shared, count.router, count.mtp) == (0,) * 5


def test_tiny_gpt_by_hand() -> None:
    # h 256, biases everywhere, f 1024, 4 layers, V 4096 tied, 256 learned positions
    count = parameters(load_model("tiny-gpt"))
    assert count.attention == 4 * (4 * 256 * 256 + 4 * 256)
    assert count.mlp == 4 * (2 * 256 * 1024 + 1024 + 256)
    assert count.norms == 4 * 2 * 2 * 256
    assert (count.positions, count.head, count.final_norm) == (256 * 256, 0, 512)


def test_tiny_mla_layers_by_hand() -> None:
    model = load_model("tiny-mla")
    dense, mixture = layer_parameters(model, 0), layer_parameters(model, 1)
    query = 256 * 64 + 64 * 8 * (32 + 16)
    keys_values = 256 * (32 + 16) + 32 * 8 * (32 + 32)
    assert dense.attention == mixture.attention == query + keys_values + 8 * 32 * 256
    assert dense.norms == mixture.norms == 2 * 256 + 64 + 32
    assert (dense.mlp, dense.router) == (3 * 256 * 1024, 0)
    assert (mixture.mlp, mixture.router) == (0, 8 * 256 + 8)
    assert (mixture.experts_routed, mixture.experts_shared) == (8 * 3 * 256 * 256, 3 * 256 * 256)


def test_narayanan_equation_2_up_to_the_final_norm() -> None:
    # P = 12 l h^2 (1 + 13 / (12 h) + (V + s) / (12 l h)) leaves out the final norm (2 h)
    for name in ("megatron-1.7b", "megatron-145b", "megatron-1t"):
        model = load_model(name)
        layers, h, table = model.num_layers, model.hidden, model.vocab + model.sequence
        assert parameters(model).total == 12 * layers * h * h + 13 * layers * h + table * h + 2 * h


def test_mtp_module_of_deepseek_v3() -> None:
    # one layer with experts, eh projection 2h x h, three norms
    model = load_model("deepseek-v3")
    count = parameters(model)
    assert count.mtp == layer_parameters(model, 60).total + 2 * 7168 * 7168 + 3 * 7168
    # 11.5B unique parameters on the model card, which rounds coarsely
    assert count.mtp == pytest.approx(11.5e9, rel=0.01)


@pytest.mark.parametrize(
    ("first", "every", "expected"),
    [(0, 1, [0, 1, 2, 3, 4, 5]), (1, 2, [1, 3, 5]), (3, 1, [3, 4, 5]), (2, 3, [2, 5])],
)
def test_which_layers_have_experts(first: int, every: int, expected: list[int]) -> None:
    model = load_model("tiny-moe")
    assert model.experts is not None
    model = replace(
        model, num_layers=6, experts=replace(model.experts, first_dense_layers=first, every=every)
    )
    assert [i for i in range(6) if is_expert_layer(model, i)] == expected
    assert [layer_kind(model, i) for i in expected] == ["experts"] * len(expected)


def test_windows_repeat() -> None:
    gemma = load_model("gemma2-9b")
    assert [layer_window(gemma, i) for i in range(4)] == [4096, None, 4096, None]
    assert layer_window(load_model("deepseek-v3"), 5) is None
