"""Placement of groups on nodes, and the bandwidth that follows, by hand."""

import pytest

from towtank.hardware_profiles.errors import UnknownFigure
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.axonn.bandwidth import bandwidth
from towtank.simulator.cost.links import (
    LL128_EFFICIENCY,
    MESH_EFFICIENCY,
    inside_bandwidth,
    links_of,
    network_bandwidth,
    tensor_links,
)
from towtank.simulator.groups import Placement, group_size, place
from towtank.simulator.plan import Plan


@pytest.mark.parametrize(
    "plan, group, node, expected",
    [
        # neighbours in one node of four
        (Plan(tensor_x=4, data=2), "tensor_x", 4, Placement(4, 4, 1, 1)),
        # 4 siblings of data leave each node of four, one member of each group there
        (Plan(tensor_x=4, data=8), "data", 4, Placement(8, 1, 4, 4)),
        # x = 2, y = 2 fill a node; z = 8 leaves it with 4 rings beside each other
        (Plan(tensor_x=2, tensor_y=2, tensor_z=8, data=2), "weight_shard", 4, Placement(8, 1, 4, 4)),
        # y = 2 inside: z = 4 has two members in each node, two sibling rings
        (Plan(tensor_y=2, tensor_z=4), "weight_shard", 4, Placement(4, 2, 2, 2)),
        # one group fills all nodes: nobody to share with
        (Plan(data=16, zero_stage=3), "weight_shard", 8, Placement(16, 8, 1, 1)),
        # ZeRO 3 with context 2: shards over both, 16 devices
        (Plan(data=8, context=2, zero_stage=3), "weight_shard", 8, Placement(16, 8, 1, 1)),
        # x wider than a node
        (Plan(tensor_x=16), "tensor_x", 8, Placement(16, 8, 1, 1)),
        # a group of 4 on nodes of 6: the second one has two members in each of two nodes
        (Plan(tensor_x=4, data=3), "tensor_x", 6, Placement(4, 2, 3, 1)),
        # a plan smaller than a node
        (Plan(tensor_x=2, data=2), "data", 8, Placement(2, 2, 2, 2)),
        # neighbours in a pipeline of 4 stages of 8 devices
        (Plan(tensor_x=8, pipeline=4, global_batch=1), "pipeline", 8, Placement(4, 1, 8, 8)),
        # first and last stage
        (Plan(tensor_x=8, pipeline=4), "ends", 8, Placement(2, 1, 8, 24)),
        # experts of neighbouring ranks, whatever the tensor group
        (Plan(tensor_x=2, data=8, expert=8), "expert", 8, Placement(8, 8, 1, 1)),
        (Plan(tensor_x=2, data=8, expert=8), "expert_data", 8, Placement(2, 1, 8, 8)),
        # replicas of HSDP: 2 copies of 4 shards
        (Plan(data=8, data_shard=4, zero_stage=3), "replicate", 4, Placement(2, 1, 4, 4)),
    ],
)
def test_placement(plan, group, node, expected):
    assert place(plan, group, node) == expected


def test_rank_order_decides_what_is_inside_a_node():
    inner = ("tensor_z", "tensor_y", "tensor_x", "context", "data", "pipeline")
    plan = Plan(tensor_z=4, tensor_x=4, rank_order=inner)
    assert place(plan, "weight_shard", 4).nodes == 1
    assert place(plan, "tensor_x", 4) == Placement(4, 1, 4, 4)


def test_expert_groups_tile_the_stage():
    plan = Plan(tensor_x=2, data=16, expert=4, expert_tensor=2, pipeline=2)
    sizes = [group_size(plan, name) for name in ("expert_tensor", "expert", "expert_data", "pipeline")]
    assert sizes == [2, 4, 4, 2]


@pytest.mark.parametrize("preceding, own, sharers", [(1, 8, 1), (2, 4, 2), (2, 8, 2), (4, 4, 4), (8, 4, 4)])
def test_rings_over_nodes_share_the_network_as_axonn_says(preceding, own, sharers):
    # beta = beta_inter / min(G_node, product of inner groups); Perlmutter: 100 GB/s a node, of which 80 measured
    machine = load_machine("perlmutter")
    plan = Plan(tensor_y=preceding, tensor_z=own)
    placement = place(plan, "weight_shard", machine.node.devices)
    assert placement.sharers == sharers
    links = links_of(machine, placement)[0]
    expected = 100e9 * machine.network.efficiency / sharers
    assert links.ring_bandwidth_bytes_per_s == pytest.approx(expected)
    theory = bandwidth(machine, preceding, own, "theoretical")
    assert links.ring_bandwidth_bytes_per_s == pytest.approx(theory * machine.network.efficiency)


def test_inside_a_node_the_measured_table_comes_first():
    machine = load_machine("perlmutter")
    assert inside_bandwidth(machine, 2, 1) == 76e9
    assert inside_bandwidth(machine, 4, 1) == 225e9
    assert inside_bandwidth(machine, 1, 1) == float("inf")


def test_efficiency_of_the_stack_scales_the_network():
    machine = load_machine("perlmutter")
    assert network_bandwidth(machine, 0.5) == pytest.approx(network_bandwidth(machine, 1.0) / 2)


def test_two_protocols_trade_bandwidth_for_latency():
    machine = load_machine("selene")
    links = links_of(machine, Placement(16, 8, 1, 1))
    assert len(links) == 2
    simple, ll128 = links
    assert ll128.latency_between_s < simple.latency_between_s
    assert ll128.ring_bandwidth_bytes_per_s == pytest.approx(
        LL128_EFFICIENCY * simple.ring_bandwidth_bytes_per_s
    )


def test_a_missing_figure_is_named():
    from dataclasses import replace

    machine = load_machine("perlmutter")
    blind = replace(machine, node=replace(machine.node, injection_bytes_per_s=None))
    with pytest.raises(UnknownFigure, match=r"node\.injection"):
        links_of(blind, Placement(8, 1, 4, 4))


def test_a_ring_that_leaves_its_group_gets_what_is_left_of_the_network():
    # JUPITER: groups of 240 nodes of four devices. Data parallel 240 x 4 fills one, twice as many leave it.
    machine = load_machine("jupiter-booster")
    left = machine.network.group_crossing
    assert (machine.network.group_nodes, left) == (240, 0.75)
    inside, outside = (links_of(machine, Placement(nodes, 1, 4, 4))[0] for nodes in (240, 241))
    assert outside.ring_bandwidth_bytes_per_s == pytest.approx(left * inside.ring_bandwidth_bytes_per_s)
    assert outside.device_share_bytes_per_s == pytest.approx(left * inside.device_share_bytes_per_s)
    # neighbours of a pipeline that lie far apart
    assert Placement(4, 1, 4, 1024).reach(4) == 1024


@pytest.mark.parametrize(
    ("reach", "nodes", "part"),
    [
        (128, 240, 1.0),  # the job lies in one group
        (128, 512, 0.75),  # nodes 128 to 255 straddle node 240
        (120, 480, 1.0),  # 240 is a multiple of 120
        (64, 256, 0.75),  # nodes 192 to 255 do, 16 of them in the next group
        (480, 480, 0.75),
    ],
)
def test_of_the_groups_of_a_job_the_one_that_straddles_counts(reach: int, nodes: int, part: float):
    machine = load_machine("jupiter-booster")
    alone = links_of(machine, Placement(reach, 1, 4, 4), num_devices=4 * min(reach, 240))[0]
    found = links_of(machine, Placement(reach, 1, 4, 4), num_devices=4 * nodes)[0]
    whole = alone.ring_bandwidth_bytes_per_s if reach <= 240 else 0.85 * 25e9
    assert found.ring_bandwidth_bytes_per_s == pytest.approx(part * whole)


def test_a_network_without_a_figure_for_its_groups_loses_nothing():
    machine = load_machine("frontier")
    assert machine.network.group_crossing is None
    pair = [
        links_of(machine, Placement(nodes, 1, 8, 8))[0].ring_bandwidth_bytes_per_s for nodes in (128, 1000)
    ]
    assert pair[0] == pair[1]


def test_odd_groups_of_aurora_pass_through_the_host():
    machine = load_machine("aurora:nodes=2")
    assert machine.node.staged_bandwidth_bytes_per_s == pytest.approx(1.1e9)

    def rate(size):
        return links_of(machine, Placement(size, size, 12 // size, 1))[0].ring_bandwidth_bytes_per_s

    assert rate(3) == pytest.approx(1.1e9)
    assert rate(6) == rate(4) > 5 * rate(3)


def test_collectives_of_aurora_use_links_of_both_tiles():
    machine = load_machine("aurora:nodes=2")

    def rate(size, stride):
        return links_of(machine, Placement(size, size, 1, stride))[0].ring_bandwidth_bytes_per_s

    assert rate(12, 1) == rate(6, 2) == pytest.approx(25e9)
    assert rate(2, 1) == pytest.approx(MESH_EFFICIENCY * 185e9)


def test_tensor_collectives_of_aurora_are_slow_whatever_the_links():
    machine = load_machine("aurora:nodes=2")
    for size in (2, 4, 6, 12):
        (link,) = tensor_links(machine, links_of(machine, Placement(size, size, 12 // size, 1)))
        assert link.ring_bandwidth_bytes_per_s == link.inside_bandwidth_bytes_per_s == pytest.approx(7.4e9)
    other = load_machine("perlmutter:nodes=2")
    links = links_of(other, Placement(4, 4, 1, 1))
    assert tensor_links(other, links) is links
