"""Constraints that a plan breaks."""

from dataclasses import replace

from towtank.autotune.constraints import Constraints
from towtank.autotune.reasons.constraints import broken_constraints
from towtank.autotune.task import TuningTask
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Overlap, Plan
from towtank.simulator.stacks.load import load_stack

TASK = TuningTask(load_model("gpt-5b"), load_machine("selene:nodes=1"), load_stack("megatron-core"), 8, 16)


def test_constraints_that_are_broken_are_told() -> None:
    constraints = Constraints(fixed={"tensor_x": (2, 4)}, least={"data": 2}, most={"pipeline": 4})
    plan = Plan(tensor_x=1, pipeline=8, global_batch=16)

    assert broken_constraints(plan, replace(TASK, constraints=constraints)) == [
        "tensor_x = 1, but it is fixed to 2 or 4",
        "data = 1, but it must be 2 or more",
        "pipeline = 8, but it must be 4 or less",
    ]


def test_what_is_in_force_counts_and_not_what_is_written() -> None:
    # Megatron-Core overlaps gradients by itself, and an unset data_shard is all of data
    fixed = {"overlap.data_gradients": (True,), "data_shard": (8,), "schedule": ("1f1b",)}
    plan = Plan(data=8, zero_stage=1, global_batch=16)

    assert broken_constraints(plan, replace(TASK, constraints=Constraints(fixed=fixed))) == []
    off = Constraints(fixed={"overlap.data_gradients": (False,)})
    assert broken_constraints(plan, replace(TASK, constraints=off)) == [
        "overlap.data_gradients = True, but it is fixed to False"
    ]


def test_none_asks_for_what_a_plan_does_not_say() -> None:
    default = replace(TASK, constraints=Constraints(fixed={"overlap.tensor": (None,), "data_shard": (None,)}))
    plan = Plan(data=8, zero_stage=1, global_batch=16)

    assert broken_constraints(plan, default) == []
    said = replace(plan, overlap=Overlap(tensor=True), data_shard=4)
    assert broken_constraints(said, default) == [
        "overlap.tensor = True, but it is fixed to None",
        "data_shard = 4, but it is fixed to None",
    ]
