"""The core of attention where the plan splits sequences over the context group."""

import torch

from towtank.executor.distributed.mesh import Group, Mesh
from towtank.executor.layers.attention import Attend
from towtank.executor.layers.attention_core import Core, attention_core
from towtank.executor.layers.context.ring import Ring, ring_attention
from towtank.executor.layers.context.ulysses import split_heads, split_tokens
from towtank.executor.settings import RunSettings


def context_attention(settings: RunSettings, mesh: Mesh, layer: int, core: Core) -> Attend:
    """Attention of local queries to the keys of whole sequences, by the plan's `context_kind`.

    Args:
        settings: of the run; context is above 1.
        mesh: of this process.
        layer: of the model.
        core: of that layer.
    """
    name, group = f"layer.{layer}.attention", mesh.group("context")
    if settings.plan.context_kind == "all-to-all":
        return _by_heads(name, group, core)
    ring = Ring(name, group, settings.sizes.sequence, core.window, core.repeats)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return ring_attention(q, k, v, ring)

    return attend


def _by_heads(name: str, group: Group, core: Core) -> Attend:
    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q, k, v = split_heads(q, k, v, group, name)
        return split_tokens(attention_core(q, k, v, core), group, name)

    return attend
