"""What each Hugging Face architecture builds from its keys, as a mapping in our model format.

Read from the modules of transformers 5.23 (and llm-foundry for MPT); the tests that need the hf extra hold
the parameter counts of every architecture to the digit.
"""

from collections.abc import Callable
from typing import Any

from towtank.simulator.models.errors import ConfigError

Keys = dict[str, Any]


def _rotary(c: Keys, *, qkv_bias: bool, output_bias: bool = False, qk_norm: bool = False) -> Keys:
    """Shape shared by the descendants of Llama."""
    heads = c["num_attention_heads"]
    return {
        "num_layers": c["num_hidden_layers"],
        "hidden": c["hidden_size"],
        "vocab": c["vocab_size"],
        "sequence": c["max_position_embeddings"],
        "attention": {
            "heads": heads,
            "kv_heads": c.get("num_key_value_heads") or heads,
            "head_dim": c.get("head_dim") or _divided(c["hidden_size"], heads),
            "qkv_bias": qkv_bias,
            "output_bias": output_bias,
            "qk_norm": qk_norm,
            "windows": _windows(c),
        },
        "mlp": {"hidden": c["intermediate_size"], "gated": True},
        "norm": "rmsnorm",
        "positions": "rope",
        "tied_embeddings": c["tie_word_embeddings"],
    }


def _llama(c: Keys) -> Keys:
    shape = _rotary(c, qkv_bias=c["attention_bias"], output_bias=c["attention_bias"])
    shape["mlp"]["bias"] = c["mlp_bias"]
    return shape


def _mistral(c: Keys) -> Keys:
    return _rotary(c, qkv_bias=False)


def _mixtral(c: Keys) -> Keys:
    experts = {
        "num_experts": c["num_local_experts"],
        "top_k": c["num_experts_per_tok"],
        "hidden": c["intermediate_size"],
        "gated": True,
    }
    return _rotary(c, qkv_bias=False) | {"experts": experts}


def _qwen2(c: Keys) -> Keys:
    return _rotary(c, qkv_bias=True)


def _qwen2_moe(c: Keys) -> Keys:
    experts = _qwen_experts(c) | {"shared_hidden": c["shared_expert_intermediate_size"], "shared_gate": True}
    return _rotary(c | {"use_sliding_window": False}, qkv_bias=c["qkv_bias"]) | {"experts": experts}


def _qwen3(c: Keys) -> Keys:
    return _rotary(c, qkv_bias=c["attention_bias"], output_bias=c["attention_bias"], qk_norm=True)


def _qwen3_moe(c: Keys) -> Keys:
    return _qwen3(c) | {"experts": _qwen_experts(c)}


def _gemma(c: Keys) -> Keys:
    return _rotary(c, qkv_bias=c["attention_bias"], output_bias=c["attention_bias"])


def _gemma2(c: Keys) -> Keys:
    shape = _gemma(c) | {"norms_per_layer": 4}
    if c["layer_types"] is None:  # older configurations: every second layer slides, the first one included
        shape["attention"]["windows"] = [c["sliding_window"], None]
    return shape


def _deepseek_v2(c: Keys) -> Keys:
    shape = _rotary(c, qkv_bias=False)
    shape["attention"] = {
        "heads": c["num_attention_heads"],
        "q_rank": c["q_lora_rank"],
        "kv_rank": c["kv_lora_rank"],
        "nope_head_dim": c["qk_nope_head_dim"],
        "rope_head_dim": c["qk_rope_head_dim"],
        "value_head_dim": c["v_head_dim"],
    }
    first, every = c["first_k_dense_replace"], c["moe_layer_freq"]
    shape["experts"] = {
        "num_experts": c["n_routed_experts"],
        "top_k": c["num_experts_per_tok"],
        "hidden": c["moe_intermediate_size"],
        "gated": True,
        "shared_hidden": (c["n_shared_experts"] or 0) * c["moe_intermediate_size"],
        # Layer i has experts if i >= first and i is a multiple of every: the first such i counts as ours.
        "first_dense_layers": -(-first // every) * every,
        "every": every,
    }
    return shape


def _deepseek_v3(c: Keys) -> Keys:
    shape = _deepseek_v2(c)
    shape["experts"]["router_bias"] = True
    return shape | {"mtp_layers": c["num_nextn_predict_layers"] or 0}


def _biased(c: Keys, *, layers: str, hidden: str, heads: str, sequence: str, mlp: int, bias: bool) -> Keys:
    """Shape shared by the descendants of GPT-2; the texts name the keys."""
    return {
        "num_layers": c[layers],
        "hidden": c[hidden],
        "vocab": c["vocab_size"],
        "sequence": c[sequence],
        "attention": {
            "heads": c[heads],
            "head_dim": _divided(c[hidden], c[heads]),
            "qkv_bias": bias,
            "output_bias": bias,
        },
        "mlp": {"hidden": mlp, "gated": False, "bias": bias},
        "norm": "layernorm",
        "norm_bias": bias,
        "tied_embeddings": c["tie_word_embeddings"],
    }


def _gpt_neox(c: Keys) -> Keys:
    names = {"layers": "num_hidden_layers", "hidden": "hidden_size", "heads": "num_attention_heads"}
    shape = _biased(c, **names, sequence="max_position_embeddings", mlp=c["intermediate_size"], bias=True)
    shape["attention"] |= {"qkv_bias": c["attention_bias"], "output_bias": c["attention_bias"]}
    return shape | {"positions": "rope", "parallel_block": c["use_parallel_residual"]}


def _gpt2(c: Keys) -> Keys:
    mlp = c["n_inner"] or 4 * c["n_embd"]
    names = {"layers": "n_layer", "hidden": "n_embd", "heads": "n_head", "sequence": "n_positions"}
    shape = _biased(c, **names, mlp=mlp, bias=True)
    return shape | {"positions": "learned", "max_positions": c["n_positions"]}


def _mpt_port(c: Keys) -> Keys:
    names = {"layers": "n_layers", "hidden": "d_model", "heads": "n_heads", "sequence": "max_seq_len"}
    return _biased(c, **names, mlp=4 * c["d_model"], bias=False) | {"positions": "alibi"}


def _mpt_foundry(c: Keys) -> Keys:
    attn, ffn = c["attn_config"], c["ffn_config"]
    names = {"layers": "n_layers", "hidden": "d_model", "heads": "n_heads", "sequence": "max_seq_len"}
    mlp = ffn["ffn_hidden_size"] or _whole(c["expansion_ratio"] * c["d_model"])
    shape = _biased(c, **names, mlp=mlp, bias=not c["no_bias"])
    shape["attention"]["kv_heads"] = _mpt_kv_heads(attn, c["n_heads"])
    if attn["sliding_window_size"] != -1:
        shape["attention"]["windows"] = [attn["sliding_window_size"]]
    shape["mlp"]["gated"] = _one_of("ffn_config.ffn_type", ffn["ffn_type"], {"mptmlp": False, "mptglu": True})
    shape["norm"] = _one_of(
        "norm_type",
        str(c["norm_type"]).removeprefix("low_precision_"),
        {"layernorm": "layernorm", "rmsnorm": "rmsnorm"},
    )
    shape["norm_bias"] &= shape["norm"] == "layernorm"
    if (
        attn["alibi"] or attn["rope"]
    ):  # llm-foundry then switches the learned table off, whatever the key says
        return shape | {"positions": "alibi" if attn["alibi"] else "rope"}
    if not c["learned_pos_emb"]:
        raise ConfigError("learned_pos_emb, attn_config.alibi or attn_config.rope must be true, but none is")
    return shape | {"positions": "learned", "max_positions": c["max_seq_len"]}


def _mpt_kv_heads(attn: Keys, heads: int) -> int:
    kind = attn["attn_type"]
    if kind == "grouped_query_attention" and attn["kv_n_heads"] is None:
        raise ConfigError("attn_config.kv_n_heads must be stated for grouped_query_attention")
    kinds = {
        "multihead_attention": heads,
        "multiquery_attention": 1,
        "grouped_query_attention": attn["kv_n_heads"],
    }
    kv_heads: int = _one_of("attn_config.attn_type", kind, kinds)
    return kv_heads


def _qwen_experts(c: Keys) -> Keys:
    """Layer i has experts if i + 1 is a multiple of decoder_sparse_step and i is not in mlp_only_layers."""
    step, dense = c["decoder_sparse_step"], set(c["mlp_only_layers"] or ())
    layers = [i for i in range(c["num_hidden_layers"]) if (i + 1) % step == 0 and i not in dense]
    if not layers or layers != list(range(layers[0], c["num_hidden_layers"], step)):
        raise ConfigError(
            "the layers with experts must be regular after the first dense ones, but decoder_sparse_step "
            f"{step} and mlp_only_layers {sorted(dense)} of {c['num_hidden_layers']} layers leave {layers}"
        )
    return {
        "num_experts": c.get("num_local_experts") or c["num_experts"],
        "top_k": c["num_experts_per_tok"],
        "hidden": c["moe_intermediate_size"],
        "gated": True,
        "first_dense_layers": layers[0],
        "every": step,
    }


def _windows(c: Keys) -> list[int | None]:
    """Windows by layer: as `layer_types` says, else from max_window_layers on (Qwen), else alike."""
    window, layers = c.get("sliding_window"), c["num_hidden_layers"]
    kinds = c.get("layer_types")
    if window is None and "sliding_attention" not in (kinds or ()):
        return [None]
    if not c.get("use_sliding_window", True):  # the Qwen family then drops the window, layer_types or not
        return [None]
    if kinds is not None:
        if len(kinds) != layers:
            raise ConfigError(
                f"layer_types must have num_hidden_layers = {layers} entries, but it has {len(kinds)}"
            )
        slides = [
            _one_of("layer_types", k, {"full_attention": False, "sliding_attention": True}) for k in kinds
        ]
        if any(slides) and window is None:
            raise ConfigError("sliding_window must be stated for layer_types with sliding_attention")
        return _shortest([window if slide else None for slide in slides])
    full = min(c.get("max_window_layers", 0), layers)
    windows: list[int | None] = [*[None] * full, *[window] * (layers - full)]
    return _shortest(windows)


def _shortest(windows: list[int | None]) -> list[int | None]:
    """Shortest list that gives `windows` when repeated."""
    for period in range(1, len(windows)):
        if all(windows[i] == windows[i % period] for i in range(len(windows))):
            return windows[:period]
    return windows


def _one_of(key: str, value: Any, known: dict[str, Any]) -> Any:
    if value not in known:
        raise ConfigError(f"{key} must be one of {', '.join(known)}, but it is {value!r}: not modelled")
    return known[value]


def _divided(hidden: int, heads: int) -> int:
    if hidden % heads:
        raise ConfigError(
            f"the hidden size must be a multiple of the heads, but it is {hidden} for {heads} heads"
        )
    return hidden // heads


def _whole(value: float) -> int:
    if value != int(value):
        raise ConfigError(f"expansion_ratio x d_model must be a whole number, but it is {value}")
    return int(value)


SHAPES: dict[str, Callable[[Keys], Keys]] = {
    "DeepseekV2ForCausalLM": _deepseek_v2,
    "DeepseekV3ForCausalLM": _deepseek_v3,
    "GPT2LMHeadModel": _gpt2,
    "GPTNeoXForCausalLM": _gpt_neox,
    "Gemma2ForCausalLM": _gemma2,
    "GemmaForCausalLM": _gemma,
    "LlamaForCausalLM": _llama,
    "MPTForCausalLM": _mpt_foundry,
    "MistralForCausalLM": _mistral,
    "MixtralForCausalLM": _mixtral,
    "MptForCausalLM": _mpt_port,
    "Qwen2ForCausalLM": _qwen2,
    "Qwen2MoeForCausalLM": _qwen2_moe,
    "Qwen3ForCausalLM": _qwen3,
    "Qwen3MoeForCausalLM": _qwen3_moe,
}
