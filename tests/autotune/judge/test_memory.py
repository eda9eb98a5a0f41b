"""Peak memory judged by the table is that of the simulator."""

import numpy as np
import pytest
from random_tables import PROBLEMS, plans, table_of, task_of

from towtank.autotune.judge.memory import peak_memory_bytes
from towtank.simulator.memory import stage_memories
from towtank.simulator.program import lower


@pytest.mark.parametrize("problem", PROBLEMS)
def test_peaks_are_those_of_the_simulator(problem):
    task = task_of(*PROBLEMS[problem])
    found = plans(task, 60, seed=1)
    expected = [
        max(stage.peak_bytes for stage in stage_memories(lower(task.model, plan, task.stack)))
        for plan in found
    ]
    peaks = peak_memory_bytes(task, table_of(found))
    np.testing.assert_allclose(peaks, expected, rtol=1e-9)
    assert len(set(expected)) > 20


def test_plans_that_differ_in_what_memory_does_not_see_are_judged_once(monkeypatch):
    task = task_of(*PROBLEMS["dense"])
    table = table_of(plans(task, 2))
    many = table.take(np.tile([0, 1], 1000))
    once = peak_memory_bytes(task, table)
    assert peak_memory_bytes(task, many).tolist() == np.tile(once, 1000).tolist()


def test_an_empty_table_has_no_peaks():
    task = task_of(*PROBLEMS["dense"])
    table = table_of(plans(task, 2))
    assert peak_memory_bytes(task, table.take(np.zeros(2, bool))).shape == (0,)
