"""Groups of routed experts, worked out by hand."""

from towtank.simulator.groups import (
    dimensions,
    expert_mapped,
    expert_state_shards,
    expert_weight_shards,
    group_size,
)
from towtank.simulator.plan import Plan


def test_without_the_mapping_experts_are_held_like_other_weights() -> None:
    plan = Plan(tensor_x=2, tensor_z=2, data=2, zero_stage=1, global_batch=4)
    assert not expert_mapped(plan)
    assert (expert_weight_shards(plan), expert_state_shards(plan)) == (2, 4)


def test_features_of_experts_over_members_of_z() -> None:
    # the two members of z hold different features of every expert, so nothing is left to shard between them
    plan = Plan(tensor_z=2, expert_tensor=2, global_batch=2)
    assert expert_mapped(plan)
    assert expert_weight_shards(plan) == 1
    assert dimensions(plan, "expert_tensor") == [(2, 1)]
    assert group_size(plan, "expert_replicate") == 1


def test_features_over_two_of_four_members_of_z() -> None:
    # of four devices two hold the same features: shards of each other
    plan = Plan(tensor_z=4, expert_tensor=2, global_batch=4)
    assert expert_weight_shards(plan) == 2
    assert dimensions(plan, "expert_shard") == [(2, 2)]
    assert group_size(plan, "expert_replicate") == 1


def test_shards_and_replicas_make_up_the_copies() -> None:
    plan = Plan(tensor_x=2, tensor_z=2, data=2, sequence_parallel=True, expert=2, global_batch=4)
    assert group_size(plan, "expert_data") == 4
    assert group_size(plan, "expert_shard") * group_size(plan, "expert_replicate") == 4
