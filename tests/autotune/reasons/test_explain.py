"""Why a plan lost."""

from dataclasses import replace

import pytest

from towtank.autotune.reasons import explain, reason_to_mapping
from towtank.autotune.task import TuningTask
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Plan
from towtank.simulator.predict import Prediction, predict
from towtank.simulator.stacks.load import load_stack

PLAN = Plan(tensor_x=4, pipeline=4, data=4, global_batch=64, sequence_parallel=True, zero_stage=1)


@pytest.fixture(scope="module")
def task() -> TuningTask:
    return TuningTask(
        load_model("gpt3-13b"), load_machine("selene:nodes=8"), load_stack("megatron-core"), 64, 64
    )


@pytest.fixture(scope="module")
def winner(task: TuningTask) -> Prediction:
    return predict(task.model, task.machine, PLAN, stack=task.stack)


def test_an_illegal_plan_names_every_rule_that_it_breaks(task: TuningTask, winner: Prediction) -> None:
    found = explain(task, replace(PLAN, tensor_x=3, data_shard=3), winner)

    assert found.verdict == "illegal"
    assert any("attention heads = 40 must be a multiple of tensor_x = 3" in rule for rule in found.rules)
    assert any("data_shard = 3 must divide data = 4" in rule for rule in found.rules)
    assert all(rule in found.text for rule in found.rules)


def test_a_plan_that_does_not_fit_says_by_how_much_and_where(task: TuningTask, winner: Prediction) -> None:
    plan = replace(PLAN, tensor_x=1, sequence_parallel=False, pipeline=1, data=64, zero_stage=0)
    found = explain(task, plan, winner)
    prediction = predict(task.model, task.machine, plan, stack=task.stack)

    assert found.verdict == "does not fit"
    assert found.missing_bytes == pytest.approx(
        prediction.peak_memory_bytes - prediction.memory_capacity_bytes, rel=1e-12
    )
    assert sum(found.parts_bytes.values()) == pytest.approx(prediction.peak_memory_bytes, rel=1e-12)
    # 13 billion parameters: 12 bytes each of fp32 master weight and two moments are the largest part
    assert next(iter(found.parts_bytes)) == "optimizer"
    missing = found.missing_bytes / 2**30
    assert found.text.startswith(f"does not fit by {missing:,.1f} GiB on stage 0: optimizer ")


def test_the_differences_of_a_slower_plan_sum_to_the_difference_of_the_steps(
    task: TuningTask, winner: Prediction
) -> None:
    plan = replace(PLAN, recompute="full")
    found = explain(task, plan, winner)
    slower = predict(task.model, task.machine, plan, stack=task.stack).step_time_s

    assert found.verdict == "slower"
    assert sum(found.difference_s.values()) == pytest.approx(slower - winner.step_time_s, rel=1e-9)
    assert found.text.startswith(f"{100 * (slower / winner.step_time_s - 1):.0f} % slower: recomputation +")


def test_the_winner_is_as_fast_as_itself(task: TuningTask, winner: Prediction) -> None:
    assert explain(task, PLAN, winner).text == "as fast"


def test_a_reason_as_plain_data_has_only_what_applies(task: TuningTask, winner: Prediction) -> None:
    illegal = reason_to_mapping(explain(task, replace(PLAN, tensor_x=3), winner))
    equal = reason_to_mapping(explain(task, PLAN, winner))

    assert illegal.keys() == {"verdict", "text", "rules"}
    assert equal.keys() == {"verdict", "text", "step_time_s", "difference_s"}
