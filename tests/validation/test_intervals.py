"""Prediction intervals."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import features

from towtank import Plan, predict
from towtank.validation.grouping import interval_settings
from towtank.validation.intervals import (
    Sample,
    Settings,
    attach_interval,
    bounds_of,
    features_of,
    fit,
    fold_of,
    held_out,
    interval,
    lookup,
    range_of,
    reasons,
)

SETTINGS = Settings(0.9, (("device", "share"), ()), (0.5,), ("wild",), min_rows=10, min_groups=2)


def _samples(residuals, device="a", stack="s", groups=5, share=0.9):
    what = features(device=device, stack=stack, compute_share=share)
    return [
        Sample(what, residual, f"{device} {number % groups}") for number, residual in enumerate(residuals)
    ]


def test_bounds_by_hand() -> None:
    # 39 residuals -19..19 %: k = floor(40 x 0.05) = 2, so the second smallest and the second largest
    bounds = bounds_of([number / 100 for number in range(-19, 20)], 0.9)
    assert bounds.low == pytest.approx(math.exp(-0.18))
    assert bounds.high == pytest.approx(math.exp(0.18))
    assert bounds.rows == 39


def test_a_prediction_lies_in_its_own_interval() -> None:
    bounds = bounds_of([0.2, 0.3, 0.4], 0.9)
    assert (bounds.low, bounds.high) == (1.0, pytest.approx(math.exp(0.4)))


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=200))
def test_bounds_hold_at_least_the_nominal_share(residuals: list[float]) -> None:
    bounds = bounds_of(residuals, 0.9)
    inside = sum(bounds.low - 1e-12 <= math.exp(residual) <= bounds.high + 1e-12 for residual in residuals)
    assert inside >= 0.9 * len(residuals) - 1e-9 or inside == len(residuals)


def test_the_narrowest_regime_with_enough_rows_and_groups_counts() -> None:
    samples = (
        _samples([0.1] * 20) + _samples([0.5] * 5, device="b") + _samples([0.3] * 20, device="c", groups=1)
    )
    table = fit(samples, SETTINGS)
    assert lookup(table, features(device="a"), SETTINGS)[1].high == pytest.approx(math.exp(0.1))
    for device in ("b", "c", "never seen"):  # too few rows, one group only, none at all
        key, bounds = lookup(table, features(device=device), SETTINGS)
        assert key == ("1", "pool")
        assert bounds.rows == 45


def test_stacks_that_scatter_are_pooled_among_themselves() -> None:
    table = fit(_samples([0.1] * 20) + _samples([3.0] * 20, stack="wild"), SETTINGS)
    assert lookup(table, features(device="a", stack="s"), SETTINGS)[1].high == pytest.approx(math.exp(0.1))
    assert lookup(table, features(device="a", stack="wild"), SETTINGS)[1].high == pytest.approx(math.exp(3.0))


@pytest.mark.parametrize(
    ("share", "name"), [(0.0, "0 % to 50"), (0.49, "0 % to 50"), (0.5, "50 % to 100"), (1.0, "50 % to 100")]
)
def test_share_of_compute(share: float, name: str) -> None:
    assert name in SETTINGS.share_name(share)


def test_folds_do_not_split_groups_and_do_not_change() -> None:
    assert fold_of("a|b", 10) == fold_of("a|b", 10)
    assert fold_of("123456789", 10**9) == 0xCBF43926 % 10**9  # the published check value of CRC-32
    assert {fold_of(f"group {number}", 10) for number in range(300)} == set(range(10))


def test_held_out_coverage_of_even_residuals_is_near_nominal() -> None:
    spread = [((number * 37) % 201 - 100) / 100 for number in range(2010)]
    found = held_out(_samples(spread, groups=134), SETTINGS)
    assert found is not None
    assert found[0] == pytest.approx(0.9, abs=0.02)
    assert held_out([], SETTINGS) is None


def test_held_out_knows_when_a_group_is_like_no_other() -> None:
    samples = [
        Sample(features(device="a"), float(number), f"group {number}")
        for number in range(50)
        for _ in range(20)
    ]
    found = held_out(samples, SETTINGS)
    assert found is not None
    assert found[0] < 0.95  # the extreme groups were never seen


def test_why_a_prediction_extrapolates() -> None:
    validated = range_of(
        [
            Sample(features(num_devices=512, num_nodes=64), 0.0, "g"),
            Sample(features(num_devices=8, num_nodes=1, precision="fp8"), 0.0, "g"),
        ]
    )
    assert reasons(features(num_devices=512, num_nodes=64), validated) == ()
    assert reasons(features(num_devices=1024, num_nodes=128), validated) == (
        "no validated run above 512 devices on this network",
    )
    assert reasons(features(network="carrier pigeon"), validated) == (
        "no validated run across nodes of this device on carrier pigeon",
    )
    assert reasons(features(device="b"), validated) == ("no validated run on b",)
    assert reasons(features(moe=True), validated) == ("no validated run of an MoE model on this device",)
    assert reasons(features(precision="nvfp4"), validated) == ("no validated run in nvfp4 on this device",)
    assert reasons(features(stack="mine"), validated) == ("no validated run of stack mine",)


def test_the_shipped_intervals_hold_a_prediction() -> None:
    prediction = predict("llama2-7b", "dgx-h100", Plan(tensor_x=2, data=8, zero_stage=1, global_batch=64))
    found = attach_interval(prediction)
    assert 0 < found.low_s <= prediction.step_time_s <= found.high_s
    assert found.nominal == 0.9
    assert found.rows >= interval_settings().min_rows
    assert found.extrapolated == ()


def test_a_huge_job_extrapolates() -> None:
    what = features_of(predict("llama2-7b", "dgx-h100", Plan(data=16, zero_stage=1, global_batch=16)))
    far = interval(replace(what, num_devices=400_000, num_nodes=50_000), 1.0)
    assert any("no validated run above" in reason for reason in far.extrapolated)


def test_an_interval_reads_one_small_file_and_loads_no_rows(tmp_path) -> None:
    code = """
import sys
from some_features import F
from towtank.validation.intervals import interval
interval(F, 1.0)
print(*{'pandas', 'towtank.validation.grouping', 'towtank.validation.rows'} & set(sys.modules))
"""
    (tmp_path / "some_features.py").write_text(
        "from towtank.validation.intervals import Features\nF = " + repr(features()) + "\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
