"""Pareto fronts against all pairs, and the front of a space against all its plans."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towtank.autotune.constraints import Constraints
from towtank.autotune.study.exact_front import FrontPlan, exact_front, space_front
from towtank.autotune.study.measures import Prices, measures_named, values_of
from towtank.autotune.study.pareto import costs_of, front
from towtank.autotune.study.plan_clock import PlanClock
from towtank.autotune.task import TuningTask
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Plan
from towtank.simulator.stacks.load import load_stack

POINTS = st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=40)


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def small_task(limits: Constraints) -> TuningTask:
    node, stack = load_machine("dgx-a100:nodes=1"), load_stack("megatron-core")
    return TuningTask(load_model("gpt3-1.3b"), node, stack, 8, 16, constraints=limits)


@settings(deadline=None)
@given(POINTS)
def test_the_front_is_what_nothing_dominates(points: list[tuple[int, ...]]) -> None:
    rows = front(np.array(points, float))
    expected = [
        row for row, point in enumerate(points) if not any(dominates(other, point) for other in points)
    ]
    assert sorted(rows.tolist()) == expected


def test_more_is_better_where_it_is_to_be_maximised() -> None:
    measures = measures_named(["step_time", "headroom"])
    assert front(costs_of([(1.0, 5.0), (2.0, 9.0), (2.0, 4.0)], measures)).tolist() == [0, 1]


@settings(deadline=None)
@given(POINTS, st.data())
def test_bounds_change_nothing_about_the_front(points: list[tuple[int, ...]], data: st.DataObject) -> None:
    measures = measures_named(["step_time", "energy", "cost"])
    slack = data.draw(st.lists(st.integers(0, 3), min_size=len(points), max_size=len(points)))
    optimistic = np.array(points, float) - np.array(slack, float)[:, None]

    def simulate(row: int) -> FrontPlan:
        return FrontPlan(Plan(micro_batch=row + 1), tuple(map(float, points[row])), 0.0, 0.0)

    plans, simulated, left = exact_front(optimistic, measures, simulate)
    whole = front(np.array(points, float))
    # of plans with the same figures one may stand for all
    expected = {tuple(map(float, points[row])) for row in whole}
    assert {plan.values for plan in plans} == expected
    assert len(plans) == len(expected)
    assert simulated <= len(points)
    assert left == 0


def test_a_front_that_is_given_up_says_how_much_is_open() -> None:
    measures = measures_named(["step_time", "energy"])
    points = [(float(place), 9.0 - place) for place in range(10)]

    def simulate(row: int) -> FrontPlan:
        return FrontPlan(Plan(), points[row], 0.0, 0.0)

    plans, simulated, left = exact_front(np.array(points), measures, simulate, going=lambda done: done < 4)
    assert (len(plans), simulated, left) == (4, 4, 6)


def test_ctrl_c_keeps_what_was_simulated() -> None:
    measures = measures_named(["step_time", "energy"])
    points = [(float(place), 9.0 - place) for place in range(10)]

    def simulate(row: int) -> FrontPlan:
        if row == 3:
            raise KeyboardInterrupt
        return FrontPlan(Plan(), points[row], 0.0, 0.0)

    plans, simulated, left = exact_front(np.array(points), measures, simulate)
    assert (len(plans), simulated, left) == (3, 3, 7)


@pytest.mark.parametrize("names", [("throughput", "headroom"), ("headroom", "energy")])
def test_the_front_of_a_space_is_that_of_all_its_plans(names: tuple[str, ...]) -> None:
    from towtank.autotune.judge.memory import peak_memory_bytes
    from towtank.autotune.space.enumerate import legal_plans

    limits = Constraints(
        most={"pipeline": 1 if "energy" in names else 2},
        fixed={"tensor_y": (1,), "context": (1,), "micro_batch": (1,), "recompute": ("none",)},
    )
    task = small_task(limits)
    measures = measures_named(names)
    found = space_front(task, measures)
    table = legal_plans(task)
    capacity = task.machine.device.memory_capacity_bytes
    assert capacity is not None
    rows = np.flatnonzero(peak_memory_bytes(task, table) <= capacity)
    clock = PlanClock(task)
    everything = [
        values_of(measures, clock.simulate(table.plan(int(row)), "energy" in names), task.machine, Prices())
        for row in rows
    ]
    expected = {everything[int(row)] for row in front(costs_of(everything, measures))}
    assert {plan.values for plan in found.plans} == expected
    assert len(found.plans) == len(expected)
    counts = found.counts
    assert found.exact
    assert counts.legal == table.num_rows > 20
    assert counts.do_not_fit + counts.pruned + counts.simulated == counts.legal
    assert counts.simulated <= len(rows) - 20 * (names[0] == "throughput")


def test_devices_are_a_measure_of_several_numbers_of_them() -> None:
    limits = Constraints(fixed={"pipeline": (1,), "context": (1,), "tensor_y": (1,), "micro_batch": (1,)})
    task = small_task(limits)
    found = space_front(task, measures_named(["throughput", "devices"]), devices=(2, 4, 8))
    assert sorted({plan.plan.num_devices for plan in found.plans}) == [2, 4, 8]
    assert [plan.values[1] for plan in found.plans] == pytest.approx([8.0, 4.0, 2.0])
