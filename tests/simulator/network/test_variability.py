"""Devices and interfaces that differ: maxima by hand, draws against expectations, and the step that waits."""

from dataclasses import replace
from math import exp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towtank import Plan, load_machine, predict
from towtank.simulator.network.jitter import Interference, Jitter
from towtank.simulator.network.surroundings import Surroundings
from towtank.simulator.network.variability import Variability, compute_mixture
from towtank.simulator.quantiles import step_quantiles
from towtank.simulator.waiting import slowest

CALM = replace(load_machine("dgx-h100:nodes=8"), speed_spread=None, step_jitter=None)
PLAN = Plan(tensor_x=8, data=8, global_batch=64)


def step(variability: Variability | None, plan: Plan = PLAN, engine: str = "compiled"):
    around = Surroundings(variability=variability)
    return predict("llama2-7b", CALM, plan, surroundings=around, engine=engine)


@pytest.mark.parametrize("ranks", [1, 2, 64, 32768])
def test_one_normal_is_that_of_order_statistics(ranks: int) -> None:
    found = compute_mixture(Variability(), 0.03, 0.04, 1.0).expected_maximum(ranks)
    assert found == pytest.approx(Jitter("normal", 0.05).expected_maximum(ranks), abs=5e-6)


def test_stragglers_by_hand() -> None:
    # one of 100 devices of which each straggles with probability 0.01 does so with 1 - 0.99^100 = 0.634
    assert slowest(CALM, 100, Variability(stragglers=0.01, straggler_slowdown=1.3)) == pytest.approx(
        1 + 0.3 * (1 - 0.99**100)
    )


def test_interruptions_are_those_of_interference() -> None:
    noisy = Variability(interruptions_per_s=0.5, interruption_s=0.01)
    # on one device: half an interruption a second of a hundredth of a second
    assert slowest(CALM, 1, noisy, 4.0) == pytest.approx(1.005)
    # on two devices in 2 s, one interruption expected on each: the sum of 1 - P(at most k)^2
    below, hand = 0.0, 0.0
    for k, chance in enumerate([exp(-1) / f for f in (1, 1, 2, 6, 24, 120, 720, 5040, 40320)]):
        below += chance
        hand += 1 - below**2
        assert k < 9
    assert slowest(CALM, 2, noisy, 2.0) == pytest.approx(1 + hand * 0.01 / 2, abs=1e-7)
    many = Interference(0.5, 0.01).expected_delay_s(20.0, 4096)
    assert slowest(CALM, 4096, noisy, 20.0) == pytest.approx(1 + many / 20.0, rel=1e-6)


def test_many_interruptions_are_a_normal_number_of_them() -> None:
    noisy = Variability(interruptions_per_s=100, interruption_s=25e-6)
    hand = Interference(100, 25e-6).expected_delay_s(10.0, 512) / 10.0
    assert slowest(CALM, 512, noisy, 10.0) - 1 == pytest.approx(hand, rel=0.02)


@settings(max_examples=25)
@given(
    ranks=st.integers(1, 2000),
    share=st.floats(0, 0.2),
    slower=st.floats(1, 2),
    spread=st.floats(0.001, 0.1),
)
def test_draws_have_the_expected_mean(ranks: int, share: float, slower: float, spread: float) -> None:
    mixture = compute_mixture(Variability(stragglers=share, straggler_slowdown=slower), spread, 0.0, 1.0)
    uniform = (np.arange(4000) + 0.5) / 4000
    drawn = mixture.quantile(uniform ** (1 / ranks))
    assert drawn.mean() == pytest.approx(
        mixture.expected_maximum(ranks), abs=2e-3 * (slower - 1) + 2e-3 * spread
    )


def test_slow_links_by_hand() -> None:
    half = Variability(slow_links=0.1, slow_link_bandwidth=0.5)
    # one node of two is slow with 1 - 0.81, and takes twice as long
    assert half.any_slow_link(2) == pytest.approx(0.19)
    assert half.expected_link_share(2) == pytest.approx(1 / 1.19)
    assert half.expected_link_share(1) == 1.0


@pytest.mark.parametrize("engine", ["compiled", "simpy", "flows"])
def test_a_step_on_slow_interfaces(engine: str) -> None:
    sound, slow = (
        step(each, engine=engine) for each in (None, Variability(slow_links=1, slow_link_bandwidth=0.5))
    )
    name = "exposed gradient reduction data"
    assert slow.breakdown_s[name] > 1.5 * sound.breakdown_s[name]
    assert slow.breakdown_s["matmul"] == pytest.approx(sound.breakdown_s["matmul"])
    assert any("interfaces of 100 % of nodes keep 50 %" in line for line in slow.provenance)


def test_a_job_in_one_node_has_no_interfaces_to_wait_for() -> None:
    plan = Plan(tensor_x=8, global_batch=8)
    slow = step(Variability(slow_links=1, slow_link_bandwidth=0.5), plan)
    assert slow.step_time_s == step(None, plan).step_time_s


@pytest.mark.parametrize("engine", ["compiled", "flows"])
def test_quantiles_are_those_of_the_states_that_links_have(engine: str) -> None:
    # 8 nodes: one or more slow with 1 - 0.95^8 = 0.34, so the median job is sound and the slowest tenth is not
    around = Variability(slow_links=0.05, slow_link_bandwidth=0.25)
    low, median, high = step_quantiles(step(around, engine=engine), (0.05, 0.5, 0.9), seed=2)
    assert low == median == pytest.approx(step(None, engine=engine).step_time_s)
    assert high == pytest.approx(step(replace(around, slow_links=1.0), engine=engine).step_time_s)


def test_quantiles_average_to_the_expected_step() -> None:
    around = Variability(speed=0.02, stragglers=0.005, straggler_slowdown=1.2)
    found = step(around)
    levels = [(n + 0.5) / 200 for n in range(200)]
    assert np.mean(step_quantiles(found, levels, seed=3)) == pytest.approx(found.step_time_s, rel=5e-3)


def test_all_faults_at_once() -> None:
    wrong = Variability(speed=-1, stragglers=2, straggler_slowdown=0.5, slow_link_bandwidth=0)
    assert len(wrong.faults()) == 4
    assert len(Variability(interruptions_per_s=1000, interruption_s=0.1).faults()) == 1
