"""What the executor does in another way than a plan says is refused, not silently run."""

import math
from dataclasses import replace
from typing import Any

import pytest
from tests.executor.tiny import tiny_settings

from towtank.executor.settings import default_dtype
from towtank.executor.supported import faults
from towtank.simulator.plan import Plan


def test_other_precisions_of_gradients_and_master_are_refused() -> None:
    settings = tiny_settings(Plan(global_batch=4))
    assert faults(settings) == []
    same = replace(settings, plan=Plan(global_batch=4, gradient_precision="fp32"))
    assert faults(same) == []
    wrong = Plan(global_batch=4, gradient_precision="bf16", master_precision="none")
    found = faults(replace(settings, plan=wrong))
    assert [one.split(",")[0] for one in found] == ["gradient_precision = bf16", "master_precision = none"]


@pytest.mark.parametrize("precision", ["fp8", "mxfp8", "nvfp4"])
def test_precisions_of_multiplies_alone_are_not_taken_for_bf16(precision: str) -> None:
    assert default_dtype(Plan(precision="bf16")) == "bf16"
    with pytest.raises(KeyError):
        default_dtype(Plan(precision=precision))


def test_a_cpu_has_no_tf32() -> None:
    settings = tiny_settings(Plan(global_batch=4, precision="tf32"), "fp32")
    assert [one.split(",")[0] for one in faults(settings)] == ["precision = tf32"]
    assert faults(replace(settings, device="cuda")) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", math.nan), ("learning_rate", math.inf), ("learning_rate", -1.0),
        ("weight_decay", math.nan), ("weight_decay", -0.1),
        ("gradient_clip", math.nan), ("gradient_clip", 0.0), ("gradient_clip", math.inf),
        ("dropout", math.nan), ("dropout", 1.0), ("steps", 0), ("epsilon", 0.0), ("betas", (0.9, 1.0)),
    ],
)  # fmt: skip
def test_numbers_that_no_training_has(name: str, value: Any) -> None:
    settings = tiny_settings(Plan(global_batch=4))
    (fault,) = faults(replace(settings, **{name: value}))
    assert name in fault and str(value) in fault
