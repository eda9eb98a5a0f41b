"""Why a task has no plan: its own faults, those of its constraints, and which rules leave nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np

from towtank.autotune.space.dimensions import BY_NAME, LARGEST_COUNT, divisors, values
from towtank.autotune.space.draft import Draft
from towtank.autotune.space.steps import OF_DEVICES, sequence_of
from towtank.autotune.task import TuningTask
from towtank.hardware_profiles.nearest import did_you_mean


@dataclass(frozen=True, slots=True)
class Tally:
    """What the rules of one step leave."""

    names: tuple[str, ...]
    before: Draft
    """Rows before the step."""
    combinations: int
    """Of these rows with the values of the step."""
    left: int
    broken: Mapping[str, int]
    """Combinations that break each rule."""


def task_faults(task: TuningTask) -> list[str]:
    """Why no plan at all can be legal, whatever its degrees; empty if one may be."""
    counts = {
        "devices": task.devices, "global_batch": task.global_batch, "sequence": sequence_of(task)
    }  # fmt: skip
    faults = [f"{name} = {count}, but it must be 1 or more" for name, count in counts.items() if count < 1]
    faults += [
        f"{name} = {count}, but it must be {LARGEST_COUNT} or less"
        for name, count in counts.items()
        if count > LARGEST_COUNT
    ]
    if faults:
        return faults
    model, available = task.model, task.machine.num_devices
    if available is not None and task.devices > available:
        faults.append(
            f"{task.devices:,} devices were asked, but {task.machine.name} has {available:,}; "
            f"ask for fewer or choose a larger machine"
        )
    if model.embedding_projection is not None:
        faults.append(
            f"{model.name} projects its embedding to another width, which towtank cannot simulate yet"
        )
    if model.positions == "learned" and sequence_of(task) > model.max_positions:
        faults.append(
            f"sequence = {sequence_of(task)}, but {model.name} has a learned table of {model.max_positions} positions"
        )
    return faults + _constraint_faults(task)


def _constraint_faults(task: TuningTask) -> list[str]:
    """Constraints that leave a dimension no value that any plan of the task can have."""
    named = {*task.constraints.fixed, *task.constraints.least, *task.constraints.most, *task.constraints.free}
    faults = [
        f"unknown dimension {name}{did_you_mean(name, BY_NAME)}" for name in sorted(named - set(BY_NAME))
    ]
    for name in sorted(named & set(BY_NAME)):
        every, wanted = _possible(task, name), values(task, name)
        if not any(each in every for each in wanted):
            asked = " or ".join(_text(each) for each in wanted) or "a value between the limits"
            faults.append(
                f"{name} = {asked} is in no plan of {task.model.name} on {task.devices:,} devices under "
                f"{task.stack.name}; it may be {_some(every)}"
            )
    return faults


def _possible(task: TuningTask, name: str) -> tuple[Any, ...]:
    """Values of a dimension that keep the rules which concern it alone."""
    model, can = task.model, task.stack.supports
    whole = gcd(task.devices, model.hidden, model.mlp.hidden)
    if name == "tensor_x":
        return divisors(gcd(whole, model.attention.heads))
    if name == "tensor_y":
        return divisors(whole) if can.tensor_y and model.experts is None else (1,)
    if name == "tensor_z":
        return divisors(gcd(task.devices, task.global_batch)) if can.tensor_z else (1,)
    if name == "data":
        return divisors(gcd(task.devices, task.global_batch))
    if name == "pipeline":
        stages = divisors(task.devices) if can.pipeline else (1,)
        return tuple(each for each in stages if each <= model.num_layers)
    if name == "context":
        return divisors(gcd(task.devices, sequence_of(task))) if can.context else (1,)
    return BY_NAME[name].every(task)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _some(every: tuple[Any, ...]) -> str:
    """The values of a dimension, as many as can be read."""
    texts = [_text(each) for each in every if each is not None]
    if len(texts) <= 16:
        return ", ".join(texts)
    return f"{', '.join(texts[:8])}, ... {texts[-1]} ({len(texts)} values)"


def nothing_legal(task: TuningTask, tallies: Iterable[Tally]) -> str:
    """Which rules leave no plan, and how many combinations break each."""
    lines = [
        f"no plan of {task.model.name} on {task.devices:,} devices with global_batch = {task.global_batch:,} is "
        f"legal under {task.stack.name}; the rules, dimension by dimension, and how many combinations break each:"
    ]
    last = None
    for tally in tallies:
        last = tally
        if not tally.combinations:
            lines.append(f"    {', '.join(tally.names)}: the constraints leave no values that go together")
        broken = [
            f"{text} ({count:,})"
            for text, count in tally.broken.items()
            if count and text and (tally.left == 0 or not text.endswith(OF_DEVICES))
        ]
        if broken:
            head = f"    {', '.join(tally.names)}, {tally.left:,} of {tally.combinations:,} left: "
            lines.append(head + "; ".join(broken))
    return "\n".join([*lines, f"    {_hint(task, last)}"])


def _hint(task: TuningTask, last: Tally | None) -> str:
    """What to change."""
    general = "drop or widen a constraint, or choose a number of devices with more divisors"
    if last is None or last.names != ("data",):
        return general
    before = last.before
    rest = task.devices // before.product("tensor_x", "tensor_y", "pipeline", "context", "tensor_z")
    allowed = np.isin(rest, values(task, "data"))
    if not allowed.any():
        found = ", ".join(str(each) for each in np.unique(rest)[:12])
        return f"the other degrees leave data = {found}; {general}"
    step = int(np.min((rest * before.numbers("tensor_z"))[allowed]))
    near = max(step, round(task.global_batch / step) * step)
    return f"the nearest global batch for a grid that is left is {near:,}, a multiple of {step:,}"
