"""The space is what brute force over all choices finds: legal by the rules of plans, each by its canonical name."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import models

from towtank.autotune.constraints import Constraints
from towtank.autotune.errors import TuningError
from towtank.autotune.space.canonical import canonical
from towtank.autotune.space.dimensions import BY_NAME, DIMENSIONS, SWITCHES, divisors
from towtank.autotune.space.enumerate import legal_plans
from towtank.autotune.task import TuningTask
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.plan import DEFAULT_RANK_ORDER, Overlap, Plan
from towtank.simulator.plan_rules import faults_of
from towtank.simulator.stacks.load import list_stacks, load_stack

_FEW = settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
_MANY = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
_MOST_CHOICES = 6
"""Combinations of all dimensions but degrees and data_shard, for each of those."""


def _plans(task: TuningTask, values_of: dict[str, tuple[Any, ...]]) -> Iterator[Plan]:
    """Every combination of values on exactly the task's devices."""
    rest = [name for name in BY_NAME if name not in DEFAULT_RANK_ORDER]
    for degrees in product(*(values_of[name] for name in DEFAULT_RANK_ORDER)):
        if np.prod(degrees) != task.devices:
            continue
        shape = dict(zip(DEFAULT_RANK_ORDER, degrees, strict=True))
        for others in product(*(values_of[name] for name in rest)):
            chosen = shape | dict(zip(rest, others, strict=True))
            overlap = Overlap(**{switch: chosen.pop(f"overlap.{switch}") for switch in SWITCHES})
            yield Plan(**chosen, overlap=overlap, global_batch=task.global_batch)


@st.composite
def tasks(draw: st.DrawFn) -> tuple[TuningTask, dict[str, tuple[Any, ...]]]:
    """A small task whose dimensions are all free, but most of them only in some values.

    The values left always hold the first, which names plans to which a dimension makes no difference.
    """
    model = replace(draw(models()), num_layers=draw(st.sampled_from([1, 2, 3, 4])))
    machine = load_machine(draw(st.sampled_from(("perlmutter", "selene"))))
    stack = load_stack(draw(st.sampled_from(("any", *list_stacks()))))
    devices, batch = draw(st.sampled_from([1, 2, 3, 4, 6, 8])), draw(st.sampled_from([1, 2, 4, 6, 8]))
    free = TuningTask(model, machine, stack, devices, batch, constraints=Constraints(free=frozenset(BY_NAME)))
    every = {each.name: each.every(free) for each in DIMENSIONS}
    whole = (*DEFAULT_RANK_ORDER, "data_shard", "zero_stage")
    left = {name: found if name in whole else found[:1] for name, found in every.items()}
    left |= {name: divisors(devices) for name in DEFAULT_RANK_ORDER}
    left["zero_stage"] = (0, 1, 2, 3)
    left["data_shard"] = (None, *divisors(devices))
    count = 1
    for name in draw(st.permutations([name for name in BY_NAME if name not in whole])):
        more = min(len(every[name]), 4, _MOST_CHOICES // count)
        left[name] = every[name][:1] + every[name][1:more]
        count *= len(left[name])
    limits = Constraints(
        {name: each for name, each in left.items() if name not in whole}, free=frozenset(whole)
    )
    return replace(free, constraints=limits), left


def _both(task: TuningTask, left: dict[str, tuple[Any, ...]]) -> tuple[list[Plan], set[Plan]]:
    """Plans that the space lists, and those that brute force finds."""
    model, machine, stack = task.model, task.machine, task.stack
    legal = [plan for plan in _plans(task, left) if not faults_of(model, machine, plan, stack, task.devices)]
    expected = {canonical(model, machine, stack, plan) for plan in legal}
    try:
        table = legal_plans(task)
    except TuningError:
        return [], expected
    return [table.plan(row) for row in range(table.num_rows)], expected


@_FEW
@given(tasks())
def test_brute_force_finds_the_same_plans(given_task) -> None:
    found, expected = _both(*given_task)
    assert len(set(found)) == len(found)
    assert set(found) == expected


@pytest.mark.slow
@_MANY
@given(tasks())
def test_brute_force_finds_the_same_plans_of_many_tasks(given_task) -> None:
    found, expected = _both(*given_task)
    assert len(set(found)) == len(found)
    assert set(found) == expected
