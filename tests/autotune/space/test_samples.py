"""Parts of a space: drawn plans, the plans of one grid, an outline."""

import numpy as np
import pytest

from towtank import load_machine, load_model, load_stack
from towtank.autotune.space.enumerate import GRID, legal_plans, listed, on_grid_of, outline, sampled
from towtank.autotune.task import TuningTask


@pytest.fixture(scope="module")
def task():
    return TuningTask(load_model("tiny-moe"), load_machine("dgx-h100:nodes=1"), load_stack("any"), 8, 16)


@pytest.fixture(scope="module")
def legal(task):
    return legal_plans(task)


def plans_of(table):
    return [table.plan(row) for row in range(table.num_rows)]


def test_drawn_plans_are_legal_and_differ_by_seed(task, legal):
    (first, whole), (second, _) = (sampled(task, 50, seed) for seed in (1, 2))
    assert not whole and 0 < first.num_rows <= 50
    rows = [[legal.row_of(plan) for plan in plans_of(table)] for table in (first, second)]
    assert None not in rows[0] + rows[1] and set(rows[0]) != set(rows[1])


def test_a_draw_of_all_is_the_whole_space(task, legal):
    table, whole = sampled(task, legal.num_rows, 0)
    assert whole and plans_of(table) == plans_of(legal)


def test_the_plans_on_a_grid_are_those_with_its_degrees(task, legal):
    plan = legal.plan(legal.num_rows // 3)
    same = np.logical_and.reduce([legal.column(name) == getattr(plan, name) for name in GRID])
    assert plans_of(on_grid_of(task, plan)) == plans_of(legal.take(same))


def test_a_list_ends_once_it_may_not_go_on(task, legal):
    assert listed(task, lambda: False) is None
    assert plans_of(listed(task, lambda: True)) == plans_of(legal)


FIELDS = ("tensor_x", "tensor_y", "context", "tensor_z", "data", "expert", "sequence_parallel", "micro_batch")


def test_an_outline_has_all_that_decides_compute(task, legal):
    def combinations(table):
        return set(zip(*(table.column(name).tolist() for name in FIELDS), strict=True))

    found = outline(task)
    assert combinations(legal) <= combinations(found)
    assert set(found.column("pipeline").tolist()) == {1}
