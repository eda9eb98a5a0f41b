"""To whom the breakdown charges the waits of the compute stream."""

import pytest

import towtank


@pytest.mark.parametrize("zero_stage", [0, 1])
def test_without_a_pipeline_nothing_waits_for_another_stage(zero_stage: int) -> None:
    """512 ranks with little work: reductions and gathers queue up, and the compute stream waits for the queue."""
    plan = towtank.Plan(data=512, zero_stage=zero_stage, global_batch=512, sequence=256)
    prediction = towtank.predict("llama3-8b", "dgx-h100:nodes=64", plan, stack="megatron-core")
    parts = prediction.breakdown_s
    assert "bubble" not in parts
    assert parts["exposed gradient reduction data"] > 0.1 * prediction.step_time_s
    assert ("exposed parameter all-gather data" in parts) == (zero_stage == 1)
    assert sum(parts.values()) == pytest.approx(prediction.step_time_s, rel=1e-9)
