"""Plans beside the best one that could not be taken."""

from dataclasses import replace

from towtank.autotune.constraints import Constraints
from towtank.autotune.reasons.near_misses import near_misses
from towtank.autotune.task import TuningTask
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Plan
from towtank.simulator.plan_rules import faults_of
from towtank.simulator.predict import predict
from towtank.simulator.stacks.load import load_stack

# 10 billion parameters on eight devices of 40 GB: large micro-batches fit with recomputation only
TASK = TuningTask(
    load_model("gpt-10b"), load_machine("perlmutter:nodes=2"), load_stack("megatron-core"), 8, 16
)
PLAN = Plan(tensor_x=4, pipeline=2, zero_stage=1, global_batch=16, micro_batch=8, recompute="full")


def test_each_is_one_step_away_and_says_what_it_breaks_or_lacks() -> None:
    winner = predict(TASK.model, TASK.machine, PLAN, stack=TASK.stack)
    found = near_misses(TASK, winner)
    large = [each for each in found if each.reason.verdict == "does not fit"]
    illegal = [each for each in found if each.reason.verdict == "illegal"]

    assert winner.fits and len(large) == 1 and len(illegal) == 2
    prediction = predict(TASK.model, TASK.machine, large[0].plan, stack=TASK.stack)
    assert large[0].step_time_s == prediction.step_time_s < winner.step_time_s
    assert (
        large[0].reason.missing_bytes == prediction.peak_memory_bytes - prediction.memory_capacity_bytes > 0
    )
    assert f"on stage {prediction.peak_stage.stage}" in large[0].reason.text
    for each in illegal:
        faults = faults_of(TASK.model, TASK.machine, each.plan, TASK.stack, TASK.devices)
        assert faults == [each.reason.text] and each.step_time_s is None
    assert illegal[0].reason.text != illegal[1].reason.text


def test_what_constraints_exclude_is_no_near_miss() -> None:
    winner = predict(TASK.model, TASK.machine, PLAN, stack=TASK.stack)
    assert any(each.plan.pipeline != PLAN.pipeline for each in near_misses(TASK, winner))
    bound = replace(TASK, constraints=Constraints(fixed={"pipeline": (PLAN.pipeline,)}))
    assert all(each.plan.pipeline == PLAN.pipeline for each in near_misses(bound, winner))
