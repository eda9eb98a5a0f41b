"""Rules that a plan must keep, given a model, a machine and a stack. Each fault says the rule and what to do."""

from towtank.hardware_profiles.records import Machine
from towtank.simulator.errors import PlanError
from towtank.simulator.groups import expert_data_degree
from towtank.simulator.models.records import Attention, ModelSpec
from towtank.simulator.plan import DEFAULT_RANK_ORDER, Plan
from towtank.simulator.schedules import schedule_faults
from towtank.simulator.stacks.records import Stack
from towtank.simulator.stacks.rules import stack_faults

_COUNTS = (
    "tensor_x", "tensor_y", "tensor_z", "data", "pipeline", "virtual_stages", "context", "expert",
    "expert_tensor", "micro_batch", "global_batch", "recompute_every",
)  # fmt: skip
SMALLEST_BUCKET = 1_000_000
"""Weights of a gradient bucket at least: below, messages are nothing but latency, and millions of them."""


def check(model: ModelSpec, machine: Machine, plan: Plan, stack: Stack, devices: int | None = None) -> None:
    """Check a plan; `devices` is how many were asked for, if the user said so.

    Raises:
        PlanError: every rule that is broken.
    """
    faults = faults_of(model, machine, plan, stack, devices)
    if faults:
        raise PlanError(faults)


def faults_of(
    model: ModelSpec, machine: Machine | None, plan: Plan, stack: Stack, devices: int | None = None
) -> list[str]:
    """Every rule that the plan breaks, as sentences; empty for a legal plan.

    Without a machine its devices are not checked: a run finds out by itself what is there.
    """
    wrong = [
        f"{name} = {getattr(plan, name)}, but it must be 1 or more"
        for name in _COUNTS
        if getattr(plan, name) < 1
    ]
    if sorted(plan.rank_order) != sorted(DEFAULT_RANK_ORDER):
        wrong.append(f"rank_order must name each of {', '.join(DEFAULT_RANK_ORDER)} once")
    if plan.data_shard is not None and plan.data_shard < 1:
        wrong.append(f"data_shard = {plan.data_shard}, but it must be 1 or more")
    if wrong:
        return wrong  # the other rules divide by these
    return [
        *(_device_faults(machine, plan, devices) if machine is not None else ()),
        *_batch_faults(model, plan),
        *_tensor_faults(model, plan),
        *_sequence_faults(model, plan),
        *_data_faults(plan),
        *_bucket_faults(plan),
        *_cache_faults(plan, stack),
        *_pipeline_faults(model, plan, stack),
        *_expert_faults(model, plan),
        *(_precision_faults(machine, plan) if machine is not None else ()),
        *stack_faults(stack, plan),
    ]


def _device_faults(machine: Machine, plan: Plan, devices: int | None) -> list[str]:
    faults = []
    product = f"tensor degrees {plan.tensor_x} x {plan.tensor_y} x {plan.tensor_z} x data {plan.data}"
    product += f" x pipeline {plan.pipeline}" if plan.pipeline > 1 else ""
    product += f" x context {plan.context}" if plan.context > 1 else ""
    if devices is not None and devices < 1:
        faults.append(f"devices = {devices}, but it must be 1 or more")
    elif devices is not None and plan.num_devices != devices:
        others = plan.num_devices // plan.data
        fix = (
            f"set data = {devices // others}"
            if devices % others == 0
            else f"use a multiple of {others} devices"
        )
        faults.append(f"{product} = {plan.num_devices}, but {devices} devices were asked; {fix}")
    available = machine.num_devices
    if available is not None and plan.num_devices > available:
        faults.append(
            f"{product} = {plan.num_devices} devices, but {machine.name} has {available}; "
            f"lower a degree or choose a larger machine"
        )
    return faults


MOST_PASSES = 4_000_000
"""Passes of micro-batches through pipeline chunks in one step; a step of more would fill the memory of a node."""


def _batch_faults(model: ModelSpec, plan: Plan) -> list[str]:
    passes = plan.pipeline * plan.virtual_stages * plan.num_micro_batches
    if passes > MOST_PASSES:
        return [
            f"global_batch = {plan.global_batch} makes {plan.num_micro_batches} micro-batches on {plan.pipeline} x "
            f"{plan.virtual_stages} chunks = {passes} passes, more than {MOST_PASSES}; raise micro_batch or data"
        ]
    step = plan.micro_batch * plan.data * plan.tensor_z
    if plan.global_batch % step:
        near = max(step, round(plan.global_batch / step) * step)
        return [
            f"global_batch = {plan.global_batch} must be a multiple of micro_batch {plan.micro_batch} x data "
            f"{plan.data} x tensor_z {plan.tensor_z} = {step}; set global_batch = {near}"
        ]
    return []


def _divides(value: int, name: str, degree: int, degree_name: str) -> list[str]:
    if value % degree:
        return [
            f"{name} = {value} must be a multiple of {degree_name} = {degree}; choose a divisor of {value}"
        ]
    return []


def _tensor_faults(model: ModelSpec, plan: Plan) -> list[str]:
    if model.embedding_projection is not None:
        return [
            f"{model.name} projects its embedding to another width, which towtank counts but cannot simulate yet"
        ]
    attention = model.attention
    faults = _divides(attention.heads, "attention heads", plan.tensor_x, "tensor_x")
    if (
        isinstance(attention, Attention)
        and attention.kv_heads % plan.tensor_x
        and plan.tensor_x % attention.kv_heads
    ):
        faults.append(
            f"key-value heads = {attention.kv_heads} and tensor_x = {plan.tensor_x}: one must divide the other"
        )
    faults += _divides(model.hidden, "hidden size", plan.tensor_y, "tensor_y")
    faults += _divides(model.mlp.hidden, "feed-forward size", plan.tensor_x, "tensor_x")
    faults += _divides(model.hidden, "hidden size", plan.tensor_x, "tensor_x")
    if plan.tensor_y > 1:
        faults += _divides(model.mlp.hidden, "feed-forward size", plan.tensor_y, "tensor_y")
    if plan.sequence_parallel and plan.tensor_x == 1 and plan.tensor_y > 1:
        faults.append("sequence_parallel splits tokens over tensor_x, which is 1; set it false")
    return faults


def _sequence_faults(model: ModelSpec, plan: Plan) -> list[str]:
    sequence = plan.sequence if plan.sequence is not None else model.sequence
    if sequence < 1:
        return [f"sequence = {sequence}, but it must be 1 or more"]
    faults = []
    if model.positions == "learned" and sequence > model.max_positions:
        faults.append(
            f"sequence = {sequence}, but {model.name} has a learned table of {model.max_positions} positions"
        )
    parts = plan.context * (2 if plan.context > 1 and plan.context_kind == "ring" else 1)
    if sequence % parts:
        faults.append(
            f"sequence = {sequence} must be a multiple of {parts} for context = {plan.context} "
            f"({plan.context_kind}; a ring gives each device two halves for balance)"
        )
    if plan.sequence_parallel and (sequence // plan.context) % plan.tensor_x:
        faults.append(
            f"sequence_parallel: {sequence // plan.context} tokens must be a multiple of tensor_x = {plan.tensor_x}"
        )
    heads = model.attention.heads // plan.tensor_x
    if plan.context_kind == "all-to-all" and heads % plan.context:
        faults.append(
            f"context = {plan.context} by all-to-all splits the {heads} heads of a device and must divide them; "
            f"use context_kind = ring"
        )
    return faults


def _data_faults(plan: Plan) -> list[str]:
    faults = []
    if not 0 <= plan.zero_stage <= 3:
        faults.append(f"zero_stage = {plan.zero_stage}, but it must be 0, 1, 2 or 3")
    if plan.data_shard is not None and plan.data % plan.data_shard:
        faults.append(f"data_shard = {plan.data_shard} must divide data = {plan.data}")
    if plan.data_shard is not None and plan.data_shard > 1 and plan.zero_stage == 0:
        faults.append(
            f"data_shard = {plan.data_shard} shards states, but zero_stage = 0 shards nothing; set zero_stage"
        )
    if plan.recompute_every > 1 and plan.recompute != "full":
        faults.append(
            f"recompute_every = {plan.recompute_every} needs recompute = full, but it is {plan.recompute}"
        )
    return faults


def _bucket_faults(plan: Plan) -> list[str]:
    size = plan.gradient_bucket
    if size is None:
        return []
    if size < SMALLEST_BUCKET:
        return [f"gradient_bucket = {size:,} weights, but it must be {SMALLEST_BUCKET:,} or more"]
    if plan.zero_stage == 3:
        return [
            f"gradient_bucket = {size:,}: zero_stage = 3 sends the weights of a layer or a linear layer at "
            "once; leave gradient_bucket out, or set zero_stage = 2"
        ]
    return []


def _cache_faults(plan: Plan, stack: Stack) -> list[str]:
    if plan.cached_layers < 0:
        return [f"cached_layers = {plan.cached_layers}, but it must be 0 or more"]
    if plan.cached_layers and (plan.recompute != "full" or stack.communication.shard_unit != "linear"):
        return [
            f"cached_layers = {plan.cached_layers} needs recompute = full and a stack that gathers single linear "
            f"layers, but recompute is {plan.recompute} and {stack.name} gathers by "
            f"{stack.communication.shard_unit}"
        ]
    return []


def _pipeline_faults(model: ModelSpec, plan: Plan, stack: Stack) -> list[str]:
    chunks = plan.pipeline * plan.virtual_stages
    faults = []
    uneven = model.num_layers % chunks != 0 or len(set(plan.stage_layers or (0,))) > 1
    if uneven and not stack.supports.uneven_stages:
        faults.append(
            f"{stack.name} needs stages of equal size, but {model.num_layers} layers on {chunks} chunks are uneven; "
            f"choose a pipeline that divides {model.num_layers}"
        )
    if plan.stage_layers is not None:
        if len(plan.stage_layers) != chunks:
            faults.append(
                f"stage_layers has {len(plan.stage_layers)} numbers, but pipeline {plan.pipeline} x virtual_stages "
                f"{plan.virtual_stages} = {chunks} chunks"
            )
        elif sum(plan.stage_layers) != model.num_layers or min(plan.stage_layers) < 0:
            faults.append(
                f"stage_layers must add up to the {model.num_layers} layers of {model.name}, "
                f"but it adds up to {sum(plan.stage_layers)}"
            )
    elif model.num_layers < plan.pipeline:
        faults.append(f"{model.name} has {model.num_layers} layers, too few for pipeline = {plan.pipeline}")
    elif model.num_layers + 2 < chunks:
        faults.append(
            f"{model.name} has {model.num_layers} layers, too few for pipeline {plan.pipeline} x virtual_stages "
            f"{plan.virtual_stages} = {chunks} chunks"
        )
    step = plan.micro_batch * plan.data * plan.tensor_z
    if plan.global_batch % step == 0:
        faults += schedule_faults(
            plan.schedule_name, plan.pipeline, plan.virtual_stages, plan.num_micro_batches
        )
    return faults


def _expert_faults(model: ModelSpec, plan: Plan) -> list[str]:
    faults = []
    if model.experts is None:
        for name in ("expert", "expert_tensor"):
            if getattr(plan, name) > 1:
                faults.append(f"{name} = {getattr(plan, name)}, but {model.name} has no experts; set it to 1")
        return faults
    faults += _divides(model.experts.num_experts, "number of experts", plan.expert, "expert")
    faults += _divides(model.experts.hidden, "expert hidden size", plan.expert_tensor, "expert_tensor")
    per_stage = plan.num_devices // plan.pipeline
    if per_stage % (plan.expert * plan.expert_tensor) or expert_data_degree(plan) < 1:
        faults.append(
            f"expert {plan.expert} x expert_tensor {plan.expert_tensor} must divide the {per_stage} devices "
            f"of a stage"
        )
    if plan.pipeline > 1 and plan.expert * plan.expert_tensor > 1 and plan.rank_order[-1] != "pipeline":
        faults.append("expert parallelism tiles the ranks of a stage: put pipeline last in rank_order")
    if plan.tensor_y > 1:
        faults.append(
            f"tensor_y = {plan.tensor_y}, but {model.name} has experts, which need the whole hidden state of a "
            f"token; set tensor_y = 1"
        )
    if plan.expert > 1 and plan.tensor_x > 1 and not plan.sequence_parallel:
        faults.append(
            "expert > 1 with tensor_x > 1 needs sequence_parallel, so that each rank routes its own tokens"
        )
    if plan.overlap.expert and plan.expert > 1 and not plan.passes_meet:
        faults.append(
            f"overlap.expert = true runs the exchange between experts beside another micro-batch, but with "
            f"pipeline = {plan.pipeline} and virtual_stages = 1 no two passes meet on a stage; set virtual_stages "
            f"above 1, or leave overlap.expert out"
        )
    return faults


def _precision_faults(machine: Machine, plan: Plan) -> list[str]:
    if plan.precision not in machine.device.peak_flop_per_s:
        has = ", ".join(sorted(machine.device.peak_flop_per_s))
        return [f"precision = {plan.precision}, but {machine.device.name} computes in {has}"]
    return []
