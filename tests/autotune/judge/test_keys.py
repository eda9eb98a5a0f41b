"""Keys: rows that agree share a group."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from towtank.autotune.judge.keys import Columns, compressed, grouped, masked
from towtank.autotune.space.table import PlanTable
from towtank.simulator.plan import Plan

WIDE = st.integers(0, 2**40)
NARROW = st.integers(0, 3)


@given(st.lists(st.tuples(NARROW, WIDE, NARROW), min_size=1, max_size=40))
def test_rows_share_a_group_exactly_if_they_agree(rows):
    columns = [compressed(np.array(column)) for column in zip(*rows, strict=True)]
    groups = grouped(columns)
    names = dict.fromkeys(rows)
    assert len(groups.first) == len(names)
    for row, group in zip(rows, groups.group, strict=True):
        assert rows[groups.first[group]] == row


def test_codes_keep_the_order_of_the_numbers():
    codes, count = compressed(np.array([30, 7, 30, 9]))
    assert (codes.tolist(), count) == ([2, 0, 2, 1], 3)


def test_what_does_not_matter_is_alike():
    codes, count = masked(np.array([5, 6, 5, 8]), np.array([True, False, True, False]))
    assert (codes.tolist(), count) == ([1, 0, 1, 0], 2)


def test_figures_are_worked_out_once_for_each_key():
    asked = []

    def figures(plan):
        asked.append(plan.tensor_x)
        return plan.tensor_x, 2 * plan.tensor_x

    table = PlanTable(Plan(), {"tensor_x": (1, 2)}, {"tensor_x": np.array([1, 0, 1], np.int16)})
    assert Columns(table).evaluated(("tensor_x", "data"), figures).tolist() == [[2, 4], [1, 2], [2, 4]]
    assert sorted(asked) == [1, 2]
