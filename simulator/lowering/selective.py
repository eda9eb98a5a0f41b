"""Selective checkpointing as PyTorch offers it and torchtitan sets it: a list of operations whose results are kept.

On the list are the attention core, reduce-scatters and every second matrix multiply; all else is run again
(pytorch/torchtitan, torchtitan/parallelisms/parallelize_llama.py, `_get_custom_policy`, counter `mm_count`).
"""

from dataclasses import replace

from towtank.simulator.lowering.attention import attention_linears
from towtank.simulator.lowering.feed_forward import dense_linears
from towtank.simulator.lowering.linear import Linear
from towtank.simulator.lowering.sizes import local_heads
from towtank.simulator.lowering.template import Template
from towtank.simulator.models.records import Attention


def multiplies(template: Template, *, experts: bool) -> list[Linear]:
    """Matrix multiplies of a layer's forward pass one by one; those of routed experts are not among them.

    PyTorch models multiply by query, key and value, and by the two halves of a gated up-projection, apart.
    """
    model = template.sizes.model
    before, after = attention_linears(template)
    attention = model.attention
    if isinstance(attention, Attention):
        heads, kv_heads = local_heads(attention, template.sizes.plan.tensor_x)
        before = [
            replace(before[0], name=f"attention.{name}", outputs=count * attention.head_dim)
            for name, count in (("query", heads), ("key", kv_heads), ("value", kv_heads))
        ]
    if experts:
        return [*before, after]
    up, down = dense_linears(template, model.mlp.hidden, gated=model.mlp.gated)
    if not model.mlp.gated:
        return [*before, after, up, down]
    half = replace(up, outputs=up.outputs // 2)
    return [*before, after, replace(half, name="mlp.gate"), half, down]


def kept_multiplies(template: Template, *, experts: bool) -> list[Linear]:
    """Multiplies whose outputs are kept: the first, the third and so on."""
    return multiplies(template, experts=experts)[0::2]


def repeated_multiplies(template: Template, *, experts: bool) -> list[Linear]:
    """Multiplies that are run again; nothing in a layer reads the output of its last one."""
    found = multiplies(template, experts=experts)
    last = None if experts else found[-1]
    return [linear for linear in found[1::2] if linear is not last]
