"""The fit of stack and device factors."""

from dataclasses import replace

import pytest
from made_observations import made, three_stacks_and_a_device

from towtank.hardware_profiles.calibration import BOUNDS
from towtank.validation.factors import ANCHOR, MIN_GROUPS, MIN_ROWS, PULL, fit, free_names


def test_factors_of_exact_rates_are_recovered() -> None:
    fitted = fit(three_stacks_and_a_device())
    assert fitted.num_parameters == 5  # the level, three stacks, one device
    assert fitted.stacks == {
        "fast": pytest.approx(0.8),
        "middle": pytest.approx(0.7),
        "slow": pytest.approx(0.5),
    }
    assert fitted.devices == {"other": pytest.approx(0.9)}
    assert fitted.level == pytest.approx(0.7)  # the median of the stacks
    assert fitted.rate("slow", "other") == pytest.approx(0.45)  # never observed together


@pytest.mark.parametrize("factor", [0.1, 0.5, 3.0])
def test_outliers_move_nothing(factor: float) -> None:
    runs = three_stacks_and_a_device(40)
    spoilt = [
        replace(each, rate=each.rate * factor) if number % 5 == 0 else each
        for number, each in enumerate(runs)
    ]
    assert fit(spoilt).stacks == pytest.approx(fit(runs).stacks)
    assert fit(spoilt).devices == pytest.approx(fit(runs).devices)


@pytest.mark.parametrize(("slower", "factor"), [(4, 1.0), (5, 1.0), (6, 0.9), (10, 0.9)])
def test_a_device_departs_from_1_only_as_far_as_its_rows_outweigh_the_pull(
    slower: int, factor: float
) -> None:
    # ten rows of one source weigh 1 / sqrt(10) each. 5 at 0.9: 1.58 against 5 at 1 and the pull, 1.58 + 0.1;
    # 6 at 0.9: 1.90 against 1.26 + 0.1
    assert PULL == 0.1
    runs = [
        *made("one", ANCHOR, 0.8, 40),
        *made("one", "other", 0.72, slower),
        *made("one", "other", 0.8, 10 - slower),
    ]
    assert fit(runs).device("other") == pytest.approx(factor)


def test_a_source_with_many_rows_does_not_decide_alone() -> None:
    # the large source weighs sqrt(64) = 8, nine small ones of four rows 9 x sqrt(4) = 18
    runs = made("one", ANCHOR, 0.5, 64, source="large")
    for number in range(9):
        runs += made("one", ANCHOR, 0.8, 4, source=f"small {number}")
    assert fit(runs).stack("one") == pytest.approx(0.8)


@pytest.mark.parametrize(("count", "groups", "free"), [(10, 3, True), (9, 3, False), (30, 2, False)])
def test_too_few_rows_or_groups_make_no_factor(count: int, groups: int, free: bool) -> None:
    assert (MIN_ROWS, MIN_GROUPS) == (10, 3)
    runs = [*three_stacks_and_a_device(), *made("fast", "rare", 0.4, count, groups=groups)]
    runs += made("seldom", ANCHOR, 0.3, count, groups=groups)
    fitted = fit(runs)
    assert ("rare" in fitted.devices, "seldom" in fitted.stacks) == (free, free)
    if not free:
        assert fitted.device("rare") == 1.0
        assert fitted.stack("seldom") == fitted.level


def test_the_anchor_is_1_by_definition() -> None:
    assert ANCHOR not in free_names(three_stacks_and_a_device()).devices
    assert fit(three_stacks_and_a_device()).device(ANCHOR) == 1.0


def test_factors_stay_within_their_bounds() -> None:
    runs = [*three_stacks_and_a_device(), *made("fast", "sick", 0.01, 40)]
    assert fit(runs).device("sick") == pytest.approx(BOUNDS[0])


def test_nothing_cannot_be_fitted() -> None:
    with pytest.raises(ValueError, match="at least one"):
        fit([])
