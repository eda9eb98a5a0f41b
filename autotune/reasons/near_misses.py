"""Plans one step away from the best one that were out of the question: illegal, or too large for the memory."""

from dataclasses import dataclass

from towtank.autotune.reasons.constraints import broken_constraints
from towtank.autotune.reasons.difference import AS_FAST
from towtank.autotune.reasons.explain import missing_memory
from towtank.autotune.reasons.neighbours import Neighbour, neighbours
from towtank.autotune.reasons.records import Reason
from towtank.autotune.reasons.survey import fastest_too_large
from towtank.autotune.task import TuningTask
from towtank.simulator.memory import stage_memories
from towtank.simulator.plan import Plan
from towtank.simulator.plan_rules import faults_of
from towtank.simulator.predict import Prediction
from towtank.simulator.program import lower

_ILLEGAL = 2
"""Illegal neighbours that are named, each with another rule."""


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A neighbour of the best plan that could not be taken."""

    change: str
    """What differs from the best plan."""
    plan: Plan
    reason: Reason
    """`illegal` or `does not fit`."""
    step_time_s: float | None
    """Predicted step; None for an illegal plan."""


def near_misses(task: TuningTask, winner: Prediction) -> tuple[NearMiss, ...]:
    """The fastest neighbour that is faster than the best plan and does not fit, if there is one, and those that
    break one rule alone, one for each rule.

    Raises:
        UnknownFigure: the machine's profile lacks a figure that a prediction needs.
    """
    every = [each for each in neighbours(task.model, task.stack, winner.plan) if _asked(task, each)]
    broken = [
        (each, faults_of(task.model, task.machine, each.plan, task.stack, task.devices)) for each in every
    ]
    legal = [each for each, faults in broken if not faults]
    illegal = [(each, faults[0]) for each, faults in broken if len(faults) == 1]
    return (*_too_large(task, legal, winner), *_illegal(illegal))


def _asked(task: TuningTask, each: Neighbour) -> bool:
    return not broken_constraints(each.plan, task)


def _too_large(task: TuningTask, legal: list[Neighbour], winner: Prediction) -> list[NearMiss]:
    if task.machine.device.memory_capacity_bytes is None:
        return []
    limit = task.memory_limit_bytes()
    large = [each for each in legal if _peak_bytes(task, each) > limit]
    found = fastest_too_large(task, large, winner.step_time_s * (1 - AS_FAST))
    if found is None:
        return []
    step = found.prediction
    reason = missing_memory(step.peak_stage, limit, task.memory_margin)
    return [NearMiss(found.change, step.plan, reason, step.step_time_s)]


def _peak_bytes(task: TuningTask, each: Neighbour) -> float:
    return max(stage.peak_bytes for stage in stage_memories(lower(task.model, each.plan, task.stack)))


def _illegal(candidates: list[tuple[Neighbour, str]]) -> list[NearMiss]:
    """One for each field that a rule is about, degrees of parallelism first: these come first."""
    found: dict[str, NearMiss] = {}
    for each, fault in candidates:
        reason = Reason("illegal", fault, rules=(fault,))
        found.setdefault(_subject(fault), NearMiss(each.change, each.plan, reason, None))
    return list(found.values())[:_ILLEGAL]


def _subject(fault: str) -> str:
    """The rule without its figures: two plans that break it with other numbers break the same."""
    return "".join(letter for letter in fault if not letter.isdigit())
