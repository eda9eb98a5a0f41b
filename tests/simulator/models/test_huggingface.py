"""Hugging Face configurations: those of released models read as their zoo models; faults name the key."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from towtank.simulator.models.errors import ConfigError
from towtank.simulator.models.huggingface import known_architectures, model_from_config
from towtank.simulator.models.huggingface_shapes import SHAPES
from towtank.simulator.models.load import load_model
from towtank.simulator.models.records import Attention, ModelSpec

CAPTURES = Path(__file__).parents[2] / "captures" / "hf_configs"
OTHER_NAMES = {
    "mistral-7b-v0.1": "mistral-7b",
    "mixtral-8x7b-v0.1": "mixtral-8x7b",
    "mpt-7b": "mpt-7b-released",
}


def llama(**changes: Any) -> dict[str, Any]:
    keys = json.loads((CAPTURES / "llama-3.1-8b" / "config.json").read_text())
    return {key: value for key, value in (keys | changes).items() if value != "left out"}


def read(config: dict[str, Any], **options: Any) -> ModelSpec:
    return model_from_config(config, name="test", **options)


def attention_of(config: dict[str, Any]) -> Attention:
    attention = read(config).attention
    assert isinstance(attention, Attention)
    return attention


@pytest.mark.parametrize("name", sorted(path.parent.name for path in CAPTURES.glob("*/config.json")))
def test_config_of_a_released_model_is_its_zoo_model(name: str) -> None:
    zoo = load_model(OTHER_NAMES.get(name, name))
    config = load_model(CAPTURES / name)
    assert config.name == name and config.source.endswith("config.json")
    assert config == replace(zoo, name=name, source=config.source, sequence=config.sequence)
    assert load_model(CAPTURES / name / "config.json") == config


def test_every_architecture_of_the_table_has_a_shape_and_back() -> None:
    assert known_architectures() == sorted(SHAPES)


def test_all_key_faults_come_at_once() -> None:
    config = llama(hidden_size="left out", num_atention_heads=3, is_encoder_decoder=True, qk_layernorm=True)
    with pytest.raises(ConfigError) as caught:
        read(config, where="config.json")
    lines = str(caught.value).splitlines()
    assert lines[0] == "config.json cannot be read as a model:"
    assert lines[1].startswith(
        "  key num_atention_heads is not known for LlamaForCausalLM; did you mean 'num_attention_heads'"
    )
    assert lines[2] == "  is_encoder_decoder must be false, but it is true: not modelled"
    assert lines[3].startswith("  key qk_layernorm is not known for LlamaForCausalLM")
    assert lines[3].endswith("ignore it (ignore_keys, --ignore-config-key qk_layernorm)")
    assert lines[4] == "  missing key hidden_size"


def test_an_unknown_key_can_be_ignored() -> None:
    assert read(llama(my_note="x"), ignore_keys=["my_note"]) == read(llama())


def test_unknown_architecture_lists_the_known() -> None:
    with pytest.raises(
        ConfigError, match=r"'LlamaForCausalLm'; did you mean 'LlamaForCausalLM'.*known are .*Qwen3Moe"
    ):
        read(llama(architectures=["LlamaForCausalLm"]))
    with pytest.raises(ConfigError, match="must name one architecture under `architectures`, but has None"):
        read(llama(architectures=None))


def test_wrong_values_are_config_errors() -> None:
    with pytest.raises(ConfigError, match="num_layers must be a whole number, but it is '32'"):
        read(llama(num_hidden_layers="32"))
    with pytest.raises(ConfigError, match="must be a multiple of the heads"):
        read(llama(num_attention_heads=31))
    with pytest.raises(ConfigError, match="holds no usable number"):
        read(llama(num_attention_heads=0))


@pytest.mark.parametrize("text", ["[1, 2]", "{", "nonsense"])
def test_files_that_are_no_json_object(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_model(path)


def qwen2(**changes: Any) -> dict[str, Any]:
    keys = json.loads((CAPTURES / "qwen2.5-7b" / "config.json").read_text())
    return keys | {"num_hidden_layers": 4, "max_window_layers": 2, "sliding_window": 1024} | changes


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({}, (None,)),
        ({"use_sliding_window": True}, (None, None, 1024, 1024)),
        ({"use_sliding_window": True, "max_window_layers": 0}, (1024,)),
        ({"use_sliding_window": True, "max_window_layers": 9}, (None,)),
        (
            {"use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention"] * 2},
            (1024, None),
        ),
        ({"layer_types": ["sliding_attention"] * 4}, (None,)),
    ],
)
def test_windows_of_qwen2(changes: dict[str, Any], windows: tuple[int | None, ...]) -> None:
    assert attention_of(qwen2(**changes)).windows == windows


def test_layer_types_must_fit() -> None:
    with pytest.raises(ConfigError, match="layer_types must have"):
        read(qwen2(use_sliding_window=True, layer_types=["full_attention"]))
    with pytest.raises(ConfigError, match="layer_types must be one of full_attention, sliding_attention"):
        read(qwen2(use_sliding_window=True, layer_types=["linear_attention"] * 4))


def test_irregular_expert_layers_are_refused() -> None:
    config = json.loads((CAPTURES / "qwen3-30b-a3b" / "config.json").read_text())
    with pytest.raises(ConfigError, match="must be regular after the first dense ones"):
        read(config | {"mlp_only_layers": [5]})
    experts = read(config | {"mlp_only_layers": [0, 1], "decoder_sparse_step": 1}).experts
    assert experts is not None and (experts.first_dense_layers, experts.every) == (2, 1)


def test_deepseek_expert_layers_are_multiples_of_the_frequency() -> None:
    config = json.loads((CAPTURES / "deepseek-v3" / "config.json").read_text())
    experts = read(config | {"first_k_dense_replace": 3, "moe_layer_freq": 2}).experts
    assert experts is not None and (experts.first_dense_layers, experts.every) == (4, 2)


def mpt(**changes: Any) -> dict[str, Any]:
    base = {"architectures": ["MPTForCausalLM"], "d_model": 64, "n_heads": 4, "n_layers": 2}
    return base | {"max_seq_len": 128, "vocab_size": 100} | changes


def test_mpt_of_llm_foundry_has_learned_positions_and_biases_by_default() -> None:
    model = read(mpt())
    assert (model.positions, model.max_positions, model.norm_bias, model.mlp.bias) == (
        "learned",
        128,
        True,
        True,
    )
    assert (model.attention.heads, model.mlp.hidden, model.tied_embeddings) == (4, 256, True)


def test_mpt_attention_kinds() -> None:
    grouped = {"attn_type": "grouped_query_attention", "kv_n_heads": 2, "alibi": True}
    assert attention_of(mpt(attn_config=grouped)).kv_heads == 2
    assert attention_of(mpt(attn_config={"attn_type": "multiquery_attention"})).kv_heads == 1
    assert attention_of(mpt(attn_config={"sliding_window_size": 64, "rope": True})).windows == (64,)
    with pytest.raises(ConfigError, match="kv_n_heads must be stated"):
        read(mpt(attn_config={"attn_type": "grouped_query_attention"}))
    with pytest.raises(ConfigError, match=r"attn_config\.qk_ln must be false, but it is true"):
        read(mpt(attn_config={"qk_ln": True}))
    with pytest.raises(ConfigError, match=r"key attn_config\.flux is not known for MPTForCausalLM"):
        read(mpt(attn_config={"flux": 1}))


def test_mpt_feed_forward_and_norm_kinds() -> None:
    model = read(
        mpt(norm_type="low_precision_rmsnorm", ffn_config={"ffn_type": "mptglu", "ffn_hidden_size": 96})
    )
    assert (model.norm, model.norm_bias, model.mlp.hidden, model.mlp.gated) == ("rmsnorm", False, 96, True)
    with pytest.raises(ConfigError, match=r"ffn_config\.ffn_type must be one of mptmlp, mptglu"):
        read(mpt(ffn_config={"ffn_type": "mb_dmoe"}))
    with pytest.raises(ConfigError, match="but none is"):
        read(mpt(learned_pos_emb=False))
