"""Plain records of a model: what is computed, without any idea of a machine or a plan."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Attention:
    """Multi-head attention with grouped keys and values (GQA); `kv_heads == heads` is the classic form."""

    heads: int
    kv_heads: int
    head_dim: int
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    """Norm of queries and keys per head (Qwen3)."""
    windows: tuple[int | None, ...] = (None,)
    """Attention window in tokens by layer, repeated cyclically; None sees the whole sequence."""
    sinks: bool = False
    """One learned sink per head that the softmax may attend to (gpt-oss)."""


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1)."""

    heads: int
    q_rank: int | None
    """Rank of the compressed query; None: queries are projected directly."""
    kv_rank: int
    nope_head_dim: int
    rope_head_dim: int
    value_head_dim: int


@dataclass(frozen=True, slots=True)
class Mlp:
    """Dense feed-forward part; `gated` multiplies two up-projections (SwiGLU, GeGLU)."""

    hidden: int
    gated: bool
    bias: bool = False
    activation_parameters: int = 0
    """Learned scalars of the activation of one layer (xIELU of Apertus has two)."""


@dataclass(frozen=True, slots=True)
class Experts:
    """Mixture of experts in place of the dense feed-forward part of some layers."""

    num_experts: int
    top_k: int
    hidden: int
    """Hidden size of one routed expert."""
    gated: bool
    shared_hidden: int = 0
    """Sum of the hidden sizes of the shared experts, which every token visits."""
    shared_gate: bool = False
    """A learned scalar gate on the shared experts (Qwen2-MoE): hidden parameters a layer."""
    first_dense_layers: int = 0
    every: int = 1
    """Layer i has experts if i >= first_dense_layers and (i - first_dense_layers) is a multiple of this."""
    router_bias: bool = False
    """A bias per expert in the router (gpt-oss) or for balancing (DeepSeek-V3); counted as a parameter."""
    bias: bool = False
    capacity_factor: float | None = None
    """None: dropless. Otherwise each expert handles at most factor x its fair share of tokens."""
    imbalance: float = 1.0
    """Load of the busiest rank over the mean load; 1 is forced balance."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A transformer language model."""

    name: str
    num_layers: int
    hidden: int
    vocab: int
    sequence: int
    """Default sequence length in tokens; a plan may set another."""
    attention: Attention | LatentAttention
    mlp: Mlp
    experts: Experts | None
    norm: Literal["layernorm", "rmsnorm"]
    norm_bias: bool
    positions: Literal["learned", "rope", "alibi"]
    max_positions: int
    """Rows of the learned position table; not used otherwise."""
    tied_embeddings: bool
    parallel_block: bool = False
    """Attention and feed-forward part read the same input and are added (GPT-J, GPT-NeoX, PaLM)."""
    norms_per_layer: int = 2
    """Norms of width `hidden` in one layer (Gemma 2 has four; a parallel block may share one)."""
    final_norm: bool = True
    """A norm before the head; OPT-350M, which norms after each residual, has none."""
    embedding_norm: bool = False
    """A norm right after the embedding (BLOOM)."""
    embedding_projection: int | None = None
    """Embedding width where it differs from `hidden` (OPT-350M)."""
    head_bias: bool = False
    mtp_layers: int = 0
    """Multi-token-prediction layers after the last one (DeepSeek-V3, arXiv 2412.19437, section 2.2)."""
    source: str = ""
    """Where the shape was read."""
