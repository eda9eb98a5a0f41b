"""The best plan of every point of a study."""

import multiprocessing
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from stand_in import endless_at_8, interrupted_at_4, killed_at_8, one_plan

from towtank.autotune.scaling.plot import scale_plot
from towtank.autotune.scaling.series import scale_points
from towtank.autotune.scaling.study import DIED, Study, TunedPoint, efficiencies, tune_points
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Plan
from towtank.simulator.predict import predict
from towtank.simulator.stacks.load import load_stack

MODEL = load_model("gpt-5b")
STUDY = Study(load_machine("selene:nodes=2"), load_stack("megatron-core"))


def _tuned(*devices: int, study: Study = STUDY, **options) -> list[TunedPoint]:
    points = scale_points("strong", [MODEL], devices, 48)
    return tune_points(study, points, search=one_plan, jobs=1, **options)


def test_a_point_has_the_step_of_its_plan() -> None:
    told = []
    found = _tuned(8, 16, progress=lambda done, total: told.append((done, total)))
    plan = Plan(data=16, zero_stage=1, global_batch=48, recompute="full")
    expected = predict(MODEL, STUDY.machine, plan, stack=STUDY.stack)

    assert told == [(1, 2), (2, 2)]
    step = found[1].found
    assert step is not None
    assert step.plan == plan
    assert step.step_time_s == expected.step_time_s
    assert step.tokens_per_s == pytest.approx(48 * 2048 / step.step_time_s)
    assert step.mfu == expected.mfu
    assert step.proven


def test_points_without_a_plan_say_why_and_the_rest_goes_on() -> None:
    found = _tuned(6, 8, 10, 12, 32)

    assert [each.why_not for each in found] == [
        "no plan is legal for these devices and this batch",
        "",
        "none of 7 legal plans fits; the nearest lacks 3.0 GiB a device",
        "no luck with 12",
        "selene has 16 devices",
    ]
    assert efficiencies(found) == [None, 1.0, None, None, None]


def test_efficiency_is_the_rate_of_a_device_relative_to_the_first() -> None:
    found = _tuned(8, 16)
    one, other = (each.found for each in found)
    assert one is not None
    assert other is not None
    # strong scaling: ideal is half the time on twice the devices
    assert efficiencies(found) == [1.0, pytest.approx(one.step_time_s / 2 / other.step_time_s)]


def test_a_budget_that_ends_the_search_shows() -> None:
    step = _tuned(8, study=replace(STUDY, budget_s=1.0))[0].found
    assert step is not None
    assert not step.proven
    assert step.gap == 0.25


def test_an_interrupt_keeps_what_is_done() -> None:
    points = scale_points("strong", [MODEL], (2, 4, 8), 48)
    found = tune_points(STUDY, points, search=interrupted_at_4, jobs=1)
    assert [each.why_not for each in found] == ["", "interrupted", "interrupted"]


@pytest.mark.slow
def test_workers_find_the_same() -> None:
    points = scale_points("strong", [MODEL], (6, 8, 16), 48)
    assert tune_points(STUDY, points, search=one_plan, jobs=2) == tune_points(
        STUDY, points, search=one_plan, jobs=1
    )


@pytest.mark.slow
def test_a_worker_that_is_killed_takes_its_point_alone_along() -> None:
    points = scale_points("strong", [MODEL], (2, 4, 8, 16), 48)
    told: list[int] = []
    found = tune_points(
        STUDY, points, search=killed_at_8, jobs=2, progress=lambda done, total: told.append(done)
    )
    assert [each.why_not for each in found] == ["", "", DIED, ""]
    assert told == [1, 2, 3, 4]


@pytest.mark.slow
def test_an_interrupt_ends_the_workers_in_the_middle_of_their_searches() -> None:
    points = scale_points("strong", [MODEL], (2, 4, 8), 48)

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    found = tune_points(STUDY, points, search=endless_at_8, jobs=2, progress=stop)
    assert [each.why_not for each in found] == ["", "", "interrupted"]
    for process in multiprocessing.active_children():
        process.join(60)
    assert multiprocessing.active_children() == []


def test_a_long_reason_is_told_in_short() -> None:
    # 7 divides neither the batch nor the heads, and the model has 4 layers
    found = tune_points(STUDY, scale_points("strong", [load_model("tiny-llama")], (7,), 48), jobs=1)[0]
    assert found.found is None
    assert found.why_not.startswith("no plan of tiny-llama on 7 devices with global_batch = 48 is legal")
    assert len(found.why_not) < 300


def test_the_plot_has_a_mark_for_each_point_with_a_plan() -> None:
    found = _tuned(6, 8, 12, 16)
    root = ET.fromstring(scale_plot(found, "a < b"))
    circles = [each for each in root.iter() if each.tag.endswith("circle")]

    assert len(circles) == 2 * 2  # two plots
    labels = [each[0].text or "" for each in circles]
    assert labels[2] == "8 devices: 100.0%"
    step = found[1].found
    assert step is not None
    assert labels[0] == f"8 devices: {step.flop_per_s_per_device * 8 / 1e15:,.4g} PFLOP/s"
    assert ET.fromstring(scale_plot(_tuned(6), "none")) is not None
