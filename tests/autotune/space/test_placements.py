"""Placements in columns are those of single plans."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from towtank.autotune.space.canonical import row_of
from towtank.autotune.space.placements import local_members, same, signature, strides
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.groups import dimensions, place
from towtank.simulator.plan import DEFAULT_RANK_ORDER, Plan

DEGREE = st.sampled_from([1, 1, 2, 3, 4, 5, 8])
GROUPS = (
    "tensor_x",
    "tensor_xy",
    "context",
    "data",
    "world",
    "weight_shard",
    "state_shard",
    "replicate",
    "ends",
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    degrees = {name: draw(DEGREE) for name in DEFAULT_RANK_ORDER}
    order = tuple(draw(st.permutations(DEFAULT_RANK_ORDER)))
    return Plan(**degrees, zero_stage=draw(st.sampled_from([0, 1, 3])), rank_order=order)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(plans(), st.sampled_from([4, 8, 6]))
def test_members_in_a_node_are_those_of_the_scalar_rule(plan: Plan, node: int) -> None:
    for group in GROUPS:
        parts = [tuple(np.array([max(1, each)]) for each in part) for part in dimensions(plan, group)]
        assert local_members(parts, node, plan.num_devices)[0] == place(plan, group, node).local


@given(plans())
def test_strides_are_those_of_the_plan(plan: Plan) -> None:
    at = strides(row_of(plan), plan.rank_order)
    assert {name: int(each[0]) for name, each in at.items()} == {name: plan.stride(name) for name in at}


def test_orders_of_groups_that_all_leave_the_node_are_one() -> None:
    # nodes of 8 devices hold the tensor ranks: whether data or stages come next places no group otherwise
    machine = load_machine("selene")
    row = row_of(Plan(tensor_x=8, data=4, pipeline=4))
    inside = ("tensor_y", "tensor_x", "context", "pipeline", "tensor_z", "data")
    assert same(*(signature(row, order, machine, 128) for order in (DEFAULT_RANK_ORDER, inside)))[0]
    # with 4 of them the other half of the node holds data ranks or stages
    row = row_of(Plan(tensor_x=4, data=4, pipeline=4))
    assert not same(*(signature(row, order, machine, 64) for order in (DEFAULT_RANK_ORDER, inside)))[0]


def test_slower_links_between_groups_of_the_network_tell_orders_apart() -> None:
    machine = load_machine("selene")
    network = replace(machine.network, group_nodes=4, group_crossing=0.5)
    row = row_of(Plan(tensor_x=8, data=4, pipeline=4))
    inside = ("tensor_y", "tensor_x", "context", "pipeline", "tensor_z", "data")
    orders = (DEFAULT_RANK_ORDER, inside)
    # the four neighbours, data ranks or stages, lie in one group of the network
    assert not same(*(signature(row, order, replace(machine, network=network), 128) for order in orders))[0]
