"""Searches of published sizes: so many plans are judged, and the winner is proven."""

import pytest

from towtank import Plan, load_machine, load_model, load_stack, predict
from towtank.autotune.search.exact import tune
from towtank.autotune.task import TuningTask


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["any", "megatron-core"])
def test_megatron_1t_on_3072_a100(stack):
    task = TuningTask(load_model("megatron-1t"), load_machine("selene"), load_stack(stack), 3072, 3072)
    result = tune(task, workers=1)
    assert result.counts.legal >= 100_000 and result.counts.open == 0
    assert result.proven and len(result.plans) == 10 and all(each.proven for each in result.plans)
    published = Plan(tensor_x=8, pipeline=64, data=6, global_batch=3072, recompute="full", precision="fp16")
    measured_plan = predict("megatron-1t", "selene", published, stack="megatron-2021")
    assert result.plans[0].step_time_s <= measured_plan.step_time_s
    winner = predict(task.model, task.machine, result.plans[0].plan, stack=task.stack)
    assert winner.fits and winner.step_time_s == result.plans[0].step_time_s
