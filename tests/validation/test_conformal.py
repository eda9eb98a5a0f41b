"""Conformal intervals of residuals."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import features

from towtank.validation.conformal import (
    FLOOR,
    Sample,
    Scatter,
    Settings,
    bounds,
    fit,
    fold_of,
    held_out,
    scores_of,
)

SETTINGS = Settings(0.9, ((), ("device",)), ("wild",), prior_weight=4)


def _samples(residuals, device="a", stack="s", groups=1000):
    what = features(device=device, stack=stack)
    return [
        Sample(what, residual, f"{device} {number % groups}") for number, residual in enumerate(residuals)
    ]


def test_scores_by_hand() -> None:
    # 39 scores -19..19: k = floor(40 x 0.05) = 2, so the second smallest and the second largest
    scores = scores_of(list(range(-19, 20)), 0.9)
    assert (scores.low, scores.high, scores.rows) == (-18, 18, 39)


def test_a_prediction_lies_in_its_own_interval() -> None:
    assert scores_of([0.2, 0.3, 0.4], 0.9).low == 0.0


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=200))
def test_scores_hold_at_least_the_nominal_share(found: list[float]) -> None:
    scores = scores_of(found, 0.9)
    inside = sum(scores.low <= one <= scores.high for one in found)
    assert inside >= 0.9 * len(found) - 1e-9 or inside == len(found)


def test_scatter_of_a_regime_is_drawn_to_the_wider_one() -> None:
    # pool: 4 residuals of 0.1 and 4 of 0.3, mean 0.2 above; device b alone 0.3; weights 8 and 4, prior 4:
    # above = 4/8 x 0.3 + 4/8 x 0.2 = 0.25
    fitted = fit(_samples([0.1] * 4) + _samples([0.3] * 4, device="b"), SETTINGS)
    assert fitted.scatters["pool", "b"] == Scatter(4.0, pytest.approx(1.2), 0.0, 4)
    found = bounds(fitted, features(device="b"), SETTINGS)
    assert math.log(found.high) == pytest.approx(0.25 * fitted.scores["pool"].high)
    assert found.low == 1.0
    assert (found.regime, found.rows) == (("pool",), 8)  # too few runs of b to speak of


def test_a_group_weighs_as_the_root_of_its_runs() -> None:
    fitted = fit(_samples([0.1] * 9, groups=1) + _samples([0.4] * 2, device="b"), SETTINGS)
    assert fitted.scatters["pool",].weight == pytest.approx(3 + 2)
    assert fitted.scatters["pool",].above == pytest.approx(3 * 0.1 + 2 * 0.4)


def test_the_score_of_a_run_does_not_see_its_own_group() -> None:
    # of two groups the scatter of either is the other's residual alone: scores 0.1/0.4 and 0.4/0.1
    fitted = fit(
        [Sample(features(device="a"), 0.1, "one"), Sample(features(device="a"), 0.4, "two")], SETTINGS
    )
    assert fitted.scores["pool"].high == pytest.approx(4.0)


def test_regimes_that_scatter_more_have_wider_intervals() -> None:
    calm = [0.01 * (-1) ** number for number in range(60)]
    loud = [0.2 * (-1) ** number for number in range(60)]
    fitted = fit(_samples(calm) + _samples(loud, device="b"), SETTINGS)
    widths = {
        device: bounds(fitted, features(device=device), SETTINGS).high - 1 for device in ("a", "b", "unseen")
    }
    assert widths["a"] < widths["unseen"] < widths["b"]


def test_stacks_that_scatter_are_pooled_among_themselves() -> None:
    fitted = fit(_samples([0.1] * 20) + _samples([3.0] * 20, stack="wild"), SETTINGS)
    assert bounds(fitted, features(device="a"), SETTINGS).high == pytest.approx(math.exp(0.1))
    assert bounds(fitted, features(device="a", stack="wild"), SETTINGS).high == pytest.approx(math.exp(3.0))


def test_a_pool_without_runs_takes_the_common_one() -> None:
    fitted = fit(_samples([0.1] * 20), SETTINGS)
    assert bounds(fitted, features(device="a", stack="wild"), SETTINGS).high == pytest.approx(math.exp(0.1))


def test_exact_predictions_keep_a_least_scatter() -> None:
    fitted = fit([*_samples([0.0] * 20), *_samples([FLOOR * 2] * 3, device="b")], SETTINGS)
    assert bounds(fitted, features(device="a"), SETTINGS).high > 1.0


def test_folds_do_not_split_groups_and_do_not_change() -> None:
    assert fold_of("a|b", 10) == fold_of("a|b", 10)
    assert fold_of("123456789", 10**9) == 0xCBF43926 % 10**9  # the published check value of CRC-32
    assert {fold_of(f"group {number}", 10) for number in range(300)} == set(range(10))


def test_held_out_coverage_of_even_residuals_is_near_nominal() -> None:
    spread = [((number * 37) % 201 - 100) / 100 for number in range(2010)]
    found = held_out(_samples(spread, groups=134), SETTINGS, 10)
    assert found is not None
    assert found[0] == pytest.approx(0.9, abs=0.02)
    assert held_out([], SETTINGS, 10) is None


def test_held_out_knows_when_a_group_is_like_no_other() -> None:
    samples = [
        Sample(features(device="a"), 0.01 * 2**number, f"group {number}")
        for number in range(10)
        for _ in range(20)
    ]
    found = held_out(samples, SETTINGS, 10)
    assert found is not None
    assert found[0] <= 0.9  # the largest group was never seen
