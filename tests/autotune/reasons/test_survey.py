"""How a plan stands among its neighbours."""

from dataclasses import replace

import pytest

from towtank.autotune.reasons.limits import limits, limits_of
from towtank.autotune.reasons.neighbours import neighbours
from towtank.autotune.reasons.survey import survey
from towtank.autotune.task import TuningTask
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Plan
from towtank.simulator.plan_rules import faults_of
from towtank.simulator.predict import predict
from towtank.simulator.stacks.load import load_stack

PLAN = Plan(tensor_x=2, pipeline=2, data=2, global_batch=16, recompute="full")


@pytest.fixture(scope="module")
def task() -> TuningTask:
    return TuningTask(
        load_model("gpt-5b"), load_machine("selene:nodes=1"), load_stack("megatron-core"), 8, 16
    )


def test_the_best_neighbours_are_those_of_all_predictions(task: TuningTask) -> None:
    center = predict(task.model, task.machine, PLAN, stack=task.stack)
    told: list[tuple[int, int]] = []
    found = survey(task, PLAN, center, top=4, progress=lambda done, total: told.append((done, total)))
    every = neighbours(task.model, task.stack, PLAN)
    legal = [each.plan for each in every if not faults_of(task.model, task.machine, each.plan, task.stack, 8)]
    predictions = [predict(task.model, task.machine, plan, stack=task.stack) for plan in legal]
    times = sorted({each.step_time_s for each in predictions if each.fits})

    assert (found.neighbours, found.legal) == (len(every), len(legal))
    assert found.fit == sum(each.fits for each in predictions)
    assert 4 <= found.simulated <= found.fit
    assert [each.prediction.step_time_s for each in found.best] == times[:4]
    assert told[-1] == (found.fit, found.fit)


def test_what_more_memory_would_buy(task: TuningTask) -> None:
    # 10 billion parameters on eight devices of 40 GB: large micro-batches fit with recomputation only
    big = replace(task, model=load_model("gpt-10b"), machine=load_machine("perlmutter:nodes=2"))
    plan = replace(PLAN, tensor_x=4, data=1, zero_stage=1, micro_batch=8)
    center = predict(big.model, big.machine, plan, stack=big.stack)
    found = survey(big, plan, center)

    assert center.fits
    assert found.out_of_reach is not None
    assert not found.out_of_reach.prediction.fits
    assert found.out_of_reach.prediction.step_time_s < found.best[0].prediction.step_time_s


def test_an_illegal_plan_has_neighbours_too(task: TuningTask) -> None:
    illegal = replace(PLAN, micro_batch=16)
    found = survey(task, illegal, None)

    assert found.legal > 0
    assert found.best[0].change == "micro_batch 16 -> 8"


def test_groups_of_a_step_sum_to_it() -> None:
    rows = {
        "matmul": 5.0,
        "recompute": 1.0,
        "bubble": 2.0,
        "exposed send pipeline": 0.5,
        "exposed gradient reduction data": 1.0,
        "contention": 0.25,
        "idle": 0.15,
        "waiting for the slowest": 0.1,
    }
    found = limits_of(rows, Plan(data=2))

    assert [(each.name, round(each.share, 9)) for each in found] == [
        ("compute", 0.6),
        ("pipeline bubble", 0.2),
        ("exposed communication", 0.15),
        ("kernels slowed beside collectives", 0.025),
        ("waiting", 0.025),
    ]
    assert (found[2].largest, found[2].largest_share) == ("data-parallel all-reduce", 0.1)


def test_limits_of_a_prediction_sum_to_one(task: TuningTask) -> None:
    found = limits(predict(task.model, task.machine, PLAN, stack=task.stack))
    assert sum(each.share for each in found) == pytest.approx(1.0)
