"""Topologies: sizes, capacities and routes by hand."""

import numpy as np
import pytest

from towtank.simulator.network.dragonfly import DragonflyShape, dragonfly
from towtank.simulator.network.dragonfly_plus import DragonflyPlusShape, dragonfly_plus
from towtank.simulator.network.fairness import max_min_rates
from towtank.simulator.network.fat_tree import FatTreeShape, RailShape, fat_tree, rail_fat_tree
from towtank.simulator.network.topology import Topology, host_bridge, linked, mesh, switch

FRONTIER = DragonflyShape(
    groups=77,
    switches=32,
    endpoints_per_switch=16,
    cables=4,
    link_bytes_per_s=25e9,
    endpoint_bytes_per_s=25e9,
)
SMALL = DragonflyShape(
    groups=5, switches=4, endpoints_per_switch=2, cables=2, link_bytes_per_s=10.0, endpoint_bytes_per_s=10.0
)


def path(topology: Topology, src: int, dst: int, **options: float) -> dict[str, float]:
    """Sum of shares by tier of link."""
    routes = topology.routes(np.array([src]), np.array([dst]), **options)
    found: dict[str, float] = {}
    for link, share in zip(routes.link, routes.share, strict=True):
        tier = topology.tiers[topology.tier[link]]
        found[tier] = found.get(tier, 0.0) + float(share)
    return found


def slowest(topology: Topology, src: np.ndarray, dst: np.ndarray, **options: float) -> float:
    routes = topology.routes(src, dst, **options)
    return float(max_min_rates(topology.capacity_bytes_per_s, routes).min())


def test_frontier_taper_is_that_of_its_cables() -> None:
    # 76 other groups x 4 cables x 200 Gbit/s = 60.8 Tbit/s of 512 x 200 = 102.4 Tbit/s
    assert FRONTIER.taper == pytest.approx(60.8 / 102.4)
    assert FRONTIER.num_endpoints == 77 * 128 * 4


def test_dragonfly_minimal_hops() -> None:
    topology = dragonfly(SMALL)
    assert path(topology, 0, 0) == {}
    assert path(topology, 0, 1) == {"injection": 1, "ejection": 1}
    assert path(topology, 0, 2) == {"injection": 1, "local": 1, "ejection": 1}
    # group 0 to 1: cables at switches 2 and 3 of group 0, at 0 and 1 of group 1; endpoint 8 is at switch 0 there
    assert path(topology, 0, 8) == {"injection": 1, "local": 1.5, "global": 1, "ejection": 1}


def test_dragonfly_detours_cross_two_pairs_of_groups() -> None:
    topology = dragonfly(SMALL)
    assert path(topology, 0, 8, nonminimal_share=1.0)["global"] == pytest.approx(2)
    assert path(topology, 0, 8, nonminimal_share=0.25)["global"] == pytest.approx(1.25)
    assert path(topology, 0, 2, nonminimal_share=1.0).get("global", 0.0) == 0.0


def test_neighbour_group_traffic_is_bound_by_one_pair_of_groups_and_freed_by_detours() -> None:
    # all 8 endpoints of each group send to the next group over 2 cables of 10: 2.5 each. With half over detours the
    # direct cables carry 4 flows' worth (5 each at most) and the links between gateways inside groups bind
    topology = dragonfly(SMALL)
    src = np.arange(SMALL.num_endpoints)
    dst = (src + 8) % SMALL.num_endpoints
    assert slowest(topology, src, dst) == pytest.approx(2.5)
    assert slowest(topology, src, dst, nonminimal_share=0.5) >= 2.9


def test_dragonfly_links_belong_to_the_right_groups() -> None:
    topology = dragonfly(SMALL)
    routes = topology.routes(np.repeat(np.arange(40), 40), np.tile(np.arange(40), 40), nonminimal_share=0.3)
    load = routes.load(topology.num_links)
    table = load[-25:].reshape(5, 5)
    assert np.diag(table) == pytest.approx(np.zeros(5))
    # 64 flows a pair of groups directly at 0.7, and 20 pairs with detours of two hops over 20 links
    assert table.sum() == pytest.approx(20 * 64 * (0.7 + 0.3 * 2))
    assert (table[~np.eye(5, dtype=bool)] > 64 * 0.7).all()


def test_fat_tree_hops_and_oversubscription() -> None:
    shape = FatTreeShape((4, 3), (1, 2), (10.0, 10.0))
    assert shape.num_endpoints == 12 and shape.oversubscription(0) == 2
    for routing in ("spread", "d-mod-k"):
        topology = fat_tree(shape, routing)
        assert path(topology, 0, 3) == {"up 1": 1, "down 1": 1}
        assert path(topology, 0, 4) == {"up 1": 1, "down 1": 1, "up 2": 1, "down 2": 1}
        # all four of a leaf leave it over two links
        src = np.arange(12)
        assert slowest(topology, src, (src + 4) % 12) == pytest.approx(5)


def test_static_routes_collide_where_spread_ones_do_not() -> None:
    shape = FatTreeShape((2, 2), (1, 2), (10.0, 10.0))
    # both endpoints of leaf 0 send to endpoint 2 and 2 + 2 k ... : destinations with one residue share a link up
    wide = FatTreeShape((2, 4), (1, 2), (10.0, 10.0))
    src, dst = np.array([0, 1]), np.array([2, 4])
    assert slowest(fat_tree(wide, "d-mod-k"), src, dst) == pytest.approx(5)
    assert slowest(fat_tree(wide, "spread"), src, dst) == pytest.approx(10)
    assert fat_tree(shape).num_links == 2 * 4 + 2 * 2


def test_d_mod_k_is_free_of_conflicts_for_shifts() -> None:
    # Zahavi 2010: shift permutations do not block on a full tree of three levels
    topology = fat_tree(FatTreeShape((4, 4, 4), (1, 4, 4), (1.0, 1.0, 1.0)), "d-mod-k")
    src = np.arange(64)
    for shift in range(1, 64):
        assert slowest(topology, src, (src + shift) % 64) == pytest.approx(1)


def test_rails_meet_at_one_leaf() -> None:
    shape = RailShape(units=2, unit_nodes=4, rails=8, endpoint_bytes_per_s=50e9)
    topology = rail_fat_tree(shape)
    assert path(topology, 0, 8) == {"injection": 1, "ejection": 1}
    assert path(topology, 0, 1) == {"injection": 1, "ejection": 1, "leaf up": 1, "leaf down": 1}
    far = path(topology, 0, 32)
    assert far == dict.fromkeys(("injection", "ejection", "leaf up", "leaf down", "unit up", "unit down"), 1)
    tapered = RailShape(units=2, unit_nodes=4, rails=8, endpoint_bytes_per_s=50e9, unit_taper=0.5)
    src = np.arange(64)
    assert slowest(rail_fat_tree(tapered), src, (src + 32) % 64) == pytest.approx(25e9)


def test_dragonfly_plus_hops() -> None:
    shape = DragonflyPlusShape(
        groups=4,
        leaves=3,
        endpoints_per_leaf=2,
        endpoint_bytes_per_s=10.0,
        spine_bytes_per_s=20.0,
        group_bytes_per_s=15.0,
    )
    topology = dragonfly_plus(shape)
    assert shape.taper == pytest.approx(45 / 60)
    assert path(topology, 0, 1) == {"injection": 1, "ejection": 1}
    assert path(topology, 0, 2) == {"injection": 1, "ejection": 1, "leaf up": 1, "leaf down": 1}
    assert path(topology, 0, 6)["global"] == 1
    assert path(topology, 0, 6, nonminimal_share=1.0)["global"] == pytest.approx(2)
    src = np.arange(24)
    # six endpoints share 15
    assert slowest(topology, src, (src + 6) % 24) == pytest.approx(2.5)


def test_inside_a_node() -> None:
    everyone = np.arange(4)
    assert slowest(switch(4, 450.0, 1e-6), everyone, (everyone + 1) % 4) == pytest.approx(450)
    # two flows into one device
    assert slowest(switch(4, 450.0, 1e-6), np.array([0, 1]), np.array([2, 2])) == pytest.approx(225)
    assert slowest(mesh(4, 100.0, 1e-6), np.array([0, 1]), np.array([2, 2])) == pytest.approx(100)
    pcie = host_bridge(4, 25.0, 20.0, 1e-6)
    # devices 0 and 1 are on one socket: a ring crosses the bridge once each way
    assert slowest(pcie, everyone, (everyone + 1) % 4) == pytest.approx(20)
    assert slowest(pcie, np.array([0, 1]), np.array([2, 3])) == pytest.approx(10)
    assert pcie.latency_of(pcie.routes(np.array([0]), np.array([3]))) == pytest.approx([1e-6])


def test_unequal_links_take_the_fewest_hops_and_then_the_widest() -> None:
    # a square with one wide side path: 0-1 (4), 1-3 (4), 0-2 (1), 2-3 (1); 0 to 3 goes over 1
    table = {(0, 1): 4.0, (1, 3): 4.0, (0, 2): 1.0, (2, 3): 1.0}
    topology = linked(4, table, 1e-6)
    assert slowest(topology, np.array([0]), np.array([3])) == pytest.approx(4)
    assert slowest(topology, np.array([3]), np.array([2])) == pytest.approx(1)
    even = linked(4, dict.fromkeys(table, 1.0), 1e-6)
    # over both sides at once
    assert slowest(even, np.array([0]), np.array([3])) == pytest.approx(2)
    assert even.latency_of(even.routes(np.array([0]), np.array([3]))) == pytest.approx([2e-6])
    with pytest.raises(ValueError, match="no links join 0 and 2"):
        linked(3, {(0, 1): 1.0}, 0.0)


def test_endpoints_outside_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 4\)"):
        switch(4, 1.0, 0.0).routes(np.array([4]), np.array([0]))
    with pytest.raises(ValueError, match="nonminimal_share"):
        switch(4, 1.0, 0.0).routes(np.array([1]), np.array([0]), nonminimal_share=1.5)


def test_a_shift_over_the_whole_of_frontier_is_solved_in_rounds() -> None:
    topology = dragonfly(FRONTIER)
    src = np.arange(32 * 512)
    rate = max_min_rates(
        topology.capacity_bytes_per_s, topology.routes(src, (src + 512) % len(src), nonminimal_share=0.5)
    )
    # minimal alone: 512 endpoints over 4 cables, 1/128 of a link each
    assert rate.min() > 25e9 / 128
    assert (rate <= 25e9 * (1 + 1e-9)).all()


@pytest.mark.parametrize("nonminimal_share", [0.0, 0.4, 1.0])
def test_what_enters_a_group_on_the_way_leaves_it(nonminimal_share: float) -> None:
    topology = dragonfly(SMALL)
    src, dst = np.repeat(np.arange(40), 40), np.tile(np.arange(40), 40)
    routes = topology.routes(src, dst, nonminimal_share=nonminimal_share)
    crosses = routes.link >= topology.num_links - 25
    pair = routes.link[crosses] - (topology.num_links - 25)
    balance = np.zeros((len(src), 5))
    np.add.at(balance, (routes.flow[crosses], pair // 5), -routes.share[crosses])
    np.add.at(balance, (routes.flow[crosses], pair % 5), routes.share[crosses])
    expected = np.zeros((len(src), 5))
    apart = src // 8 != dst // 8
    expected[apart, src[apart] // 8], expected[apart, dst[apart] // 8] = -1, 1
    assert balance == pytest.approx(expected)
