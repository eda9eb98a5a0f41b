"""From a row of a table of runs to what `predict` takes, with every assumption said."""

import dataclasses
from dataclasses import dataclass
from functools import lru_cache

from towtank.hardware_profiles.errors import ProfileError
from towtank.hardware_profiles.records import Machine
from towtank.simulator.errors import PlanError, StackError
from towtank.simulator.memory import stage_memories
from towtank.simulator.models.errors import ModelError
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.plan import Plan
from towtank.simulator.plan_rules import faults_of
from towtank.simulator.program import lower
from towtank.simulator.ranked_grids import simulate_ranked_grids
from towtank.simulator.schedules.slots import ScheduleError
from towtank.simulator.stacks.load import load_stack
from towtank.simulator.stacks.records import Stack
from towtank.validation.mapping.machines import machine_of
from towtank.validation.mapping.models import model_of
from towtank.validation.mapping.plans import plan_of, stack_name
from towtank.validation.mapping.rules import InexpressibleError
from towtank.validation.rows import Run

_ROOM = 2.0
"""A predicted peak below this times the capacity may well have run without recomputation. Published dense runs that
state none (NeMo's recommended configurations) are predicted at up to 1.8 times; those above 5 ran with it."""

_MOST_TASKS = 5_000_000
"""Passes of a pipeline step; the largest published ones have some ten thousand."""


@dataclass(frozen=True, slots=True)
class Expressed:
    """A row as `predict` takes it."""

    model: ModelSpec
    machine: Machine
    plan: Plan
    stack: Stack
    assumptions: tuple[str, ...]
    """What was filled in or taken for granted, one sentence each."""
    step_share: float = 1.0
    """Tokens of the row's step over those of the plan's: another than 1 where the row derives its step time from
    tokens/s and a sequence that was not the one that ran."""


@dataclass(frozen=True, slots=True)
class Inexpressible:
    """A row that cannot be predicted, and why."""

    reason: str


def express(run: Run) -> Expressed | Inexpressible:
    """Write a row as model, machine, plan and stack; a plan that breaks rules is not expressed. Never raises for a
    row's content."""
    try:
        return _express(run)
    except InexpressibleError as error:
        return Inexpressible(str(error))
    except PlanError as error:
        return Inexpressible("; ".join(error.faults))
    except (ProfileError, ModelError, StackError, ScheduleError) as error:
        return Inexpressible(" ".join(str(error).split()))


def _express(run: Run) -> Expressed:
    if run.faults:
        raise InexpressibleError("; ".join(run.faults))
    assumptions: list[str] = []
    stack = _stack(stack_name(run, assumptions), run.flash_attention)
    if (
        stack.name != stack_name(run, [])
        or stack.kernels.attention != load_stack(stack.name).kernels.attention
    ):
        assumptions.append(f"attention kernel {stack.kernels.attention}, as the row says")
    machine = machine_of(run, assumptions)
    model = model_of(run, assumptions)
    if stack.supports.tensor_z and not run.gx and run.tp is None:
        plan = _ranked(run, model, machine, stack, assumptions)
    else:
        plan = plan_of(run, model, stack, assumptions)
    faults = faults_of(model, machine, plan, stack)
    if faults:
        raise InexpressibleError("; ".join(faults))
    tasks = plan.pipeline * plan.virtual_stages * plan.num_micro_batches
    if tasks > _MOST_TASKS:
        raise InexpressibleError(
            f"a pipeline of {tasks:,} passes a step is beyond the {_MOST_TASKS:,} that are simulated"
        )
    if not run.recompute and plan.recompute == "none":
        plan = _recompute_that_fits(model, machine, plan, stack, assumptions)
    share = run.seq_len / plan.sequence if plan.sequence and run.seq_len else 1.0
    return Expressed(model, machine, plan, stack, tuple(assumptions), share)


@lru_cache(maxsize=128)
def _stack(name: str, flash_attention: bool | None) -> Stack:
    """The stack, with the attention kernel that the row states."""
    stack = load_stack(name)
    unfused = stack.kernels.attention == "unfused"
    if flash_attention is None or flash_attention != unfused:
        return stack
    kernels = dataclasses.replace(stack.kernels, attention="flash2" if flash_attention else "unfused")
    return dataclasses.replace(stack, kernels=kernels)


def _ranked(run: Run, model: ModelSpec, machine: Machine, stack: Stack, assumptions: list[str]) -> Plan:
    if run.gpus is None or run.global_batch_seqs is None:
        raise InexpressibleError("gpus or global_batch_seqs is blank, so that no grid can be ranked")
    best = simulate_ranked_grids(model, machine, stack, run.gpus, run.global_batch_seqs)[0]
    rank, plan = best.rank, best.prediction.plan
    assumptions.append(
        f"grid not printed: {plan.tensor_x} x {plan.tensor_y} x {plan.tensor_z} x {plan.data}, the fastest of the "
        f"hundred that AxoNN's model ranks first (rank {rank}), full recomputation, gathered weights of "
        f"{plan.cached_layers} layers cached"
    )
    return plan


def _recompute_that_fits(
    model: ModelSpec, machine: Machine, plan: Plan, stack: Stack, assumptions: list[str]
) -> Plan:
    """The least recomputation with which the plan fits: what was not printed cannot have been impossible."""
    capacity = machine.device.memory_capacity_bytes
    if capacity is None or peak_bytes(model, plan, stack) <= _ROOM * capacity:
        return plan
    for kind in ("selective", "full"):
        changed = dataclasses.replace(plan, recompute=kind)
        fits = (
            not faults_of(model, machine, changed, stack)
            and peak_bytes(model, changed, stack) <= _ROOM * capacity
        )
        if fits:
            assumptions.append(f"recompute blank and none does not fit into memory: {kind}")
            return changed
    return plan


def peak_bytes(model: ModelSpec, plan: Plan, stack: Stack) -> float:
    """Predicted peak memory of the fullest stage in bytes a device."""
    return max(stage.peak_bytes for stage in stage_memories(lower(model, plan, stack)))
