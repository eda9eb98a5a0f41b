"""z as sharded data parallelism, layers of chunks, order of ranks and nodes."""

import pytest

from towtank.autotune.export.groups import group_lines, members
from towtank.autotune.export.layout import chunk_layers, layout_of, node_faults, nodes_of, order_faults
from towtank.simulator.plan import Plan


@pytest.mark.parametrize(
    ("fields", "zero_stage", "shard", "replicate"),
    [
        ({"data": 8}, 0, 1, 8),
        ({"data": 8, "zero_stage": 1}, 1, 8, 1),
        ({"data": 8, "zero_stage": 3, "data_shard": 2}, 3, 2, 4),
        ({"tensor_z": 4, "data": 8}, 3, 4, 8),  # z is the shard of HSDP, data its replicas
        ({"tensor_z": 4, "data": 8, "zero_stage": 3}, 3, 32, 1),
        ({"tensor_z": 4, "data": 8, "zero_stage": 3, "data_shard": 2}, 3, 8, 4),
        ({"tensor_z": 4, "zero_stage": 1}, 3, 4, 1),
    ],
)
def test_z_is_sharding_over_data(job, fields, zero_stage, shard, replicate):
    layout, faults = layout_of(job(stack="axonn", **fields))
    assert (layout.zero_stage, layout.shard, layout.replicate, faults) == (zero_stage, shard, replicate, [])


@pytest.mark.parametrize(
    ("fields", "phrase"),
    [
        ({"tensor_z": 4, "data": 8, "zero_stage": 1}, "states over data"),
        ({"tensor_z": 4, "context": 2}, "over context = 2 too"),
    ],
)
def test_what_only_z_can_say(job, fields, phrase):
    _, faults = layout_of(job(stack="axonn", **fields))
    assert len(faults) == 1 and phrase in faults[0]


def test_layers_of_chunks_are_those_of_the_prediction(job):
    # 126 layers on 16 stages: 8 each are 128, and head and embedding pay for the 2 too many
    assert chunk_layers(job("llama3.1-405b", pipeline=16)) == (7, *[8] * 14, 7)
    # chunk c of stage s is number 2 c + s
    assert chunk_layers(job("tiny-llama", pipeline=2, virtual_stages=2, stage_layers=(0, 1, 2, 1))) == (
        0,
        1,
        2,
        1,
    )


USUAL = ("tensor_x", "context", "tensor_z", "data", "pipeline")


def test_dimensions_of_one_lie_anywhere():
    plan = Plan(
        tensor_x=2, data=2, rank_order=("pipeline", "tensor_x", "tensor_y", "data", "context", "tensor_z")
    )
    assert order_faults(plan, "T", USUAL) == []


def test_another_order_of_ranks():
    plan = Plan(
        tensor_x=2, data=2, rank_order=("data", "tensor_x", "tensor_y", "context", "tensor_z", "pipeline")
    )
    (fault,) = order_faults(plan, "T", USUAL)
    assert "T numbers its ranks tensor_x < data" in fault
    assert "rank_order = [tensor_x, context, tensor_z, data, pipeline, tensor_y]" in fault
    assert order_faults(plan, "T", USUAL, ("data", "tensor_x")) == []


def test_nodes(job):
    assert nodes_of(job(data=24)) == (3, 8)
    assert nodes_of(job(data=4)) == (1, 4)
    assert node_faults(job(data=4)) == node_faults(job(data=24)) == []
    assert "12 devices do not fill nodes of 8" in node_faults(job(data=12))[0]


def test_members_of_groups(job):
    # x innermost, then context, data, pipeline: strides 1, 2, 4, 16
    made = job(tensor_x=2, context=2, data=4, pipeline=2, zero_stage=3, data_shard=2)
    assert members(made, "tensor_x") == [0, 1]
    assert members(made, "context") == [0, 2]
    assert members(made, "data") == [0, 2, 4, 6, 8, 10, 12, 14]
    assert members(made, "state_shard") == [0, 2, 4, 6]
    assert members(made, "replicate") == [0, 8]
    assert members(made, "pipeline") == [0, 16]


def test_groups_say_where_they_lie(job):
    lines = "\n".join(group_lines(job("mixtral-8x7b", tensor_x=2, sequence_parallel=True, expert=8, data=16)))
    assert "rank r is on node r // 8" in lines
    assert "tensor x: 2 ranks on one node, the first group: 0, 1\n" in lines
    assert "data (with context): 16 ranks on 4 nodes, 4 of them on each, the first group: 0, 2, 4" in lines
    assert "\nexpert: 8 ranks on one node" in lines
    assert "expert data: 4 ranks on 4 nodes, the first group: 0, 8, 16, 24" in lines
