"""Plans as columns."""

import numpy as np
import pytest

from towtank.autotune.space.table import PlanTable, united
from towtank.simulator.plan import Plan


@pytest.fixture
def table() -> PlanTable:
    choices = {"tensor_x": (1, 2, 4), "data_shard": (None, 2), "recompute": ("none", "full")}
    codes = {"tensor_x": [0, 1, 2, 2], "data_shard": [0, 1, 1, 0], "recompute": [0, 0, 1, 1]}
    return PlanTable(
        Plan(global_batch=8), choices, {name: np.array(each, np.int16) for name, each in codes.items()}
    )


def test_a_row_is_a_plan(table: PlanTable) -> None:
    assert table.plan(1) == Plan(tensor_x=2, data_shard=2, recompute="none", global_batch=8)
    assert table.take(np.array([False, False, True, False])).plan(0).tensor_x == 4


def test_columns_hold_values(table: PlanTable) -> None:
    assert table.column("tensor_x").tolist() == [1, 2, 4, 4]
    assert table.column("data_shard").tolist() == [-1, 2, 2, -1]
    assert table.column("recompute").tolist() == ["none", "none", "full", "full"]
    assert table.column("global_batch").tolist() == [8, 8, 8, 8]


def test_a_plan_is_found_by_its_row(table: PlanTable) -> None:
    assert [table.row_of(table.plan(row)) for row in range(4)] == [0, 1, 2, 3]
    assert table.row_of(Plan(tensor_x=8, global_batch=8)) is None  # no such value
    assert table.row_of(Plan(tensor_x=1, data_shard=2, global_batch=8)) is None  # no such row
    assert table.row_of(Plan(tensor_x=1, global_batch=16)) is None  # another base


def test_tables_are_united_though_their_columns_differ(table: PlanTable) -> None:
    other = PlanTable(
        Plan(global_batch=8, tensor_x=2, pipeline=2),
        {"micro_batch": (1, 4), "recompute": ("full", "selective")},
        {"micro_batch": np.array([1, 0], np.int16), "recompute": np.array([0, 1], np.int16)},
    )
    both = united([table, other])
    assert [both.plan(row) for row in range(6)] == [
        *(table.plan(row) for row in range(4)),
        *(other.plan(row) for row in range(2)),
    ]
