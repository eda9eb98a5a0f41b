"""Why a stack cannot run a plan."""

from towtank.simulator.plan import Overlap, Plan
from towtank.simulator.stacks.records import Stack


def stack_faults(stack: Stack, plan: Plan) -> list[str]:
    """Every part of the plan that the software lacks, as sentences."""
    can = stack.supports
    wants = [
        (
            plan.tensor_y > 1 and not can.tensor_y,
            f"tensor_y = {plan.tensor_y}",
            "it splits no input features",
        ),
        (plan.tensor_z > 1 and not can.tensor_z, f"tensor_z = {plan.tensor_z}", _z_hint(stack)),
        (plan.expert > 1 and not can.expert, f"expert = {plan.expert}", "it has no expert parallelism"),
        (
            plan.expert_tensor > 1 and not can.expert_tensor,
            f"expert_tensor = {plan.expert_tensor}",
            "it does not split experts",
        ),
        (
            plan.gradient_bucket is not None and not can.gradient_buckets,
            f"gradient_bucket = {plan.gradient_bucket}",
            "the size of its buckets cannot be chosen, or is not known here; leave it out",
        ),
        (plan.pipeline > 1 and not can.pipeline, f"pipeline = {plan.pipeline}", "it has no pipeline"),
        (
            plan.virtual_stages > 1 and not can.virtual_stages,
            f"virtual_stages = {plan.virtual_stages}",
            "it has no interleaved schedule",
        ),
        (
            plan.sequence_parallel and plan.tensor_x > 1 and not can.sequence_parallel,
            "sequence_parallel",
            "it has no sequence parallelism",
        ),
    ]
    faults = [f"{stack.name} cannot run {what}: {why}" for wrong, what, why in wants if wrong]
    return [*faults, *_choice_faults(stack, plan), *_overlap_faults(stack, plan)]


def _z_hint(stack: Stack) -> str:
    hint = "it shards no weights over z"
    return f"{hint}; FSDP is data with zero_stage = 3 here" if 3 in stack.supports.zero_stages else hint


def _choice_faults(stack: Stack, plan: Plan) -> list[str]:
    can = stack.supports
    faults = []
    if plan.context > 1 and plan.context_kind not in can.context:
        has = " or ".join(can.context) or "no context parallelism"
        faults.append(
            f"{stack.name} cannot run context = {plan.context} by {plan.context_kind}: it has {has}"
        )
    if plan.zero_stage not in can.zero_stages:
        has = ", ".join(map(str, can.zero_stages))
        faults.append(f"{stack.name} cannot run zero_stage = {plan.zero_stage}: it has {has}")
    elif plan.pipeline > 1 and plan.zero_stage not in can.zero_with_pipeline:
        has = ", ".join(map(str, can.zero_with_pipeline))
        faults.append(
            f"{stack.name} cannot run zero_stage = {plan.zero_stage} with a pipeline: there it has {has}"
        )
    if plan.schedule_name not in can.schedules:
        faults.append(
            f"{stack.name} cannot run schedule {plan.schedule_name}: it has {', '.join(can.schedules)}"
        )
    if plan.recompute not in can.recompute:
        faults.append(
            f"{stack.name} cannot run recompute = {plan.recompute}: it has {', '.join(can.recompute)}"
        )
    if plan.precision not in can.precisions:
        faults.append(
            f"{stack.name} cannot run precision = {plan.precision}: it has {', '.join(can.precisions)}"
        )
    if not rank_order_supported(stack, plan):
        assert can.rank_orders != "all"
        has = " or ".join(f"[{', '.join(order)}]" for order in can.rank_orders)
        faults.append(
            f"{stack.name} cannot run rank_order = [{', '.join(plan.rank_order)}]: of dimensions above degree 1 it "
            f"has the order of {has}"
        )
    return faults


def rank_order_supported(stack: Stack, plan: Plan) -> bool:
    """Whether the software has an order that lays the plan's dimensions above degree 1 on the same ranks."""
    orders = stack.supports.rank_orders
    if orders == "all":
        return True
    wanted = [name for name in plan.rank_order if plan.degree(name) > 1]
    return any([name for name in order if plan.degree(name) > 1] == wanted for order in orders)


def _overlap_faults(stack: Stack, plan: Plan) -> list[str]:
    asked = [name for name in Overlap.__dataclass_fields__ if getattr(plan.overlap, name)]
    has = stack.supports.overlaps
    return [
        f"{stack.name} cannot run overlap.{name}: it overlaps {', '.join(has) or 'nothing'}"
        for name in asked
        if name not in has
    ]
