"""Quantities that a plan implies, by hand."""

import pytest

from towtank.simulator.plan import Plan


def test_devices_and_micro_batches():
    plan = Plan(
        tensor_x=2, tensor_y=3, tensor_z=5, data=7, pipeline=11, context=13, micro_batch=2, global_batch=700
    )
    assert plan.num_devices == 2 * 3 * 5 * 7 * 11 * 13
    assert plan.num_micro_batches == 700 // (2 * 7 * 5)


def test_strides_follow_the_rank_order():
    plan = Plan(tensor_y=2, tensor_x=3, context=5, tensor_z=7, data=11, pipeline=13)
    strides = [plan.stride(name) for name in plan.rank_order]
    assert strides == [1, 2, 6, 30, 210, 2310]
    turned = Plan(tensor_y=2, tensor_x=3, rank_order=tuple(reversed(plan.rank_order)))
    assert (turned.stride("tensor_x"), turned.stride("tensor_y")) == (1, 3)


@pytest.mark.parametrize(
    "fields, shards, states, replicas",
    [
        ({"data": 8}, 1, 1, 8),
        ({"data": 8, "zero_stage": 1}, 1, 8, 1),
        ({"data": 8, "zero_stage": 1, "context": 2}, 1, 16, 1),
        ({"data": 8, "zero_stage": 3}, 8, 8, 1),
        ({"data": 8, "zero_stage": 3, "context": 2}, 16, 16, 1),
        ({"data": 8, "zero_stage": 3, "data_shard": 4}, 4, 4, 2),
        ({"data": 8, "tensor_z": 4}, 4, 4, 8),
        ({"data": 8, "tensor_z": 4, "zero_stage": 1}, 4, 32, 1),
    ],
)
def test_shards(fields, shards, states, replicas):
    plan = Plan(**fields)
    assert (plan.weight_shards, plan.state_shards, plan.replicate_degree) == (shards, states, replicas)


def test_virtual_stages_choose_the_interleaved_schedule():
    assert Plan().schedule_name == "1f1b"
    assert Plan(virtual_stages=2).schedule_name == "interleaved"
    assert Plan(schedule="gpipe").schedule_name == "gpipe"
