"""Models for proofs of equality: as small as they can be and still have every part."""

from dataclasses import replace

from towtank.simulator.models.records import Attention, Experts, Mlp, ModelSpec

SEQUENCE = 16

LLAMA = ModelSpec(
    name="llama",
    num_layers=4,
    hidden=32,
    vocab=61,  # no multiple of any degree
    sequence=SEQUENCE,
    attention=Attention(heads=4, kv_heads=2, head_dim=8, windows=(None, 6)),
    mlp=Mlp(hidden=48, gated=True),
    experts=None,
    norm="rmsnorm",
    norm_bias=False,
    positions="rope",
    max_positions=SEQUENCE,
    tied_embeddings=False,
)
"""Grouped keys, a window in every second layer, rotary positions, RMS norm, gated."""

GPT = replace(
    LLAMA,
    name="gpt",
    attention=Attention(heads=4, kv_heads=4, head_dim=8, qkv_bias=True, output_bias=True),
    mlp=Mlp(hidden=64, gated=False, bias=True),
    norm="layernorm",
    norm_bias=True,
    positions="learned",
    tied_embeddings=True,
)
"""Learned positions, layer norm, biases everywhere, one table for embedding and head."""

MOE = replace(
    LLAMA,
    name="moe",
    attention=Attention(heads=4, kv_heads=2, head_dim=8, qk_norm=True),
    experts=Experts(num_experts=4, top_k=2, hidden=16, gated=True, shared_hidden=16, first_dense_layers=1),
)
"""A dense layer before those with experts; norms of queries and keys; a shared expert."""

CAPACITY = replace(
    MOE,
    name="capacity",
    experts=Experts(4, 2, 16, gated=False, shared_hidden=16, shared_gate=True, capacity_factor=1.0),
)
"""Experts that take no more than their share of a sequence, without gates; a gate on the shared one."""

NEOX = replace(GPT, name="neox", positions="rope", parallel_block=True, tied_embeddings=False, head_bias=True)
"""Attention and feed-forward part side by side, with a norm each."""

GPTJ = replace(NEOX, name="gpt-j", norms_per_layer=1)
"""The same with one norm."""

GEMMA = replace(LLAMA, name="gemma", norms_per_layer=4, tied_embeddings=True, embedding_norm=True)
"""Norms before and after both parts, and after the embedding."""

MODELS = {model.name: model for model in (LLAMA, GPT, MOE, CAPACITY, NEOX, GPTJ, GEMMA)}
