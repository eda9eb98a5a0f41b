"""Plans one step away."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towtank.autotune.reasons.neighbours import change, neighbours, prime_factors
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Overlap, Plan
from towtank.simulator.stacks.load import load_stack

MODEL = load_model("gpt3-13b")
STACK = load_stack("megatron-core")
PLAN = Plan(tensor_x=4, pipeline=2, data=3, global_batch=24, sequence_parallel=True)

_DEGREE = st.sampled_from([1, 2, 3, 4, 6, 8])


@given(_DEGREE, _DEGREE, _DEGREE, st.sampled_from([1, 2]), st.sampled_from([0, 1, 3]))
def test_neighbours_occupy_the_same_devices_with_the_same_batch(
    tensor: int, data: int, pipeline: int, chunks: int, zero: int
) -> None:
    plan = Plan(
        tensor_x=tensor, data=data, pipeline=pipeline, virtual_stages=chunks, zero_stage=zero, global_batch=48
    )
    found = neighbours(MODEL, STACK, plan)

    assert {each.plan.num_devices for each in found} == {plan.num_devices}
    assert {each.plan.global_batch for each in found} == {48}
    assert len({each.plan for each in found} | {plan}) == len(found) + 1, "none twice, nor the plan itself"
    assert all(each.change for each in found)


def test_a_factor_moves_between_any_two_degrees() -> None:
    degrees = ("tensor_x", "tensor_y", "tensor_z", "context", "data", "pipeline")
    found = {tuple(getattr(each.plan, name) for name in degrees) for each in neighbours(MODEL, STACK, PLAN)}

    # donors tensor_x (2), data (3) and pipeline (2), five takers each, and the plan's own degrees
    assert len(found) == 3 * 5 + 1
    assert (2, 1, 1, 1, 3, 4) in found
    assert (12, 1, 1, 1, 1, 2) in found


def test_what_loses_its_meaning_goes() -> None:
    plan = Plan(
        tensor_x=2, pipeline=2, virtual_stages=2, data=2, data_shard=2, zero_stage=1, sequence_parallel=True
    )
    moved = {each.change: each.plan for each in neighbours(MODEL, STACK, plan)}

    alone = next(plan for plan in moved.values() if plan.pipeline == 1)
    assert (alone.virtual_stages, alone.schedule_name) == (1, "1f1b")
    assert not next(plan for plan in moved.values() if plan.tensor_x == 1).sequence_parallel
    assert next(plan for plan in moved.values() if plan.data == 4).data_shard == 4


def test_switches_flip_what_is_in_force() -> None:
    changes = {each.change for each in neighbours(MODEL, STACK, PLAN)}

    # the stack overlaps gradients by itself and tensor collectives not
    assert {"overlap.data_gradients on -> off", "overlap.tensor off -> on"} <= changes
    assert {"sequence_parallel on -> off", "zero_stage 0 -> 1", "recompute none -> full"} <= changes
    assert {"micro_batch 1 -> 2", "virtual_stages 1 -> 2", "schedule 1f1b -> gpipe"} <= changes
    assert not any(text.startswith("expert") for text in changes), "the model has no experts"
    assert "rank_order tensor_y tensor_x context tensor_z data pipeline -> " in " ".join(changes)


def test_a_plan_with_a_zero_has_no_neighbours() -> None:
    assert neighbours(MODEL, STACK, Plan(tensor_x=0)) == []


def test_a_change_names_what_is_in_force() -> None:
    one = Plan(data=4, zero_stage=1, overlap=Overlap(data_gradients=True))
    other = Plan(data=4, zero_stage=1, data_shard=4)

    assert change(one, other, STACK) == ""
    assert change(one, Plan(data=4, zero_stage=1, data_shard=2), STACK) == "data_shard all -> 2"


@pytest.mark.parametrize(("value", "factors"), [(1, []), (2, [2]), (360, [2, 3, 5]), (97, [97]), (4, [2])])
def test_prime_factors(value: int, factors: list[int]) -> None:
    assert prime_factors(value) == factors
