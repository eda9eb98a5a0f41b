"""Counts of parameters and FLOP against the modules of transformers; nothing of the weights is ever allocated
except in the tiny mixtures, whose experts transformers picks by value."""

import json
from pathlib import Path
from typing import Any

import pytest

from towtank.simulator.models.count import forward_flop, parameters
from towtank.simulator.models.huggingface import _tables, known_architectures, model_from_config
from towtank.simulator.models.load import load_model

pytestmark = [pytest.mark.hf, pytest.mark.filterwarnings("ignore")]
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CAPTURES = Path(__file__).parents[2] / "captures" / "hf_configs"
COMMON = {"hidden_size": 64, "intermediate_size": 96, "max_position_embeddings": 64, "num_attention_heads": 4}
COMMON |= {"num_hidden_layers": 3, "vocab_size": 128}
LATENT = COMMON | {"num_hidden_layers": 4, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8}
LATENT |= {"v_head_dim": 12, "moe_intermediate_size": 32, "n_routed_experts": 8, "num_experts_per_tok": 2}
LATENT |= {
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
    "num_key_value_heads": 4,
}
QWEN_MOE = COMMON | {"num_key_value_heads": 2, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
MPT = {"d_model": 64, "n_heads": 4, "n_layers": 3, "max_seq_len": 64, "vocab_size": 128}

TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", COMMON | {"num_key_value_heads": 2}),
    "llama biases": ("LlamaForCausalLM", COMMON | {"attention_bias": True, "mlp_bias": True, "head_dim": 24}),
    "llama tied": ("LlamaForCausalLM", COMMON | {"tie_word_embeddings": True}),
    "mistral": ("MistralForCausalLM", COMMON | {"num_key_value_heads": 2, "sliding_window": 64}),
    "mixtral": ("MixtralForCausalLM", COMMON | {"num_key_value_heads": 2, "num_local_experts": 4}),
    "qwen2": ("Qwen2ForCausalLM", COMMON | {"num_key_value_heads": 2}),
    "qwen2 moe": (
        "Qwen2MoeForCausalLM",
        QWEN_MOE | {"num_experts": 6, "shared_expert_intermediate_size": 40},
    ),
    "qwen3": ("Qwen3ForCausalLM", COMMON | {"num_key_value_heads": 2, "head_dim": 32}),
    "qwen3 biases": ("Qwen3ForCausalLM", COMMON | {"num_key_value_heads": 2, "attention_bias": True}),
    "qwen3 moe": ("Qwen3MoeForCausalLM", QWEN_MOE | {"num_experts": 6, "head_dim": 32}),
    "qwen3 moe every 2": ("Qwen3MoeForCausalLM", QWEN_MOE | {"num_experts": 6, "decoder_sparse_step": 2}),
    "qwen3 moe dense first": ("Qwen3MoeForCausalLM", QWEN_MOE | {"num_experts": 6, "mlp_only_layers": [0]}),
    "deepseek v2": ("DeepseekV2ForCausalLM", LATENT | {"q_lora_rank": 24}),
    "deepseek v2 lite": ("DeepseekV2ForCausalLM", LATENT | {"q_lora_rank": None}),
    "deepseek v3": ("DeepseekV3ForCausalLM", LATENT | {"q_lora_rank": 24, "num_nextn_predict_layers": 0}),
    "gpt-neox": ("GPTNeoXForCausalLM", COMMON),
    "gpt-neox no bias": ("GPTNeoXForCausalLM", COMMON | {"attention_bias": False}),
    "gpt2": (
        "GPT2LMHeadModel",
        {"n_embd": 64, "n_head": 4, "n_layer": 3, "n_positions": 64, "vocab_size": 128},
    ),
    "gemma": ("GemmaForCausalLM", COMMON | {"num_key_value_heads": 1, "head_dim": 32}),
    "gemma2": (
        "Gemma2ForCausalLM",
        COMMON | {"num_key_value_heads": 2, "head_dim": 32, "sliding_window": 64},
    ),
    "mpt": ("MptForCausalLM", MPT),
}
DEFAULTS_OF_LLM_FOUNDRY = {"MPTForCausalLM"}
# Newer transformers state a default layer that they do not build; Qwen fills head_dim in when it is null.
NOT_COMPARED = {"num_nextn_predict_layers", "moe_layer_freq", "layer_types", "sliding_window"}


def config_class(architecture: str) -> Any:
    name = architecture.replace("ForCausalLM", "").replace("LMHeadModel", "").replace("MPT", "Mpt")
    return getattr(transformers, name + "Config")


def build(config: Any, device: str) -> Any:
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    with torch.device(device):
        return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def trained(module: Any) -> int:
    """Parameters of a module, and DeepSeek-V3's balancing biases, which transformers keeps as buffers."""
    buffers = [b for name, b in module.named_buffers() if name.endswith("e_score_correction_bias")]
    return sum(p.numel() for p in [*module.parameters(), *buffers])


def counted_flop(module: Any, sequence: int, device: str) -> int:
    """FLOP of a forward pass by PyTorch's counter, without the outer product that makes the rotary angles."""
    from torch.utils.flop_counter import FlopCounterMode

    ids = torch.zeros(1, sequence, dtype=torch.long, device=device)
    # Without an explicit mask transformers asks for values, which a meta tensor does not have.
    mask = torch.ones(1, 1, sequence, sequence, dtype=torch.bool, device=device).tril()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(input_ids=ids, attention_mask=mask, use_cache=False)
    by_module = counter.get_flop_counts()
    rotary = sum(sum(c.values()) for name, c in by_module.items() if name.endswith("rotary_emb"))
    return counter.get_total_flops() - rotary


@pytest.mark.parametrize("name", sorted(path.parent.name for path in CAPTURES.glob("*/config.json")))
def test_real_configs_count_the_same_parameters(name: str) -> None:
    raw = json.loads((CAPTURES / name / "config.json").read_text())
    module = build(config_class(raw["architectures"][0])(**raw), "meta")
    assert trained(module) == parameters(load_model(CAPTURES / name)).without_mtp


@pytest.mark.parametrize("case", TINY)
def test_tiny_configs_count_the_same_parameters_and_flop(case: str) -> None:
    architecture, keys = TINY[case]
    config = config_class(architecture)(**keys)
    model = model_from_config({"architectures": [architecture]} | keys, name=case)
    device = "meta" if model.experts is None else "cpu"
    module = build(config, device)
    assert trained(module) == parameters(model).without_mtp
    if architecture != "MptForCausalLM":  # its mask cannot be given in four dimensions
        assert counted_flop(module, 48, device) == forward_flop(model, 48, causal=False).total


@pytest.mark.parametrize("case", TINY)
def test_config_saved_by_transformers_reads_as_the_same_model(case: str) -> None:
    architecture, keys = TINY[case]
    saved = json.loads(config_class(architecture)(**keys).to_json_string()) | {
        "architectures": [architecture]
    }
    direct = model_from_config({"architectures": [architecture]} | keys, name=case)
    assert model_from_config(saved, name=case) == direct


@pytest.mark.parametrize("architecture", sorted(set(known_architectures()) - DEFAULTS_OF_LLM_FOUNDRY))
def test_defaults_are_those_of_transformers(architecture: str) -> None:
    stated = {
        key: value
        for key, value in _tables()["architectures"][architecture]["defaults"].items()
        if key not in NOT_COMPARED and value is not None
    }
    config = config_class(architecture)()
    assert stated == {key: getattr(config, key) for key in stated}


# Zoo models whose configurations are not read, built from the keys that transformers names.
ZOO: dict[str, tuple[str, dict[str, Any]]] = {
    "opt-350m": ("OPT", {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
                 | {"ffn_dim": 4096, "word_embed_proj_dim": 512, "do_layer_norm_before": False}),
    "opt-13b": ("OPT", {"hidden_size": 5120, "num_hidden_layers": 40, "num_attention_heads": 40}
                | {"ffn_dim": 20480, "word_embed_proj_dim": 5120}),
    "bloom-176b": ("Bloom", {"vocab_size": 250880, "hidden_size": 14336, "n_layer": 70, "n_head": 112}),
    "gpt-j-6b": ("GPTJ", {"vocab_size": 50400, "n_embd": 4096, "n_layer": 28, "n_head": 16}
                 | {"tie_word_embeddings": False}),
    "apertus-8b": ("Apertus", {"vocab_size": 131072, "hidden_size": 4096, "intermediate_size": 21504}
                   | {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8}),
    "apertus-70b": ("Apertus", {"vocab_size": 131072, "hidden_size": 8192, "intermediate_size": 43008}
                    | {"num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8}),
    "gpt-oss-20b": ("GptOss", {"num_hidden_layers": 24, "num_local_experts": 32}),
    "gpt-oss-120b": ("GptOss", {"num_hidden_layers": 36, "num_local_experts": 128}),
    "falcon-7b": ("Falcon", {"hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71}),
    "falcon-40b": ("Falcon", {"hidden_size": 8192, "num_hidden_layers": 60, "num_attention_heads": 128}
                   | {"num_kv_heads": 8, "new_decoder_architecture": True}),
    "nemotron-4-340b": ("Nemotron", {"vocab_size": 256000, "hidden_size": 18432, "intermediate_size": 73728}
                        | {"num_hidden_layers": 96, "num_attention_heads": 96, "num_key_value_heads": 8}),
}  # fmt: skip


@pytest.mark.parametrize("name", ZOO)
def test_zoo_models_count_the_parameters_of_transformers(name: str) -> None:
    kind, keys = ZOO[name]
    module = build(getattr(transformers, kind + "Config")(**keys), "meta")
    assert trained(module) == parameters(load_model(name)).without_mtp
