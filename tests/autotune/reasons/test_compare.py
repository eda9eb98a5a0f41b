"""Two steps side by side."""

import pytest

from towtank.autotune.reasons.compare import compare, comparison_to_mapping
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Plan
from towtank.simulator.predict import Prediction, predict
from towtank.simulator.stacks.load import load_stack


@pytest.fixture(scope="module")
def steps() -> tuple[Prediction, Prediction]:
    """One model on two machines under two stacks."""
    model = load_model("gpt-5b")
    one = predict(
        model, load_machine("selene:nodes=1"), Plan(tensor_x=2, pipeline=2, data=2, global_batch=16)
    )
    zero = Plan(data=16, zero_stage=3, global_batch=32)
    other = predict(model, load_machine("dgx-h100:nodes=2"), zero, stack=load_stack("torchtitan"))
    return one, other


def test_columns_sum_to_steps_and_peaks(steps: tuple[Prediction, Prediction]) -> None:
    a, b = steps
    found = compare(a, b)

    assert sum(row.a for row in found.seconds) == pytest.approx(a.step_time_s)
    assert sum(row.b for row in found.seconds) == pytest.approx(b.step_time_s)
    assert sum(row.difference for row in found.seconds) == pytest.approx(b.step_time_s - a.step_time_s)
    assert sum(row.a for row in found.memory_bytes) == pytest.approx(a.peak_memory_bytes)
    assert sum(row.b for row in found.memory_bytes) == pytest.approx(b.peak_memory_bytes)
    assert {"bubble", "exposed all-gather weight_shard"} <= {row.name for row in found.seconds}
    largest = [max(row.a, row.b) for row in found.seconds]
    assert largest == sorted(largest, reverse=True)


def test_what_differs_in_the_plans_is_told(steps: tuple[Prediction, Prediction]) -> None:
    text = compare(*steps).changes

    assert text.startswith("tensor_x 2 -> 1, data 2 -> 16, zero_stage 0 -> 3, pipeline 2 -> 1, global_batch")
    # Megatron-Core reduces gradients in fp32 and so does torchtitan: not a difference
    assert "gradient_precision" not in text


def test_the_mapping_has_differences_and_shares(steps: tuple[Prediction, Prediction]) -> None:
    a, b = steps
    document = comparison_to_mapping(a, b)
    step = document["totals"]["step_time_s"]

    assert step == {"a": a.step_time_s, "b": b.step_time_s, "difference": b.step_time_s - a.step_time_s}
    assert document["totals"]["devices"] == {"a": 8, "b": 16, "difference": 8}
    assert (document["a"]["machine"], document["b"]["stack"]) == (a.machine.name, "torchtitan")
    rows = document["breakdown_s"].values()
    assert sum(row["share_a"] for row in rows) == pytest.approx(1.0)
    assert sum(row["share_b"] for row in rows) == pytest.approx(1.0)
