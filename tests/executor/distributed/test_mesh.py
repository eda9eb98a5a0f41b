"""Groups of a mesh by hand, and against the sizes that the simulator counts with."""

from hypothesis import given, settings
from hypothesis import strategies as st

from towtank.executor.distributed.mesh import GROUPS, Mesh, groups_of, one_dimension, ranks_of
from towtank.simulator.groups import group_size
from towtank.simulator.plan import DEFAULT_RANK_ORDER, Dimension, Plan


def test_groups_by_hand() -> None:
    # rank = y + 2 x + 4 z + 8 data: of rank 13 = 0b1101 these are 1, 0, 1, 1
    plan = Plan(tensor_x=2, tensor_y=2, tensor_z=2, data=2, zero_stage=3, global_batch=4)
    assert ranks_of(plan, "tensor_y", 13) == (12, 13)
    assert ranks_of(plan, "tensor_x", 13) == (13, 15)
    assert ranks_of(plan, "tensor_xy", 13) == (12, 13, 14, 15)
    assert ranks_of(plan, "tensor_z", 13) == (9, 13)
    assert ranks_of(plan, "data", 13) == (5, 13)
    assert ranks_of(plan, "weight_shard", 13) == (1, 5, 9, 13)
    assert ranks_of(plan, "replicate", 13) == (13,)


def test_shards_and_replicas_of_hybrid_sharding() -> None:
    plan = Plan(data=4, data_shard=2, zero_stage=1, global_batch=4)
    assert [ranks_of(plan, "state_shard", rank) for rank in (0, 3)] == [(0, 1), (2, 3)]
    assert [ranks_of(plan, "replicate", rank) for rank in (0, 3)] == [(0, 2), (1, 3)]


def test_ends_are_the_first_and_the_last_stage() -> None:
    order: tuple[Dimension, ...] = ("pipeline", "tensor_y", "tensor_x", "context", "tensor_z", "data")
    plan = Plan(pipeline=4, data=2, global_batch=8, rank_order=order)
    assert [ranks_of(plan, "ends", rank) for rank in (0, 1, 3, 4, 7)] == [
        (0, 3),
        (1,),
        (0, 3),
        (4, 7),
        (4, 7),
    ]


def test_groups_along_one_dimension() -> None:
    plan = Plan(tensor_x=2, tensor_z=2, context=2, data=2, pipeline=4, zero_stage=1, global_batch=16)
    found = {name: one_dimension(plan, name) for name in GROUPS}
    alone = {"tensor_x", "tensor_xy", "tensor_z", "context", "pipeline", "weight_shard"}
    assert {name for name, dimension in found.items() if dimension is not None} == alone | {"expert_shard"}
    assert (found["tensor_xy"], found["weight_shard"]) == ("tensor_x", "tensor_z")
    # over data and context together, at two of four stages, and of one member
    assert (found["data"], found["ends"], found["tensor_y"]) == (None, None, None)


def test_alone_every_group_is_this_process() -> None:
    mesh = Mesh(Plan())
    assert {mesh.group(name).ranks for name in GROUPS} == {(0,)}
    assert all(mesh.group(name).process_group is None for name in GROUPS)


@settings(max_examples=25)
@given(
    x=st.integers(1, 3),
    y=st.integers(1, 2),
    z=st.integers(1, 2),
    data=st.integers(1, 2),
    pipeline=st.integers(1, 3),
    context=st.integers(1, 2),
    zero=st.integers(0, 3),
    order=st.permutations(DEFAULT_RANK_ORDER),
)
def test_groups_of_a_name_part_the_devices(
    x: int, y: int, z: int, data: int, pipeline: int, context: int, zero: int, order: list[Dimension]
) -> None:
    plan = Plan(
        tensor_x=x,
        tensor_y=y,
        tensor_z=z,
        data=data,
        pipeline=pipeline,
        context=context,
        zero_stage=zero,
        rank_order=tuple(order),
    )
    for name in ("tensor_xy", "data", "weight_shard", "state_shard", "replicate", "pipeline", "world"):
        groups = {ranks_of(plan, name, rank) for rank in range(plan.num_devices)}
        assert groups_of(plan, name) == sorted(groups)
        assert {len(ranks) for ranks in groups} == {group_size(plan, name)}
        assert sorted(rank for ranks in groups for rank in ranks) == list(range(plan.num_devices))
    for name in GROUPS:
        dimension = one_dimension(plan, name)
        if dimension is not None:
            apart = {
                rank // plan.stride(dimension) % plan.degree(dimension) for rank in ranks_of(plan, name, 0)
            }
            assert apart == set(range(plan.degree(dimension)))
            assert len(ranks_of(plan, name, 0)) == plan.degree(dimension)
