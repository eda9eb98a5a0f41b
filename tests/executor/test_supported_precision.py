"""What the executor keeps in fp32 whatever the plan says is refused, not silently run."""

from dataclasses import replace

from tests.executor.tiny import tiny_settings

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
