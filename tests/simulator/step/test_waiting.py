"""Waiting for the slowest device: order statistics by hand, the breakdown, and quantiles of the step."""

from dataclasses import replace
from math import pi, sqrt

import numpy as np
import pytest
from lowered import gpt, plan, stack_with

from towtank.hardware_profiles.errors import UnknownFigure
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.network.jitter import Jitter, sampled_maximum
from towtank.simulator.predict import predict
from towtank.simulator.quantiles import step_quantiles
from towtank.simulator.waiting import WAITING, compute_jitter, slowest, slowest_samples, with_waiting

MACHINE = replace(load_machine("perlmutter"), speed_spread=None, step_jitter=None)


def machine(spread: float | None, jitter: float | None = None):
    return replace(MACHINE, speed_spread=spread, step_jitter=jitter)


def test_slowest_of_two_and_of_none_known() -> None:
    # the mean of the larger of two standard normal numbers is 1 / sqrt(pi)
    assert slowest(machine(0.03), 2) == pytest.approx(1 + 0.03 / sqrt(pi), rel=1e-6)
    assert slowest(machine(0.03, 0.04), 2) == pytest.approx(1 + 0.05 / sqrt(pi), rel=1e-6)
    assert slowest(machine(0.03), 1) == 1.0
    assert slowest(machine(None), 4096) == 1.0
    assert compute_jitter(machine(None)) is None


def test_breakdown_of_an_average_device() -> None:
    parts = {"matmul": 1.1, "bubble": 2.2, "exposed all-gather data": 1.0, "waiting for the host": 0.5}
    found = with_waiting(parts, 1.1)
    assert found == pytest.approx(
        {
            "matmul": 1.0,
            "bubble": 2.0,
            "exposed all-gather data": 1.0,
            "waiting for the host": 0.5,
            WAITING: 0.3,
        }
    )
    assert with_waiting(parts, 1.0) == parts


def test_a_step_waits_as_long_as_its_compute_is_longer() -> None:
    # the slowest of one device is itself
    alone = [
        predict(gpt(), each, plan(), stack="axonn").step_time_s for each in (machine(None), machine(0.05))
    ]
    assert alone[0] == alone[1]
    the_plan = plan(data=16, micro_batches=4)
    stack = stack_with("megatron-core", fitted={"compute_slowdown": 0.0}, step_overhead_s=0.0)
    calm, spread = (predict(gpt(), each, the_plan, stack=stack) for each in (machine(None), machine(0.05)))
    factor = slowest(machine(0.05), 16)
    assert calm.step_time_s < spread.step_time_s <= factor * calm.step_time_s
    assert WAITING not in calm.breakdown_s
    assert sum(spread.breakdown_s.values()) == pytest.approx(spread.step_time_s, rel=1e-9)
    assert spread.breakdown_s["matmul"] == pytest.approx(calm.breakdown_s["matmul"], rel=1e-9)
    worked = sum(v for k, v in spread.breakdown_s.items() if not k.startswith(("exposed", "waiting")))
    assert spread.breakdown_s[WAITING] == pytest.approx((factor - 1) * worked)
    assert any(line.startswith(WAITING) for line in predict(gpt(), "frontier", the_plan).provenance)


def test_cost_grows_with_the_number_of_devices() -> None:
    factors = [slowest(load_machine("frontier"), count) for count in (8, 512, 8192, 32768)]
    assert factors == sorted(factors)
    # 0.015 and 0.0107 in squares; 3.04 and 4.15 standard deviations of 512 and 32,768 (tables of order statistics)
    spread = sqrt(0.015**2 + 0.0107**2)
    assert factors[1] == pytest.approx(1 + 3.04 * spread, abs=2e-4)
    assert factors[3] == pytest.approx(1 + 4.15 * spread, abs=4e-4)


def test_samples_are_those_of_the_slowest_of_all_devices() -> None:
    jitter = Jitter("normal", 0.02)
    drawn, error = sampled_maximum(jitter, 1000, 2000, seed=3)
    found = slowest_samples(jitter, 1000, 20000, seed=5)
    assert found.mean() == pytest.approx(drawn, abs=5 * error)
    assert found.mean() == pytest.approx(jitter.expected_maximum(1000), abs=5 * error)
    assert (slowest_samples(jitter, 1000, 10, seed=5) == slowest_samples(jitter, 1000, 10, seed=5)).all()


def test_quantiles_of_the_step() -> None:
    prediction = predict(gpt(), machine(0.05), plan(data=16, micro_batches=4), stack="axonn")
    low, middle, high = step_quantiles(prediction, seed=1)
    assert low < middle < high
    assert low < prediction.step_time_s < high
    assert step_quantiles(prediction, seed=1) == (low, middle, high)
    calm = predict(gpt(), machine(None), plan(data=16, micro_batches=4), stack="axonn")
    with pytest.raises(UnknownFigure, match=r"perlmutter: speed_spread is unknown"):
        step_quantiles(calm)


def test_variance_of_the_maximum_of_two() -> None:
    # Var max of two standard normal numbers: 1 - 1 / pi
    found = slowest_samples(Jitter("normal", 0.1), 2, 100_000)
    assert np.std(found) == pytest.approx(0.1 * sqrt(1 - 1 / pi), rel=0.01)


def test_a_spread_of_steps_alone_is_enough() -> None:
    prediction = predict(gpt(), machine(None, 0.02), plan(data=16, micro_batches=4), stack="axonn")
    assert prediction.breakdown_s[WAITING] > 0
    assert f"{WAITING}: spread as given" in prediction.provenance
