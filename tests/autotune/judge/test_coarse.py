"""Coarse bounds are below the tight ones, and the compute of a step worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from random_tables import PROBLEMS, plans, table_of, task_of

from towtank.autotune.judge.bound import step_bound_s
from towtank.autotune.judge.coarse import coarse_bound_s, compute_floor_s
from towtank.autotune.space.enumerate import legal_plans
from towtank.simulator.plan import Plan
from towtank.simulator.predict import predict


@pytest.mark.parametrize("problem", PROBLEMS)
def test_coarse_bounds_are_below_the_tight_ones_and_the_engine(problem):
    task = task_of(*PROBLEMS[problem])
    found = plans(task, 24, seed=11)
    coarse, tight = coarse_bound_s(task, table_of(found)), step_bound_s(task, table_of(found))
    assert np.all(coarse <= tight) and np.median(tight / coarse) < 8
    for plan, bound in list(zip(found, coarse, strict=True))[:4]:
        assert 0 < bound <= predict(task.model, task.machine, plan, stack=task.stack).step_time_s


@pytest.mark.parametrize(
    "job",
    [
        ("tiny-llama", "dgx-h100:nodes=1", "megatron-core", 8, 16),
        ("tiny-moe", "dgx-h100:nodes=1", "megatron-core", 4, 8),
        ("tiny-mla", "perlmutter", "torchtitan", 8, 8),
        ("tiny-gpt", "frontier", "axonn", 4, 8),
    ],
    ids=lambda job: job[0],
)
def test_no_plan_of_a_space_is_below_its_floor(job):
    task = task_of(*job)
    floor, coarse = compute_floor_s(task), coarse_bound_s(task, legal_plans(task))
    assert 0 < floor <= coarse.min() < 8 * floor  # no bubble is in it


def test_the_floor_of_one_device_is_the_compute_of_its_best_micro_batch():
    # no pipeline has a bubble, no plan recomputes: what is left of the coarse bound is the work itself
    task = task_of("tiny-gpt", "selene", "megatron-core", 1, 4)
    best = min(coarse_bound_s(task, table_of([Plan(micro_batch=b, global_batch=4) for b in (1, 2, 4)])))
    assert compute_floor_s(task) == pytest.approx(best, rel=1e-9)


def test_one_device_is_its_compute_alone():
    task = task_of("tiny-gpt", "selene", "megatron-core", 1, 4)
    plan = Plan(micro_batch=2, global_batch=4)
    other = replace(plan, micro_batch=1)
    once, twice = coarse_bound_s(task, table_of([plan, other]))
    step = predict(task.model, task.machine, plan, stack=task.stack)
    compute = sum(
        part for name, part in step.breakdown_s.items() if name in ("matmul", "attention", "elementwise")
    )
    assert once == pytest.approx(compute, rel=1e-6)
    assert twice > once  # smaller kernels, twice as many


def test_an_empty_table_has_no_bounds():
    task = task_of(*PROBLEMS["dense"])
    table = table_of(plans(task, 2))
    assert coarse_bound_s(task, table.take(np.zeros(2, bool))).shape == (0,)
