"""Figures of error against calculations by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import result

from towtank.validation.statistics import (
    best_half,
    best_plan_loss,
    errors_of,
    flagged_as_failing,
    fraction_of_peak,
    memory_errors,
    null_errors,
    pairs_ordered,
    predicted_to_fit,
    quantile,
    rank_correlation,
    ranks,
    slope_per_doubling,
    spearman,
)


def test_errors_of_four_rows() -> None:
    # signed errors +10 %, -20 %, +50 %; one row is not expressed and one prints no time
    rows = [result(2.0, 2.2), result(1.0, 0.8), result(4.0, 6.0), result(3.0, None), result(None, 1.0)]
    errors = errors_of(rows)
    assert (errors.rows, errors.expressed) == (4, 3)
    assert errors.coverage == 0.75
    assert errors.median == pytest.approx(0.2)
    assert errors.mean == pytest.approx(0.8 / 3)
    assert errors.bias == pytest.approx(0.1)
    assert errors.p90 == pytest.approx(0.2 + 0.8 * 0.3)  # place 1.8 of 0.1, 0.2, 0.5
    assert errors.spearman == pytest.approx(1.0)


def test_no_rows_give_no_figures() -> None:
    errors = errors_of([])
    assert errors.median is errors.mean is errors.skill is errors.spearman is None
    assert errors.coverage == 0.0


def test_null_model_is_the_median_fraction_of_peak_of_each_device() -> None:
    # model FLOP 1e15 on 16 devices of 1e15 FLOP/s: fractions 1/16 / t
    rows = [result(1.0, 1.0), result(2.0, 1.0), result(4.0, 1.0), result(1.0, 1.0, device="b200")]
    assert fraction_of_peak(rows[0]) == pytest.approx(1 / 16)
    # the constant predicts 2 s for each: +100 %, 0, -50 %; b200 alone is hit exactly
    rows[3] = result(1.0, 1.0, run=result(1.0, 1.0).run.__class__(**_fields(rows[3], device="b200")))
    assert null_errors(rows) == pytest.approx([1.0, 0.0, -0.5, 0.0])


def _fields(row, **changes):
    run = row.run
    return {name: getattr(run, name) for name in run.__dataclass_fields__} | changes


def test_skill_is_our_mean_error_over_that_of_the_constant() -> None:
    rows = [result(1.0, 1.1), result(2.0, 2.0), result(4.0, 4.0)]
    errors = errors_of(rows)
    assert errors.null_mean == pytest.approx(0.5)  # (100 + 0 + 50) / 3 %
    assert errors.skill == pytest.approx((0.1 / 3) / 0.5)


def test_ranks_share_ties() -> None:
    assert ranks([30.0, 10.0, 20.0, 10.0]) == [4.0, 1.5, 3.0, 1.5]


def test_spearman_by_hand() -> None:
    # ranks 1 2 3 4 5 against 2 1 4 3 5: 1 - 6 x 4 / (5 x 24) = 0.8
    assert spearman([1, 2, 3, 4, 5], [20, 10, 40, 30, 50]) == pytest.approx(0.8)
    assert spearman([1, 2], [1, 2]) is None
    assert spearman([1, 1, 1], [1, 2, 3]) is None


@given(st.lists(st.integers(1, 10**6), min_size=3, max_size=30, unique=True))
def test_spearman_knows_order_only(values: list[int]) -> None:
    assert spearman(values, [math.log(value) for value in values]) == pytest.approx(1.0)
    assert spearman(values, [-value for value in values]) == pytest.approx(-1.0)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(0, 1))
def test_a_quantile_lies_between_the_extremes(values: list[float], level: float) -> None:
    ordered = sorted(values)
    assert ordered[0] <= quantile(ordered, level) <= ordered[-1] + 1e-9 * abs(ordered[-1])


def test_ranking_of_a_sweep_goes_by_the_rate() -> None:
    # the same FLOP and devices: rates order as the inverse times
    sweep = [result(1.0, 1.2), result(2.0, 1.1), result(3.0, 3.0)]
    assert rank_correlation(sweep) == pytest.approx(0.5)  # first two swapped: 1 - 6 x 2 / (3 x 8)
    assert best_plan_loss(sweep) == pytest.approx(1.0)  # the second is chosen; the best is twice as fast
    assert best_plan_loss([result(1.0, 1.0), result(2.0, 2.0)]) == 0.0


def test_pairs_that_the_measurement_cannot_tell_apart_do_not_count() -> None:
    sweep = [result(1.00, 1.3), result(1.02, 1.2), result(2.0, 1.25)]
    # (1.00, 1.02) differ by 2 %; (1.00, 2.0) is ordered wrong, (1.02, 2.0) right
    assert pairs_ordered(sweep, 0.03) == (1, 2)


def test_a_repeat_is_no_pair_and_a_tie_is_not_ordered_right() -> None:
    # a and b repeat one configuration; c is another that is predicted as fast as they are
    a, b, c = result(1.0, 1.5), result(1.2, 1.5), result(2.0, 1.5, micro_batch=2)
    assert pairs_ordered([a, b], 0.03) == (0, 0)
    assert pairs_ordered([a, b, c], 0.03) == (0, 2)
    # two rows with the same columns that are told apart by what their notes say are a pair
    assert pairs_ordered([a, result(1.2, 1.6)], 0.03) == (1, 1)


def test_slope_per_doubling() -> None:
    # errors 0, +1 %, +2 % on 64, 128, 256 devices: one point a doubling; 8 devices do not count
    rows = [
        result(1.0, 1.0, num_devices=64), result(1.0, 1.01, num_devices=128), result(1.0, 1.02, num_devices=256),
        result(1.0, 3.0, num_devices=8),
    ]  # fmt: skip
    assert slope_per_doubling(rows) == pytest.approx(0.01)
    assert slope_per_doubling(rows[:1]) is None


def test_best_half_keeps_rows_of_half_the_best_rate_or_more() -> None:
    sweep = [result(1.0, 1.0), result(1.9, 1.0), result(2.1, 1.0)]
    assert best_half(sweep) == sweep[:2]


def test_memory_error_is_of_what_the_source_counts() -> None:
    rows = [result(1.0, 1.0, measured_peak_memory_bytes=50.0 * 2**30), result(1.0, 1.0)]
    assert memory_errors(rows) == pytest.approx([-0.2])  # 40 of 50 GiB


def test_failed_and_successful_rows() -> None:
    fits, too_big, refused = result(1.0, 1.0), result(1.0, 1.0, fits=False), result(1.0, None)
    assert flagged_as_failing([fits, too_big, refused, refused]) == 0.75
    assert predicted_to_fit([fits, too_big, refused]) == 0.5
    assert flagged_as_failing([]) is None
    assert predicted_to_fit([refused]) is None
