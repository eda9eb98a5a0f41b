"""What to do next: every action does what it says."""

from dataclasses import replace

import pytest

from towtank.autotune.explanation.actions import actions, next_plans, nothing_next
from towtank.autotune.explanation.knobs import turned
from towtank.autotune.reasons.survey import Survey, survey
from towtank.autotune.task import TuningTask
from towtank.simulator.plan import Plan
from towtank.simulator.predict import Prediction, predict

GIB = 2.0**30
JOBS = [
    (
        "llama3-8b",
        "dgx-h100:nodes=2",
        Plan(tensor_x=4, pipeline=2, data=2, global_batch=32, recompute="full"),
    ),
    (
        "mixtral-8x7b",
        "dgx-h100:nodes=4",
        Plan(tensor_x=4, data=8, expert=8, sequence_parallel=True, zero_stage=1, global_batch=32),
    ),
]


def _found(model: str, machine: str, plan: Plan) -> tuple[Prediction, Survey]:
    own = predict(model, machine, plan)
    task = TuningTask(own.model, own.machine, own.stack, plan.num_devices, plan.global_batch)
    return own, survey(task, plan, own, top=8)


@pytest.mark.parametrize(("model", "machine", "plan"), JOBS)
def test_a_plan_that_is_named_fits_and_is_as_much_faster(model: str, machine: str, plan: Plan) -> None:
    own, found = _found(model, machine, plan)
    lines, plans = actions(own, found), next_plans(own, found)
    assert plans
    for line, each in zip(lines, plans, strict=False):
        again = predict(model, machine, each.prediction.plan)
        assert again.fits
        assert line == f"{each.change}: {(1 - again.step_time_s / own.step_time_s) * 100:.1f} % faster"


def test_what_is_said_to_be_missing_is_enough() -> None:
    # without recomputation 8B parameters on 8 devices need more than 80 GB
    own, found = _found(
        "llama3-8b", "dgx-h100:nodes=1", Plan(tensor_x=2, data=4, global_batch=32, micro_batch=4)
    )
    beyond = found.out_of_reach
    line = actions(own, found)[-1]
    assert beyond is not None and line.startswith("with ")
    more = float(line.split()[1]) * GIB
    capacity = own.memory_capacity_bytes + more
    other = turned(own.machine, [f"device.hbm={capacity / GIB:.6f} GiB"])
    assert predict(own.model, other, beyond.prediction.plan).fits
    assert beyond.prediction.peak_memory_bytes > capacity - 0.1 * GIB


def test_a_plan_that_does_not_fit_is_told_how_to() -> None:
    own, found = _found("llama2-70b", "dgx-h100:nodes=4", Plan(tensor_x=8, data=4, global_batch=32))
    assert not own.fits
    lines, plans = actions(own, found), next_plans(own, found)
    assert plans
    for line, each in zip(lines, plans, strict=False):
        assert each.prediction.fits
        assert f"{each.change}: fits (" in line
        slower = each.prediction.step_time_s > own.step_time_s
        assert line.endswith(" slower" if slower else " faster")


def test_where_nothing_helps_it_says_so() -> None:
    own, found = _found("llama2-70b", "dgx-h100:nodes=4", Plan(tensor_x=8, data=4, global_batch=32))
    none = replace(found, best=(), out_of_reach=None)
    assert actions(own, none) == []
    assert nothing_next(own, none) == f"none of {found.legal:,} legal plans one step away fits"
