"""Searches of spaces that a budget is too short for: a first answer, honest counts, a gap that holds."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from towtank import load_machine, load_model, load_stack, predict
from towtank.autotune.constraints import Constraints
from towtank.autotune.judge.memory import peak_memory_bytes
from towtank.autotune.search import judging, narrowing, probing
from towtank.autotune.search.budget import Budget
from towtank.autotune.search.exact import tune
from towtank.autotune.search.pool import Crew
from towtank.autotune.search.probing import probed
from towtank.autotune.space.enumerate import legal_plans
from towtank.autotune.task import TuningTask


def task_of(model="tiny-llama", machine="dgx-h100:nodes=1", stack="any", **fixed):
    constraints = Constraints(fixed={"tensor_y": (1,), "rank_order": RANKS, **fixed})
    return TuningTask(
        load_model(model), load_machine(machine), load_stack(stack), 8, 16, constraints=constraints
    )


RANKS = (("tensor_y", "tensor_x", "context", "tensor_z", "data", "pipeline"),)
TASKS = {"dense": task_of(), "experts": task_of("tiny-moe", micro_batch=(1,), expert_tensor=(1,))}


@cache
def whole_answer(name):
    """The answer of a search without a budget."""
    return tune(TASKS[name], top=5, workers=1)


@pytest.fixture
def large(monkeypatch):
    """Any space is too large to be judged within a budget."""
    monkeypatch.setattr(judging, "_SMALL", 10)
    monkeypatch.setattr(judging, "_BLOCK", 300)
    monkeypatch.setattr(probing, "_DRAWN", 20)
    monkeypatch.setattr(probing, "_BOUNDED", 8)
    monkeypatch.setattr(probing, "_TIMED", 2)


def total(counts):
    return counts.do_not_fit + counts.pruned + counts.simulated + counts.open


@pytest.mark.parametrize("name", TASKS)
def test_a_budget_that_suffices_changes_no_plan(name, large):
    whole, found = whole_answer(name), tune(TASKS[name], top=5, budget_s=1e6, workers=1)
    assert found.proven and found.stopped is None and found.gap == 0
    assert [(each.plan, each.step_time_s, each.peak_memory_bytes) for each in found.plans] == [
        (each.plan, each.step_time_s, each.peak_memory_bytes) for each in whole.plans
    ]
    assert found.counts.legal == whole.counts.legal == total(found.counts) and found.counts.open == 0
    assert found.counts.do_not_fit == whole.counts.do_not_fit


@pytest.mark.parametrize("name", TASKS)
def test_plans_that_were_not_judged_are_counted_as_open(name, large, monkeypatch):
    task, best = TASKS[name], whole_answer(name)
    monkeypatch.setattr(Budget, "left", lambda self, needed_s=0.0: False)
    monkeypatch.setattr(Budget, "within", lambda self, share, at_least_s=0.0: at_least_s > 0)
    result = tune(task, top=3, budget_s=1.0, workers=1)
    counts = result.counts
    assert result.stopped == "budget" and result.listed and not result.proven
    assert counts.legal == best.counts.legal == total(counts)
    assert (
        counts.open == counts.legal - counts.simulated and counts.simulated > 0
    )  # no memory but of these is known
    first = result.plans[0]
    assert best.plans[0].step_time_s <= first.step_time_s <= best.plans[0].step_time_s * (1 + result.gap)
    full = predict(task.model, task.machine, first.plan, stack=task.stack)
    assert full.fits and (full.step_time_s, full.peak_memory_bytes) == (
        first.step_time_s,
        first.peak_memory_bytes,
    )


@pytest.mark.parametrize("name", TASKS)
def test_memory_is_judged_block_by_block_until_the_budget_is_gone(name, large, monkeypatch):
    task = TASKS[name]
    looks = iter([True, True] + [False] * 1000)
    monkeypatch.setattr(Budget, "left", lambda self, needed_s=0.0: next(looks))
    monkeypatch.setattr(Budget, "within", lambda self, share, at_least_s=0.0: at_least_s > 0)
    result = tune(task, top=3, budget_s=1.0, workers=1)
    memory = peak_memory_bytes(task, legal_plans(task))[:600]
    assert result.counts.do_not_fit == np.count_nonzero(memory > task.memory_limit_bytes())
    assert result.counts.legal == total(result.counts) and result.counts.open > 0 and not result.proven


def test_a_list_that_takes_too_long_leaves_the_plans_that_were_looked_at(large, monkeypatch):
    task, best = TASKS["dense"], whole_answer("dense")
    monkeypatch.setattr(Budget, "within", lambda self, share, at_least_s=0.0: False)
    result = tune(task, top=3, budget_s=1e6, workers=1)
    assert result.stopped == "budget" and not result.listed and not result.proven
    assert result.counts.legal == total(result.counts) < best.counts.legal
    assert best.plans[0].step_time_s <= result.plans[0].step_time_s
    assert result.plans[0].step_time_s <= best.plans[0].step_time_s * (1 + result.gap)


def test_probes_are_legal_plans_each_counted_once(large):
    task = TASKS["experts"]
    probes = probed(task, Crew(task, 1), 3, lambda number: True, lambda best_s: None)
    legal = legal_plans(task)
    table, memory, seconds = probes.merged()
    rows = [legal.row_of(table.plan(row)) for row in range(table.num_rows)]
    assert None not in rows and len(set(rows)) == table.num_rows > 20
    assert np.array_equal(memory, peak_memory_bytes(task, legal)[rows])
    timed = probes.timed()
    assert len(timed) == np.count_nonzero(~np.isnan(seconds)) and timed[0][2] == probes.best_s() == np.nanmin(
        seconds
    )


def test_an_interrupt_keeps_the_probes(large):
    task = TASKS["dense"]

    def stop(progress):
        if progress.stage == "probes" and progress.best_s is not None:
            raise KeyboardInterrupt

    result = tune(task, top=3, budget_s=1e6, workers=1, progress=stop)
    assert result.stopped == "interrupt" and result.plans and not result.proven
    assert result.counts.legal == total(result.counts)


def test_an_interrupt_among_the_coarse_bounds_keeps_the_probes_and_a_gap_that_holds(large, monkeypatch):
    task, best = TASKS["dense"], whole_answer("dense")
    monkeypatch.setattr(narrowing, "_FIRST_BATCH", 16)
    monkeypatch.setattr(narrowing, "_COARSE_BLOCK", 100)

    def stop(progress):
        if progress.stage == "compute" and progress.done == 200:
            raise KeyboardInterrupt

    result = tune(task, top=3, budget_s=1e6, workers=1, progress=stop)
    assert result.stopped == "interrupt" and result.plans and not result.proven
    assert result.counts.legal == total(result.counts) and result.counts.open > 0
    first = result.plans[0].step_time_s
    assert best.plans[0].step_time_s <= first <= best.plans[0].step_time_s * (1 + result.gap) < np.inf


def test_a_space_in_which_no_plan_fits_is_judged_whatever_the_budget(large, monkeypatch):
    task = TASKS["dense"]
    device = replace(task.machine.device, memory_capacity_bytes=2.0**20)
    task = replace(task, machine=replace(task.machine, device=device))
    result = tune(task, budget_s=1e-9, workers=1)
    assert not result.plans and result.counts.do_not_fit == result.counts.legal and result.listed
