"""Overlap switches of Megatron-LM as those of a plan."""

from dataclasses import replace

from towtank.autotune.export.family_overlap import gradient_switches, parameter_switch
from towtank.autotune.export.layout import Layout
from towtank.autotune.export.names import names_of
from towtank.autotune.reading.records import Options
from towtank.simulator.lowering.sizes import resolve_overlap
from towtank.simulator.plan import Overlap, Plan
from towtank.simulator.stacks.records import Stack

_NAMES = names_of("megatron")


def overlap(options: Options, plan: Plan, stack: Stack) -> Overlap:
    """Switches that differ from what the stack does by itself; the rest stays open."""
    found: dict[str, bool] = {}
    layout = Layout(plan.zero_stage, plan.shard_degree, plan.replicate_degree, ())
    gradients = options.on(_NAMES["overlap_gradients"])
    parameters = options.on(_NAMES["overlap_parameters"])
    if plan.data * plan.context > 1:
        found |= dict.fromkeys(gradient_switches(layout), gradients)
        name = parameter_switch(layout)
        if name is not None:
            found[name] = parameters
    tensor = options.on(_NAMES["overlap_tensor"])
    if plan.tensor_x > 1 and plan.sequence_parallel:
        found["tensor"] = tensor
    sequential = options.on(_NAMES["no_overlap_pipeline"])
    if plan.pipeline > 1 and plan.virtual_stages > 1:
        found["pipeline"] = not sequential
    expert = options.on(_NAMES["overlap_expert"])
    if plan.expert > 1:
        found["expert"] = expert
    usual = resolve_overlap(plan, stack)
    return replace(
        Overlap(), **{name: value for name, value in found.items() if value != getattr(usual, name)}
    )
