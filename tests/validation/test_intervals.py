"""Prediction intervals."""

import subprocess
import sys
from dataclasses import replace

from made_runs import features

from towtank import Plan, predict
from towtank.validation.features import features_of
from towtank.validation.intervals import attach_interval, interval
from towtank.validation.scope import range_of, reasons


def test_why_a_prediction_extrapolates() -> None:
    validated = range_of(
        [
            features(num_devices=512, num_nodes=64),
            features(num_devices=8, num_nodes=1, precision="fp8"),
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
    assert found.regime == "h100-80gb-sxm, megatron-core, 16-bit, dense"
    assert found.rows >= 50
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
        "from towtank.validation.features import Features\nF = " + repr(features()) + "\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
