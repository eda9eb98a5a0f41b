"""Why a plan lost against another one."""

from typing import Any

from towtank.autotune.reasons.constraints import broken_constraints
from towtank.autotune.reasons.difference import AS_FAST, slower_text, step_difference
from towtank.autotune.reasons.records import Reason, Verdict
from towtank.autotune.reasons.words import gibibytes
from towtank.autotune.task import TuningTask
from towtank.simulator.memory import StageMemory, stage_memories
from towtank.simulator.plan import Plan
from towtank.simulator.plan_rules import faults_of
from towtank.simulator.predict import Prediction, predict
from towtank.simulator.program import lower

_PARTS = 3
"""Parts of the memory that a sentence names."""


def explain(task: TuningTask, plan: Plan, winner: Prediction) -> Reason:
    """Why `plan` lost against the winner of a search: the first of illegal (or outside of the constraints), does
    not fit, slower that holds.

    A legal plan that fits is predicted once, with the engine of the winner.

    Raises:
        UnknownFigure: the machine's profile lacks a figure that the prediction needs.
    """
    faults = [
        *faults_of(task.model, task.machine, plan, task.stack, task.devices),
        *broken_constraints(plan, task),
    ]
    if faults:
        return Reason("illegal", f"illegal: {'; '.join(faults)}", rules=tuple(faults))
    limit = task.memory_limit_bytes() if task.machine.device.memory_capacity_bytes is not None else None
    fullest = max(stage_memories(lower(task.model, plan, task.stack)), key=lambda stage: stage.peak_bytes)
    if limit is not None and fullest.peak_bytes > limit:
        return missing_memory(fullest, limit, task.memory_margin)
    prediction = predict(
        task.model,
        task.machine,
        plan,
        stack=task.stack,
        engine=winner.engine,
        profile_dirs=task.profile_dirs,
    )
    return reason_between(prediction, winner)


def missing_memory(stage: StageMemory, limit_bytes: float, margin: float = 0.0) -> Reason:
    """By how much a stage exceeds what it may fill of its devices' memory, and what fills it.

    `margin` is the share of the peak that the limit leaves free.
    """
    missing = stage.peak_bytes - limit_bytes
    spare = f" with {100 * margin:.1f} % to spare" if margin else ""
    parts = dict(sorted(stage.parts.items(), key=lambda item: -item[1]))
    named = ", ".join(f"{name} {gibibytes(size)}" for name, size in list(parts.items())[:_PARTS])
    return Reason(
        "does not fit",
        f"does not fit{spare} by {gibibytes(missing)} on stage {stage.stage}: {named}",
        missing_bytes=missing,
        stage=stage.stage,
        parts_bytes=parts,
    )


def reason_between(prediction: Prediction, winner: Prediction) -> Reason:
    """Why one predicted step loses against another: memory first, then time."""
    if not prediction.fits:
        return missing_memory(prediction.peak_stage, prediction.memory_capacity_bytes)
    difference = step_difference(prediction.breakdown_s, winner.breakdown_s)
    step_s, winner_s = prediction.step_time_s, winner.step_time_s
    return Reason(
        _verdict(step_s / winner_s - 1),
        slower_text(prediction.plan, step_s, winner.plan, winner_s, difference),
        step_time_s=step_s,
        difference_s=difference,
    )


def _verdict(change: float) -> Verdict:
    if abs(change) < AS_FAST:
        return "as fast"
    return "slower" if change > 0 else "faster"


def reason_to_mapping(found: Reason) -> dict[str, Any]:
    """A reason as plain data; figures that do not apply are left out."""
    document: dict[str, Any] = {"verdict": found.verdict, "text": found.text}
    if found.rules:
        document["rules"] = list(found.rules)
    if found.stage is not None:
        document |= {
            "missing_bytes": found.missing_bytes,
            "stage": found.stage,
            "parts_bytes": dict(found.parts_bytes),
        }
    if found.step_time_s is not None:
        document |= {"step_time_s": found.step_time_s, "difference_s": dict(found.difference_s)}
    return document
