"""The factor of delivery: its distribution, its fit, and its file."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, t

from towtank.autotune.capacity import delivery as module
from towtank.autotune.capacity.delivery import (
    NORMAL,
    STUDENT_2,
    Residuals,
    delivery,
    factors,
    fit_scale,
    log_score,
    log_score_left_out,
    scales_left_out,
)
from towtank.autotune.capacity.errors import CapacityError

SHARES = np.array([0.02, 0.05, 0.3, 0.5, 0.9, 0.98])


def test_shapes_agree_with_another_implementation() -> None:
    values = np.linspace(-6, 6, 25)
    for shape, other in ((STUDENT_2, t(2)), (NORMAL, norm)):
        assert shape.log_density(values) == pytest.approx(other.logpdf(values))
        assert shape.quantile(SHARES) == pytest.approx(other.ppf(SHARES))


@given(st.floats(0.01, 0.5), st.floats(0.0, 1.0))
def test_factors_are_symmetric_about_1_and_have_ends(scale: float, share: float) -> None:
    below, above = factors(scale, np.array([share, 1 - share]))
    assert below * above == pytest.approx(1.0)
    # 6.9646: 99 % of Student's t with two degrees of freedom, from a table
    assert abs(np.log(below)) <= scale * 6.965


def test_the_log_score_by_hand() -> None:
    # density of one simulated run at 0 is 2^-1.5 / scale; the group of two weighs as much as that of one
    rows = [Residuals("a", np.zeros(1)), Residuals("b", np.zeros(1)), Residuals("b", np.full(1, 0.2))]
    at_zero, away = np.log(2**-1.5 / 0.1), np.log((2 + 4) ** -1.5 / 0.1)
    assert log_score(rows, 0.1) == pytest.approx((at_zero + (at_zero + away) / 2) / 2)
    # the density of a run is the mean over its simulated ones
    mixed = [Residuals("a", np.array([0.0, 0.2]))]
    assert log_score(mixed, 0.1) == pytest.approx(np.log((2**-1.5 + 6**-1.5) / 0.2))


def test_a_run_that_a_shape_calls_impossible_still_has_a_score() -> None:
    assert log_score([Residuals("a", np.full(3, 100.0))], 0.01, NORMAL) < -1e7


def test_the_fit_finds_the_scale_that_runs_were_drawn_with() -> None:
    rng = np.random.default_rng(0)
    for shape, scale in ((STUDENT_2, 0.12), (NORMAL, 0.3)):
        drawn = scale * shape.quantile(rng.random(2000))
        rows = [Residuals(str(place), np.full(1, value)) for place, value in enumerate(drawn)]
        assert fit_scale(rows, shape) == pytest.approx(scale, rel=0.06)


def test_what_simulated_runs_differ_by_is_not_fitted_again() -> None:
    # published and simulated logarithms differ by the same 0.2: nothing is left for delivery
    rng = np.random.default_rng(1)
    rows = [
        Residuals(str(place), rng.normal(value, 0.2, 200))
        for place, value in enumerate(rng.normal(0, 0.2, 40))
    ]
    assert fit_scale(rows, NORMAL) < 0.08
    assert (
        fit_scale([Residuals(one.group, one.values[:1] * 0 + one.values.mean()) for one in rows], NORMAL)
        > 0.15
    )


def test_each_group_has_the_scale_of_the_others() -> None:
    rows = [Residuals(name, np.full(1, value)) for name, value in (("a", 0.1), ("b", -0.2), ("c", 3.0))]
    scales = scales_left_out(rows)
    assert scales["c"] == pytest.approx(fit_scale(rows[:2]))
    by_hand = np.mean([log_score([one], scales[one.group]) for one in rows])
    assert log_score_left_out(rows, scales) == pytest.approx(by_hand)


def test_the_shipped_factor_says_where_it_is_from() -> None:
    found = delivery()
    assert found.shape.startswith(STUDENT_2.name) and found.source
    assert found.factors(np.array([0.5])) == pytest.approx(1.0)
    assert found.factors(SHARES) == pytest.approx(np.exp(found.scale * t(2).ppf(SHARES)))


def test_a_wrong_file_is_refused_with_all_faults(tmp_path, monkeypatch) -> None:
    path = tmp_path / "delivery.yaml"
    path.write_text("spread: 0.2\nruns: many\n", encoding="utf-8")
    monkeypatch.setattr(module, "FILE", path)
    with pytest.raises(CapacityError) as refused:
        delivery.__wrapped__()
    assert "unknown key spread" in str(refused.value) and "missing key scale" in str(refused.value)
