"""Models that torchtitan ships, found by shape, and dense ones like Llama of any shape, which its parts build."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from towtank.hardware_profiles.files import StrictLoader
from towtank.simulator.models.records import Attention, Mlp, ModelSpec

_FILE = Path(__file__).parent / "torchtitan.yaml"


@dataclass(frozen=True, slots=True)
class Shipped:
    """A model of torchtitan's registry."""

    module: str
    flavor: str
    config: str
    """Configuration function of the same module that the recipe starts from."""
    built: bool = False
    """Whether the recipe changes the shape of this flavor into that of the model."""


def shipped(model: ModelSpec) -> tuple[Shipped | None, list[str]]:
    """The model of torchtitan with this shape, or None and why there is none."""
    for entry in _entries():
        layers, hidden, heads, kv_heads, ffn, *rest = entry["shape"]
        dense = model.experts is None or model.experts.first_dense_layers > 0
        attention = model.attention
        mine = [
            model.num_layers,
            model.hidden,
            attention.heads,
            attention.kv_heads if isinstance(attention, Attention) else None,
            model.mlp.hidden if dense else None,
            model.vocab,
            model.tied_embeddings,
            model.experts.num_experts if model.experts else 0,
            model.experts.top_k if model.experts else 0,
        ]
        if mine == [layers, hidden, heads, kv_heads, ffn, *rest]:
            return Shipped(entry["module"], entry["flavor"], entry["config"]), []
    if _like_llama(model):
        return Shipped("llama3", "8B", "llama3_8b", built=True), []
    known = ", ".join(f"{entry['module']} {entry['flavor']}" for entry in _entries())
    return None, [
        f"{model.name}: torchtitan ships no model of this shape (it has {known}, and dense ones like Llama can be "
        "built from its parts); a new one is code in its registry"
    ]


def modules() -> set[str]:
    """Names of torchtitan's own modules of models."""
    return {entry["module"] for entry in _entries()}


def _like_llama(model: ModelSpec) -> bool:
    """Whether Llama's layer computes this model, whatever its sizes."""
    attention = model.attention
    return (
        isinstance(attention, Attention)
        and replace(attention, heads=1, kv_heads=1, head_dim=1) == Attention(1, 1, 1)
        and attention.head_dim * attention.heads == model.hidden
        and replace(model.mlp, hidden=1) == Mlp(1, gated=True)
        and model.experts is None
        and (model.norm, model.norm_bias, model.positions) == ("rmsnorm", False, "rope")
        and (model.parallel_block, model.norms_per_layer, model.final_norm) == (False, 2, True)
        and not (model.embedding_norm or model.embedding_projection or model.head_bias or model.mtp_layers)
    )


def built_lines(model: ModelSpec) -> list[str]:
    """Lines of the recipe that change `spec`, Llama's 8B, into a model of this shape."""
    attention = model.attention
    assert isinstance(attention, Attention)
    return [
        "    shape = spec.model",
        "    layers = llama3._build_llama3_layers(",
        f"        n_layers={model.num_layers},",
        f"        dim={model.hidden},",
        f"        n_heads={attention.heads},",
        f"        n_kv_heads={attention.kv_heads},",
        f"        hidden_dim={model.mlp.hidden},",
        f"        rope=replace(shape.layers[0].attention.rope, dim={attention.head_dim}),",
        '        attn_backend="flex",',
        "    )",
        "    spec.model = replace(",
        "        shape,",
        f"        dim={model.hidden},",
        f"        vocab_size={model.vocab},",
        f"        enable_weight_tying={model.tied_embeddings},",
        f"        tok_embeddings=replace(shape.tok_embeddings, num_embeddings={model.vocab}, "
        f"embedding_dim={model.hidden}),",
        f"        norm=replace(shape.norm, normalized_shape={model.hidden}),",
        f"        lm_head=replace(shape.lm_head, in_features={model.hidden}, out_features={model.vocab}),",
        "        layers=layers,",
        "    )",
        f"    cfg.loss.loss_fn.global_vocab_size = {model.vocab}",
    ]


@cache
def _entries() -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = yaml.load(_FILE.read_text(encoding="utf-8"), Loader=StrictLoader)
    return entries
