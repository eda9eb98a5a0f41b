"""Bounds judged by the table are those of the simulator, and never above the compiled engine."""

import numpy as np
import pytest
from random_tables import PROBLEMS, plans, table_of, task_of

from towtank.autotune.judge.bound import step_bound_s
from towtank.simulator.predict import bound, predict


@pytest.mark.parametrize("problem", PROBLEMS)
def test_bounds_are_those_of_single_plans_and_below_the_engine(problem):
    task = task_of(*PROBLEMS[problem])
    found = plans(task, 16, seed=5)
    bounds = step_bound_s(task, table_of(found))
    expected = [bound(task.model, task.machine, plan, task.stack) for plan in found]
    np.testing.assert_allclose(bounds, expected, rtol=1e-9)
    steps = [predict(task.model, task.machine, plan, stack=task.stack).step_time_s for plan in found]
    assert np.all(bounds <= np.array(steps) * (1 + 1e-12))
    assert np.median(steps / bounds) < 1.03


def test_an_empty_table_has_no_bounds():
    task = task_of(*PROBLEMS["dense"])
    table = table_of(plans(task, 2))
    assert step_bound_s(task, table.take(np.zeros(2, bool))).shape == (0,)
