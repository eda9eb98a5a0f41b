"""Exact search against brute force, alone and with workers, stopped and with nothing to find."""

import random
from dataclasses import replace

import numpy as np
import pytest

from towtank import load_machine, load_model, load_stack, predict
from towtank.autotune.constraints import Constraints
from towtank.autotune.judge.memory import peak_memory_bytes
from towtank.autotune.search import budget, exact, narrowing
from towtank.autotune.search import queue as queues
from towtank.autotune.search.exact import tune
from towtank.autotune.search.queue import Queue
from towtank.autotune.space.enumerate import legal_plans
from towtank.autotune.task import TuningTask

SMALL = [
    ("tiny-llama", "dgx-h100:nodes=1", "megatron-core", 8, 16, Constraints()),
    ("tiny-gpt", "selene", "any", 4, 8, Constraints(fixed={"tensor_y": (1,), "virtual_stages": (1,)})),
    ("tiny-moe", "dgx-h100:nodes=1", "megatron-core", 8, 16, Constraints(
        fixed={"expert": (1, 4), "expert_tensor": (1,), "micro_batch": (1,)}, most={"context": 1, "pipeline": 2})),
    ("tiny-mla", "perlmutter", "torchtitan", 8, 8, Constraints(least={"data": 2})),
    ("tiny-gpt", "frontier", "axonn", 8, 8, Constraints(fixed={"cached_layers": (0,)})),
    ("tiny-llama", "selene", "nanotron", 8, 8, Constraints()),
    ("tiny-gpt", "selene", "megatron-2021", 16, 16, Constraints(fixed={"precision": ("fp16",)})),
]  # fmt: skip


def small_task(case) -> TuningTask:
    model, machine, stack, devices, batch, constraints = case
    return TuningTask(load_model(model), load_machine(machine), load_stack(stack), devices, batch,
                      constraints=constraints)  # fmt: skip


def brute_force(task):
    """(step time, peak memory, row) of every legal plan that fits, in the order of the answer."""
    table = legal_plans(task)
    found = []
    for row in range(table.num_rows):
        step = predict(task.model, task.machine, table.plan(row), stack=task.stack)
        if step.peak_memory_bytes <= step.memory_capacity_bytes / (1 + task.memory_margin):
            found.append((step.step_time_s, step.peak_memory_bytes, row))
    return table, sorted(found)


def with_memory(task, gibibytes):
    """The task on devices of another size, so that some plans do not fit."""
    device = replace(task.machine.device, memory_capacity_bytes=gibibytes * 2**30)
    return replace(task, machine=replace(task.machine, device=device))


@pytest.mark.slow
@pytest.mark.parametrize("margin", [0.0, 0.0625])
@pytest.mark.parametrize("case", SMALL, ids=lambda case: f"{case[0]}-{case[2]}-{case[3]}")
def test_brute_force_finds_the_same_plans(case, margin):
    task = replace(small_task(case), memory_margin=margin)
    peaks = [peak for _, peak, _ in brute_force(task)[1]]
    task = with_memory(task, float(np.median(peaks)) * (1 + margin) / 2**30)
    table, expected = brute_force(task)
    result = tune(task, top=10, workers=1)
    assert result.proven and all(each.proven for each in result.plans)
    assert [(each.step_time_s, each.peak_memory_bytes, each.plan) for each in result.plans] == [
        (seconds, peak, table.plan(row)) for seconds, peak, row in expected[:10]
    ]
    counts = result.counts
    assert counts.legal == table.num_rows and counts.open == 0
    assert counts.do_not_fit == table.num_rows - len(expected) > 0
    assert counts.legal == counts.do_not_fit + counts.pruned + counts.simulated


def test_the_winner_of_a_sampled_space_is_the_fastest_that_fits():
    task = with_memory(small_task(SMALL[0]), 8)
    result = tune(task, top=3, workers=1)
    table = legal_plans(task)
    draw = random.Random(7)
    for row in draw.sample(range(table.num_rows), min(40, table.num_rows)):
        step = predict(task.model, task.machine, table.plan(row), stack=task.stack)
        assert not step.fits or step.step_time_s >= result.plans[0].step_time_s
    for each in result.plans:
        full = predict(task.model, task.machine, each.plan, stack=task.stack)
        assert full.fits and full.step_time_s == each.step_time_s
        assert full.peak_memory_bytes == each.peak_memory_bytes and each.bound_s <= each.step_time_s


def test_a_margin_is_memory_that_the_device_has_not():
    # with a quarter to spare, devices hold what devices of four fifths of their memory hold
    task = small_task(SMALL[0])
    fifth_gib = float(np.median(peak_memory_bytes(task, legal_plans(task)))) / 2**30 / 4
    spare = replace(with_memory(task, 5 * fifth_gib), memory_margin=0.25)
    answer, same = tune(spare, top=5, workers=1), tune(with_memory(task, 4 * fifth_gib), top=5, workers=1)
    assert answer.plans == same.plans and answer.counts == same.counts
    assert answer.memory_limit_bytes == pytest.approx(4 * fifth_gib * 2**30)
    assert 0 < answer.counts.do_not_fit < answer.counts.legal
    assert all(each.peak_memory_bytes <= answer.memory_limit_bytes for each in answer.plans)


def queue_of(bounds, top):
    class Table:
        num_rows = len(bounds)

    return Queue(Table(), np.sort(np.array(bounds, float)), np.zeros(len(bounds)), top)


def test_a_search_ends_where_bounds_exceed_the_last_plan_of_the_answer():
    # by hand: bounds 1 2 3 4 5, times 2.5 3.5 3.2: the second best is 3.2, so the plan of bound 4 cannot come in
    queue = queue_of([1, 2, 3, 4, 5], top=2)
    queue.note(np.array([0, 1, 2]), [2.5, 3.5, 3.2])
    assert queue.limit_s == 3.2 and queue.end == 3 and queue.best_s == 2.5
    assert queue.num_open() == 0 and queue.num_simulated() == 3
    assert queue.winners().tolist() == [0, 2]


def test_a_plan_whose_bound_equals_the_limit_is_simulated():
    queue = queue_of([1, 2, 2, 3], top=1)
    queue.note(np.array([0]), [2.0])
    assert queue.end == 3 and queue.num_open() == 2  # they can tie, and need less memory


def test_of_equal_plans_the_one_with_less_memory_wins_then_the_first():
    queue = queue_of([1, 1, 1], top=3)
    queue.memory_bytes[:] = [7.0, 5.0, 7.0]
    queue.note(np.arange(3), [2.0, 2.0, 2.0])
    assert queue.winners().tolist() == [1, 0, 2]


def test_rounds_do_not_depend_on_who_simulates():
    sizes = []
    queue = queue_of(np.arange(1000), top=1)
    while len(places := queue.round()):
        sizes.append(len(places))
        queue.note(places, [5000.0] * len(places))
    assert sum(sizes) == 1000 and sizes[:6] == [32, 32, 32, 48, 72, 108]


def test_a_budget_stops_with_what_is_done_and_says_the_gap(monkeypatch):
    task = small_task(SMALL[0])
    monkeypatch.setattr(queues, "FIRST_ROUND", 1)
    result = tune(task, top=5, budget_s=1e-9, workers=1)
    assert len(result.plans) == 1 and result.counts.simulated == 1 and result.counts.open > 0
    assert result.stopped == "budget"
    counts = result.counts
    assert counts.legal == counts.do_not_fit + counts.pruned + counts.simulated + counts.open
    best = tune(task, top=1, workers=1).plans[0].step_time_s
    assert best <= result.plans[0].step_time_s <= best * (1 + result.gap) * (1 + 1e-12)
    assert result.proven == (result.gap == 0)


def test_an_interrupt_keeps_what_is_done(monkeypatch):
    task = small_task(SMALL[0])
    monkeypatch.setattr(queues, "FIRST_ROUND", 1)

    def stop(progress):
        if progress.stage == "simulation" and progress.done == 3:
            raise KeyboardInterrupt

    result = tune(task, top=5, workers=1, progress=stop)
    assert result.stopped == "interrupt" and result.counts.simulated == 3 and len(result.plans) == 3
    assert not all(each.proven for each in result.plans)


def test_nothing_fits():
    task = with_memory(small_task(SMALL[0]), 0.01)
    result = tune(task, workers=1)
    assert not result.plans and not result.proven and result.gap == np.inf
    assert result.counts.do_not_fit == result.counts.legal > 0 == result.counts.simulated
    smallest = min(
        predict(task.model, task.machine, plan, stack=task.stack).peak_memory_bytes
        for plan in map(legal_plans(task).plan, range(0, result.counts.legal, 7))
    )
    assert result.closest_peak_bytes <= smallest


def test_finalists_are_run_by_the_reference_engine():
    task = small_task(SMALL[0])
    result = tune(task, top=4, workers=1, finalists=2)
    references = [each.reference_s for each in result.plans]
    assert references[2:] == [None, None]
    for each in result.plans[:2]:
        step = predict(task.model, task.machine, each.plan, stack=task.stack, engine="simpy")
        assert each.reference_s == step.step_time_s


@pytest.mark.slow
def test_workers_give_the_answer_of_one_process(monkeypatch):
    task = small_task(SMALL[0])
    alone = tune(task, top=10, workers=1, finalists=2)
    monkeypatch.setattr(exact, "_LONG_QUEUE", -1_000_000)
    monkeypatch.setattr(queues, "FIRST_ROUND", 8)
    monkeypatch.setattr(queues, "LARGEST_ROUND", 8)
    monkeypatch.setattr(exact, "FIRST_ROUND", 8)
    both = tune(task, top=10, workers=2, finalists=2)
    assert both.plans == alone.plans and both.proven
    assert both.counts.legal == alone.counts.legal


@pytest.mark.slow
def test_workers_bound_as_one_process_does(monkeypatch):
    task = small_task(SMALL[0])
    for name, value in (("_FIRST_BATCH", 16), ("_LARGEST_BATCH", 64), ("_PROBES", 3), ("_LONG_WAY", 0)):
        monkeypatch.setattr(narrowing, name, value)
    alone, both = (tune(task, top=5, workers=number) for number in (1, 2))
    assert both.plans == alone.plans and both.counts == alone.counts


@pytest.mark.parametrize("case", [SMALL[0], SMALL[2]], ids=["dense", "experts"])
def test_batches_change_neither_plans_nor_their_proof(case, monkeypatch):
    task = small_task(case)
    whole = tune(task, top=5, workers=1)
    monkeypatch.setattr(narrowing, "_FIRST_BATCH", 16)
    monkeypatch.setattr(narrowing, "_LARGEST_BATCH", 64)
    monkeypatch.setattr(narrowing, "_PROBES", 3)
    found = tune(task, top=5, workers=1)
    assert found.proven and all(each.proven for each in found.plans)
    assert found.plans == whole.plans
    counts = found.counts
    assert counts.legal == whole.counts.legal and counts.do_not_fit == whole.counts.do_not_fit
    assert counts.legal == counts.do_not_fit + counts.pruned + counts.simulated and counts.pruned > 0


def test_a_budget_holds_while_plans_are_judged(monkeypatch):
    task = small_task(SMALL[0])
    best = tune(task, top=1, workers=1).plans[0].step_time_s
    monkeypatch.setattr(narrowing, "_FIRST_BATCH", 16)
    monkeypatch.setattr(budget.Budget, "left", lambda self, needed_s=0.0: False)
    result = tune(task, top=5, budget_s=1.0, workers=1)
    counts = result.counts
    assert result.stopped == "budget" and counts.simulated == 1 and not result.proven
    assert counts.legal == counts.do_not_fit + counts.pruned + counts.simulated + counts.open
    assert best <= result.plans[0].step_time_s <= best * (1 + result.gap) * (1 + 1e-12)


def test_an_interrupt_while_plans_are_judged_keeps_what_is_done(monkeypatch):
    task = small_task(SMALL[0])
    monkeypatch.setattr(narrowing, "_FIRST_BATCH", 16)

    def stop(progress):
        if progress.stage == "memory and bounds" and progress.best_s is not None:
            raise KeyboardInterrupt

    result = tune(task, top=5, workers=1, progress=stop)
    assert result.stopped == "interrupt" and result.counts.simulated == len(result.plans) + 11 == 16
    assert not result.proven
