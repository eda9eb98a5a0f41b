"""Constraints of a task that a plan breaks."""

from collections.abc import Sequence
from typing import Any

from towtank.autotune.reasons.neighbours import in_force
from towtank.autotune.task import TuningTask
from towtank.simulator.plan import Plan


def broken_constraints(plan: Plan, task: TuningTask) -> list[str]:
    """Constraints that a plan breaks, as sentences; of switches and defaults counts what is in force, or what is
    written where a constraint asks for None, the default."""
    limits = task.constraints
    value = in_force(plan, task.stack) | {"data_shard": plan.shard_degree}
    return [
        *(
            f"{name} = {value[name]}, but it is fixed to {_either(wanted)}"
            for name, wanted in limits.fixed.items()
            if value[name] not in wanted and _written(plan, name) not in wanted
        ),
        *(
            f"{name} = {value[name]}, but it must be {least} or more"
            for name, least in limits.least.items()
            if value[name] < least
        ),
        *(
            f"{name} = {value[name]}, but it must be {most} or less"
            for name, most in limits.most.items()
            if value[name] > most
        ),
    ]


def _written(plan: Plan, name: str) -> Any:
    field, _, switch = name.partition(".")
    value = getattr(plan, field)
    return getattr(value, switch) if switch else value


def _either(values: Sequence[Any]) -> str:
    return " or ".join(map(str, values))
