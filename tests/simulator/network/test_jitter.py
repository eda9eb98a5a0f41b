"""The slowest of many ranks: tables of order statistics, sampling, and how it grows."""

from math import erf, exp, log, pi, sqrt

import numpy as np
import pytest

from towtank.simulator.network.jitter import (
    Interference,
    Jitter,
    JitterKind,
    combined,
    maximum_quantile,
    sampled_maximum,
)

# Harter, "Expected Values of Normal Order Statistics", Biometrika 48, 1961, table 1: E[max of n standard normals]
HARTER = {
    2: 0.56419,
    3: 0.84628,
    5: 1.16296,
    10: 1.53875,
    20: 1.86748,
    50: 2.24907,
    100: 2.50759,
    400: 2.96818,
}


@pytest.mark.parametrize(("ranks", "table"), HARTER.items())
def test_normal_maximum_is_that_of_the_table(ranks: int, table: float) -> None:
    assert (Jitter("normal", 0.1).expected_maximum(ranks) - 1) / 0.1 == pytest.approx(table, abs=2e-5)


def test_gumbel_by_hand() -> None:
    # scale = spread sqrt(6) / pi; the maximum of n is one shifted by scale log n
    assert Jitter("gumbel", 0.1).expected_maximum(1024) == pytest.approx(1 + 0.1 * sqrt(6) / pi * log(1024))


def test_lognormal_of_two_by_hand() -> None:
    # E max(X, Y) of lognormals of mean 1 is 2 Phi(spread / sqrt 2)
    phi = 0.5 * (1 + erf(0.3 / 2))
    assert Jitter("lognormal", 0.3).expected_maximum(2) == pytest.approx(2 * phi, rel=1e-5)


@pytest.mark.parametrize("kind", ["normal", "lognormal", "gumbel"])
@pytest.mark.parametrize("ranks", [1, 7, 512, 40_000])
def test_sampled_and_analytic_agree_within_sampling_error(kind: JitterKind, ranks: int) -> None:
    jitter = Jitter(kind, 0.05)
    mean, error = sampled_maximum(jitter, ranks, 300, seed=ranks)
    assert abs(mean - jitter.expected_maximum(ranks)) <= 4 * error


@pytest.mark.parametrize("kind", ["normal", "lognormal", "gumbel"])
def test_cost_grows_with_scale_and_with_spread(kind: JitterKind) -> None:
    found = [Jitter(kind, 0.03).expected_maximum(2**power) for power in range(16)]
    assert found == sorted(found) and found[0] == 1
    assert Jitter(kind, 0.06).expected_maximum(512) > Jitter(kind, 0.03).expected_maximum(512)
    assert Jitter(kind, 0.0).expected_maximum(512) == 1


def test_median_of_the_maximum_of_two() -> None:
    # both of two below x: F(x)^2 = 1/2
    jitter = Jitter("gumbel", 0.1)
    scale = 0.1 * sqrt(6) / pi
    expected = 1 - scale * 0.5772156649015329 - scale * log(-log(sqrt(0.5)))
    assert maximum_quantile(jitter, 2, 0.5) == pytest.approx(expected)


def test_slow_devices_and_noise_together() -> None:
    persistent, noise = Jitter("normal", 0.03), Jitter("normal", 0.04)
    assert combined(persistent, noise).spread == pytest.approx(0.05)
    random = np.random.default_rng(7)
    ranks, waits, draws = 64, 8, 400
    speed = random.normal(1, 0.03, (draws, 1, ranks))
    steps = (speed + random.normal(0, 0.04, (draws, waits, ranks))).max(axis=2).mean(axis=1)
    error = steps.std(ddof=1) / sqrt(draws)
    assert abs(steps.mean() - combined(persistent, noise).expected_maximum(ranks)) <= 4 * error
    with pytest.raises(ValueError, match="normal with normal"):
        combined(Jitter("gumbel", 0.1), Jitter("gumbel", 0.1))


def test_interruptions_of_one_rank_cost_their_mean_and_of_many_more() -> None:
    noise = Interference(rate_per_s=2.0, length_s=0.01)
    assert noise.expected_delay_s(3.0, 1) == pytest.approx(6 * 0.01, rel=1e-9)
    # rare on one rank, certain on one of very many: at least one interruption
    rare = Interference(rate_per_s=1e-3, length_s=0.01)
    none = exp(-1e-3) ** 100_000
    assert rare.expected_delay_s(1.0, 100_000) >= 0.01 * (1 - none)
    random = np.random.default_rng(5)
    sampled = random.poisson(6.0, (4000, 256)).max(axis=1) * 0.01
    error = sampled.std(ddof=1) / sqrt(4000)
    assert abs(noise.expected_delay_s(3.0, 256) - sampled.mean()) <= 4 * error


def test_faults() -> None:
    with pytest.raises(ValueError, match="spread"):
        Jitter("normal", -0.1)
    with pytest.raises(ValueError, match="one rank or more"):
        Jitter("normal", 0.1).expected_maximum(0)
