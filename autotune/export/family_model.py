"""Shape of a model in Megatron-Core's options, by our keys.

Facts are those of megatron-core 0.19.2: arguments.py, transformer_config.py and gpt_layer_specs.py (which layers have
experts or windows).
"""

from towtank.autotune.export.records import Job, Values
from towtank.simulator.models.records import Attention, Experts, LatentAttention, ModelSpec

_NOT_THERE = (
    ("parallel_block", False, "attention and feed-forward part side by side"),
    ("norms_per_layer", 2, "{value} norms in a layer"),
    ("final_norm", True, "no norm before the head"),
    ("embedding_norm", False, "a norm after the embedding"),
    ("head_bias", False, "a bias of the head"),
)


def model_values(job: Job) -> tuple[Values, list[str], list[str]]:
    """Values of the model's options, faults where Megatron-Core has no such model, and notes."""
    model = job.model
    values: Values = {
        "num_layers": model.num_layers,
        "hidden": model.hidden,
        "ffn": model.mlp.hidden,
        "heads": model.attention.heads,
        "vocab": model.vocab,
        "vocab_multiple": job.stack.vocabulary_multiple,
        "tokenizer": "NullTokenizer",
        "normalization": "RMSNorm" if model.norm == "rmsnorm" else "LayerNorm",
        "positions": "rope" if model.positions == "rope" else "learned_absolute",
    }
    _switches(job, values)
    faults = _faults(model)
    if isinstance(model.attention, LatentAttention):
        values |= _latent(model.attention)
    else:
        values |= _attention(model, model.attention)
    if model.experts is not None:
        values |= _experts(job, model, model.experts)
    if model.mtp_layers:
        values["mtp_layers"] = model.mtp_layers
    return values, faults, _notes(job)


def _switches(job: Job, values: Values) -> None:
    model = job.model
    if model.mlp.gated:
        values["gated"] = True
    if not model.tied_embeddings:
        values["untied"] = True
    if not job.stack.kernels.dropout:
        values |= {"attention_dropout": 0.0, "hidden_dropout": 0.0}
    if not _biased(model):
        values["no_bias"] = True
        if isinstance(model.attention, Attention) and model.attention.qkv_bias:
            values["qkv_bias"] = True


def _biased(model: ModelSpec) -> bool:
    """Whether the linear layers have biases."""
    return isinstance(model.attention, Attention) and model.attention.output_bias


def _attention(model: ModelSpec, attention: Attention) -> Values:
    values: Values = {}
    if attention.kv_heads != attention.heads:
        values |= {"grouped_queries": True, "kv_heads": attention.kv_heads}
    if attention.head_dim * attention.heads != model.hidden:
        values["head_dim"] = attention.head_dim
    if attention.qk_norm:
        values["qk_norm"] = True
    if attention.sinks:
        values["softmax"] = "learnable"
    window = next((size for size in attention.windows if size is not None), None)
    if window is not None:
        values["window"] = f"{window},0"
        if None in attention.windows:
            values["window_skip"] = _window_pattern(attention.windows, model.num_layers)
    return values


def _window_pattern(windows: tuple[int | None, ...], layers: int) -> int | str:
    """Every which layer sees everything, or 1 for each layer with a window."""
    if windows[-1] is None and windows.count(None) == 1:
        return len(windows)
    flags = [int(windows[layer % len(windows)] is not None) for layer in range(layers)]
    return f"[{','.join(map(str, flags))}]"


def _latent(attention: LatentAttention) -> Values:
    values: Values = {
        "latent": True,
        "qk_norm": True,  # compressed queries, keys and values are normed
        "kv_rank": attention.kv_rank,
        "nope_head_dim": attention.nope_head_dim,
        "rope_head_dim": attention.rope_head_dim,
        "value_head_dim": attention.value_head_dim,
    }
    if attention.q_rank is not None:
        values["q_rank"] = attention.q_rank
    return values


def _experts(job: Job, model: ModelSpec, experts: Experts) -> Values:
    multicast = job.stack.communication.expert_multicast
    values: Values = {
        "num_experts": experts.num_experts,
        "top_k": experts.top_k,
        "expert_ffn": experts.hidden,
        "dispatcher": "flex" if multicast else "alltoall",
    }
    if job.stack.kernels.grouped_experts:
        values["grouped_experts"] = True
    if experts.first_dense_layers or experts.every > 1:
        values["expert_layers"] = _expert_pattern(experts, model.num_layers)
    if experts.shared_hidden:
        values["shared_ffn"] = experts.shared_hidden
    if experts.shared_gate:
        values["shared_gate"] = True
    if experts.router_bias and not experts.bias:
        values |= {"expert_bias": True, "router_score": "sigmoid"}
    if experts.capacity_factor is not None:
        values["capacity"] = experts.capacity_factor
    return values


def _expert_pattern(experts: Experts, layers: int) -> int | str:
    """Every which layer has experts, or 1 for each that has."""
    dense, every = experts.first_dense_layers, experts.every
    if not dense:
        return every
    if every == 1:
        return f"([0]*{dense}+[1]*{layers - dense})"
    flags = [int(layer >= dense and (layer - dense) % every == 0) for layer in range(layers)]
    return f"[{','.join(map(str, flags))}]"


def _faults(model: ModelSpec) -> list[str]:
    faults = [
        f"{model.name} has {what.format(value=getattr(model, field))}, which Megatron-Core's GPT model lacks"
        for field, usual, what in _NOT_THERE
        if getattr(model, field) != usual
    ]
    if model.positions == "alibi":
        faults.append(f"{model.name} has ALiBi positions, which Megatron-Core's GPT model lacks")
    if model.mlp.activation_parameters:
        faults.append(
            f"{model.name} learns its activation function, which Megatron-Core's GPT model does not"
        )
    if model.norm == "layernorm" and not model.norm_bias:
        faults.append(f"{model.name} has LayerNorms without bias; those of Megatron-Core have one")
    attention = model.attention
    biased = _biased(model)
    inside = model.experts.bias if model.experts is not None else model.mlp.bias
    mixed = isinstance(attention, Attention) and biased and not (attention.qkv_bias and inside)
    if mixed or (inside and not biased):
        faults.append(
            f"{model.name} has biases in some of its linear layers; Megatron-Core has them in all or, but for "
            "queries, keys and values, in none"
        )
    if isinstance(attention, Attention) and len({size for size in attention.windows if size}) > 1:
        faults.append(f"{model.name} has attention windows of several sizes; Megatron-Core has one")
    return faults


def _notes(job: Job) -> list[str]:
    model = job.model
    wrote = "SwiGLU is written, GeGLU costs the same" if model.mlp.gated else "GELU is taken"
    notes = [f"the shape of {model.name} does not name its activation function: {wrote}"]
    experts = model.experts
    if experts is not None and experts.imbalance == 1:
        notes.append("experts are predicted with equal load; a run's depends on its router")
    return notes
