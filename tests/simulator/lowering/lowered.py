"""Helpers: small models, changed stacks, and what a lowered step sends and computes."""

import dataclasses
from collections import Counter, defaultdict
from typing import Any

from towtank.simulator.cost.collectives import bus_factor
from towtank.simulator.groups import group_size
from towtank.simulator.models.records import Attention, Experts, LatentAttention, Mlp, ModelSpec
from towtank.simulator.operations import Message, Operation, Phase
from towtank.simulator.plan import Plan
from towtank.simulator.program import Program, lower
from towtank.simulator.stacks.load import load_stack
from towtank.simulator.stacks.records import Stack

HIDDEN, SEQUENCE, HEADS, LAYERS = 256, 128, 8, 4


def gpt(**changes: Any) -> ModelSpec:
    """A GPT block: 4 h feed-forward part without gate, ungrouped attention, no biases counted."""
    shape: dict[str, Any] = {
        "name": "gpt-of-tests",
        "num_layers": LAYERS,
        "hidden": HIDDEN,
        "vocab": 1024,
        "sequence": SEQUENCE,
        "attention": Attention(HEADS, HEADS, HIDDEN // HEADS),
        "mlp": Mlp(4 * HIDDEN, gated=False),
        "experts": None,
        "norm": "layernorm",
        "norm_bias": False,
        "positions": "alibi",
        "max_positions": 0,
        "tied_embeddings": False,
    }
    return ModelSpec(**(shape | changes))


def moe(**changes: Any) -> ModelSpec:
    """Eight experts of which a token visits two, in every layer."""
    return gpt(experts=Experts(8, 2, 512, gated=True), **changes)


def mla(**changes: Any) -> ModelSpec:
    """Latent attention with a compressed query."""
    return gpt(attention=LatentAttention(HEADS, 64, 32, 32, 16, 32), **changes)


def stack_with(name: str, **sections: Any) -> Stack:
    """A shipped stack with some fields changed: `kernels={...}` changes fields of a section."""
    stack = load_stack(name)
    changed = {
        key: dataclasses.replace(getattr(stack, key), **value) if isinstance(value, dict) else value
        for key, value in sections.items()
    }
    return dataclasses.replace(stack, **changed)


def plan(**fields: Any) -> Plan:
    """A plan with one micro-batch in each step unless `micro_batches` says otherwise."""
    count = fields.pop("micro_batches", 1)
    draft = Plan(**fields)
    batch = draft.micro_batch * draft.data * draft.tensor_z * count
    return dataclasses.replace(draft, global_batch=batch)


def layer_operations(model: ModelSpec, the_plan: Plan, stack: Stack, *, layer: int = 1) -> list[Operation]:
    """Operations of both passes of one layer (not the first one), without those of the ends of the model."""
    program = lower(model, the_plan, stack)
    prefix = f"layer.{layer}."
    return [
        operation
        for blocks in (program.forward, program.backward)
        for stage in blocks
        for block in stage
        for name, operation in block.operations()
        if name.startswith(prefix)
    ]


def messages(operations: list[Operation], *phases: Phase) -> Counter[tuple[str, str, float]]:
    """(collective, group, bytes of the array) of every communication operation, with its multiplicity."""
    return Counter(
        (work.collective, work.group, work.bytes)
        for operation in operations
        if isinstance(work := operation.work, Message) and (not phases or operation.phase in phases)
    )


def sent_bytes(operations: list[Operation], the_plan: Plan) -> dict[str, float]:
    """Bytes that one device sends by group, by ring algorithms."""
    total: dict[str, float] = defaultdict(float)
    for operation in operations:
        if isinstance(work := operation.work, Message):
            size = group_size(the_plan, work.group)
            total[work.group] += bus_factor(work.collective, size) * work.bytes
    return dict(total)


def flop_by_phase(program: Program) -> dict[Phase, float]:
    """FLOP of all devices in one step."""
    the_plan = program.sizes.plan
    times = the_plan.num_micro_batches * the_plan.num_devices // the_plan.pipeline
    total = dict.fromkeys(Phase, 0.0)
    for blocks in (program.forward, program.backward):
        for stage in blocks:
            for block in stage:
                for _, operation in block.operations():
                    total[operation.phase] += times * operation.flop
    return total
