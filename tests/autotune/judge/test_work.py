"""Bounds by the work of layers with experts: below the tight ones, and not far."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_tables import PROBLEMS, plans, table_of, task_of

from towtank.autotune.judge.bound import step_bound_s, work_bound_s
from towtank.autotune.search.pool import Crew
from towtank.simulator.plan import Plan
from towtank.simulator.predict import predict

STACKS = [
    "any",
    "megatron-core",
    "megatron-core-flex",
    "torchtitan",
    "deepspeed",
    "axonn",
    "towtank-executor",
]
MODELS = ["mixtral-8x7b", "tiny-moe", "deepseek-v3", "gpt-oss-20b"]


@given(st.sampled_from(MODELS), st.sampled_from(STACKS), st.sampled_from(["dgx-h100:nodes=8", "frontier"]),
       st.sampled_from([8, 32, 48]), st.integers(0, 10_000))  # fmt: skip
@settings(max_examples=10, deadline=None)
def test_work_is_never_above_the_tight_bound(model, stack, machine, devices, seed):
    task = task_of(model, machine, stack, devices, 96, 2048)
    found = plans(task, 12, seed=seed, tries=40)
    if found:
        work, tight = work_bound_s(task, table_of(found)), step_bound_s(task, table_of(found))
        assert np.all(work > 0) and np.all(work <= tight * (1 + 1e-12))


def test_work_is_below_the_engine_and_near_the_tight_bound():
    task = task_of("mixtral-8x7b", "dgx-h100:nodes=8", "any", 32, 64)
    found = plans(task, 24, seed=3)
    work, tight = work_bound_s(task, table_of(found)), step_bound_s(task, table_of(found))
    assert np.median(tight / work) < 1.3
    for plan, bound in list(zip(found, work, strict=True))[:6]:
        assert bound <= predict(task.model, task.machine, plan, stack=task.stack).step_time_s


@pytest.mark.parametrize("problem", ["dense", "fsdp", "grid"])
def test_without_experts_it_is_the_tight_bound(problem):
    task = task_of(*PROBLEMS[problem])
    table = table_of(plans(task, 12, seed=2))
    assert np.array_equal(work_bound_s(task, table), step_bound_s(task, table))


def test_blocking_exchanges_hold_the_experts():
    # one layer after the other, nothing overlaps: the work is the whole pass
    task = task_of("tiny-moe", "dgx-h100:nodes=1", "megatron-core", 4, 8)
    table = table_of([Plan(data=4, expert=4, micro_batch=each, global_batch=8) for each in (1, 2)])
    np.testing.assert_allclose(work_bound_s(task, table), step_bound_s(task, table), rtol=1e-9)


def test_bounds_up_to_a_limit_are_tight_below_it():
    task = task_of("tiny-moe", "dgx-h100:nodes=1", "megatron-core", 8, 32)
    table = table_of(plans(task, 30, seed=1))
    tight, work = step_bound_s(task, table), work_bound_s(task, table)
    limit = float(np.median(tight))
    found = Crew(task, 1).bounds(table, limit)
    assert np.all((found <= limit) == (tight <= limit))
    np.testing.assert_allclose(found[work <= limit], tight[work <= limit], rtol=1e-9)
    assert np.array_equal(found[work > limit], work[work > limit])
