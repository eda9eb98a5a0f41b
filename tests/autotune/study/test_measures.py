"""Measures of a plan, by hand, and what they need of a machine's profile."""

from dataclasses import replace

import numpy as np
import pytest

from towtank.autotune.study.measures import (
    Prices,
    Simulated,
    busy_share,
    check_known,
    measures_named,
    optimistic_values,
    values_of,
)
from towtank.autotune.study.records import StudyError
from towtank.hardware_profiles.errors import UnknownFigure
from towtank.hardware_profiles.load import load_machine

SELENE = load_machine("selene")  # A100: 80 GiB or so, 400 W, 60 W idle, no price
STEP = Simulated(devices=8, tokens=1000, step_time_s=2.0, peak_memory_bytes=30e9, busy_share=0.75)


def test_figures_by_hand() -> None:
    names = ("step_time", "throughput", "headroom", "energy", "cost", "devices")
    values = values_of(measures_named(names), STEP, SELENE, Prices(per_device_hour_usd=1.8))
    capacity = SELENE.device.memory_capacity_bytes
    assert capacity is not None
    power = 60 + (400 - 60) * 0.75  # 315 W
    assert values == pytest.approx(
        (2.0, 500.0, capacity - 30e9, 8 * 2 * power / 1000, 8 * 2 / 3600 * 1.8 / 1000 * 1e9, 8.0)
    )


def test_waits_are_not_work() -> None:
    parts = {
        "matmul": 5.0,
        "bubble": 2.0,
        "idle": 1.0,
        "exposed send pipeline": 1.5,
        "waiting for the slowest": 0.5,
    }
    assert busy_share(parts) == pytest.approx(0.5)


def test_a_figure_that_nobody_knows_is_asked_for_by_name() -> None:
    with pytest.raises(
        UnknownFigure, match=r"selene: price_per_device_hour is unknown.*--price-per-device-hour"
    ):
        check_known(measures_named(["cost"]), SELENE, Prices())
    check_known(measures_named(["cost"]), SELENE, Prices(1.0))
    machine = replace(SELENE, device=replace(SELENE.device, idle_w=None))
    with pytest.raises(UnknownFigure, match="idle is unknown and the measure energy needs it"):
        check_known(measures_named(["energy"]), machine, Prices())
    check_known(measures_named(["throughput", "headroom"]), machine, Prices())


def test_the_price_of_the_machine_holds_unless_the_user_gives_one() -> None:
    cloud = load_machine("aws-p5-h100:nodes=1")
    cost = measures_named(["cost"])
    assert cloud.price_per_device_hour_usd == pytest.approx(12.29)
    own, given = values_of(cost, STEP, cloud, Prices()), values_of(cost, STEP, cloud, Prices(24.58))
    assert given[0] == pytest.approx(2 * own[0])


@pytest.mark.parametrize("price", [float("nan"), float("inf"), -1.0])
def test_a_price_that_is_no_price_is_refused(price: float) -> None:
    with pytest.raises(StudyError, match="must be a number of 0 or more"):
        Prices(price)


def test_unknown_measures_are_answered_with_the_known_ones_all_at_once() -> None:
    with pytest.raises(StudyError) as raised:
        measures_named(["througput", "cost", "cost", "speed"])
    text = str(raised.value)
    assert "measure througput is unknown; did you mean 'throughput'?" in text
    assert "measure speed is unknown" in text
    assert "measure cost is given twice" in text
    assert "known: step_time, throughput, headroom, energy, cost, devices" in text


def test_no_plan_beats_its_optimistic_figures() -> None:
    measures = measures_named(["step_time", "throughput", "headroom", "energy", "cost", "devices"])
    bounds = np.array([1.5, 2.0])
    best = optimistic_values(
        measures,
        SELENE,
        Prices(1.0),
        devices=8,
        tokens=1000,
        bound_s=bounds,
        memory_bytes=np.array([30e9, 30e9]),
    )
    for row, bound in zip(best, bounds, strict=True):
        for share in (0.0, 0.3, 1.0):
            true = values_of(
                measures, replace(STEP, step_time_s=float(bound) * 1.1, busy_share=share), SELENE, Prices(1.0)
            )
            for measure, optimistic, value in zip(measures, row, true, strict=True):
                if measure.direction == "minimize":
                    assert optimistic <= value
                else:
                    assert optimistic >= value
