"""Models that torchtitan ships, found by shape."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from towtank.hardware_profiles.files import StrictLoader
from towtank.simulator.models.records import Attention, ModelSpec

_FILE = Path(__file__).parent / "torchtitan.yaml"


@dataclass(frozen=True, slots=True)
class Shipped:
    """A model of torchtitan's registry."""

    module: str
    flavor: str
    config: str
    """Configuration function of the same module that the recipe starts from."""


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
    known = ", ".join(f"{entry['module']} {entry['flavor']}" for entry in _entries())
    return None, [
        f"{model.name}: torchtitan ships no model of this shape (it has {known}); a new one is code in its registry"
    ]


@cache
def _entries() -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = yaml.load(_FILE.read_text(encoding="utf-8"), Loader=StrictLoader)
    return entries
