"""Groups on machines: rings by hand, contention factors, and the flow model beside them."""

from dataclasses import replace

import numpy as np
import pytest

from towtank.hardware_profiles.errors import UnknownFigure
from towtank.hardware_profiles.load import list_machines, load_machine
from towtank.simulator.network.job import JobNetwork, adapted_rings, contention
from towtank.simulator.network.machine import interconnect, node_fabric
from towtank.simulator.network.placement import group_members, interface_of, place_nodes
from towtank.simulator.network.routes import summed
from towtank.simulator.network.transfers import finish_times


def job(machine: str, nodes: int, placement: str = "contiguous", **options: float) -> JobNetwork:
    profile = load_machine(machine)
    net = interconnect(profile, nodes, taper=options.get("taper"))
    total = profile.num_nodes or nodes
    placed = place_nodes(placement, nodes, total, fill=options.get("fill", 0.0), seed=1)  # type: ignore[arg-type]
    return JobNetwork(net, node_fabric(profile), placed)


def ring_rates(network: JobNetwork, devices: int, *dimensions: tuple[int, int]) -> tuple[float, float]:
    found = contention(network, [network.rings(group_members(devices, dimensions))])
    return float(found.alone_bytes_per_s.min()) / 1e9, float(found.together_bytes_per_s.min()) / 1e9


@pytest.mark.parametrize(
    ("inner", "own", "alone"),
    [
        (1, 2, 200),  # the four links of a module
        (1, 4, 100),  # 0-1-3-2: single links, both ways round
        (1, 8, 250),  # five links leave the module 0-1, and every ring crosses that cut once
        (2, 2, 50),  # the single link 0-2
        (2, 4, 100),  # 0-2-4-6, both ways round
    ],
)
def test_rings_of_an_mi250x_node(inner: int, own: int, alone: float) -> None:
    network = job("frontier", 1)
    assert ring_rates(network, 8, (own, inner))[0] == pytest.approx(alone)


def test_rings_inside_nodes_stay_above_what_was_measured() -> None:
    machine = load_machine("frontier")
    network = job("frontier", 1)
    for (inner, own), measured in machine.measured_bus_bandwidth_bytes_per_s.items():
        if inner * own <= 8 and own > 1:
            assert measured / 1e9 <= ring_rates(network, 8, (own, inner))[1] * 1.001, (inner, own)


def test_siblings_share_the_interfaces_of_a_node() -> None:
    # AxoNN, case 2: rings of a node share its interfaces, min(devices, inner) of them at once; 4 x 25 GB/s
    network = job("perlmutter", 16, taper=1.0)
    assert ring_rates(network, 64, (64, 1)) == pytest.approx((100, 100))
    assert ring_rates(network, 64, (32, 2)) == pytest.approx((50, 50))
    assert ring_rates(network, 64, (16, 4)) == pytest.approx((25, 25))
    # two GCDs share an interface
    assert ring_rates(job("frontier", 16), 128, (16, 8)) == pytest.approx((25, 12.5))


@pytest.mark.parametrize(("own", "inner", "rate"), [(14, 1, 50), (7, 2, 25)])
def test_a_last_node_that_the_job_does_not_fill(own: int, inner: int, rate: float) -> None:
    """14 devices on nodes of four: two on the last, whose two interfaces carry what four carry elsewhere."""
    network = job("perlmutter", 4, taper=1.0)
    assert ring_rates(network, 14, (own, inner))[1] == pytest.approx(rate)


def test_tensor_groups_across_nodes_contend_with_data_groups() -> None:
    network = job("perlmutter", 8, taper=1.0)
    tensor = network.rings(group_members(32, [(8, 1)]))
    data = network.rings(group_members(32, [(4, 8)]))
    apart = contention(network, [data]).together_bytes_per_s
    both = contention(network, [tensor, data])
    assert apart.min() == pytest.approx(25e9)
    # a tensor ring puts 1/4 of its rate on each interface, a data ring all of its own: 1.25 t = 25
    assert both.together_bytes_per_s.min() == pytest.approx(20e9)
    assert both.factor >= 1 and both.limiting_tier in ("injection", "ejection")


def test_compiled_factor_is_that_of_the_flow_model() -> None:
    network = job("frontier", 64, "scattered", fill=0.4)
    rings = network.rings(group_members(512, [(64, 8)]))
    found = contention(network, [rings])
    size = np.full(rings.num_flows, 1e9)
    capacity = network.capacity_bytes_per_s
    together = finish_times(capacity, rings, size, np.zeros(len(size))).max()
    alone = max(finish_times(capacity, rings.take(np.array([i])), size[:1], np.zeros(1))[0] for i in range(8))
    assert together / alone == pytest.approx(found.factor, rel=1e-6)


def test_scattered_jobs_cross_more_groups_and_random_ones_suffer() -> None:
    members = group_members(8192, [(1024, 8)])
    rates = {}
    for kind in ("contiguous", "scattered", "random"):
        network = job("frontier", 1024, kind, fill=0.5)
        rates[kind] = contention(network, [network.rings(members)]).together_bytes_per_s.min()
    assert rates["contiguous"] == pytest.approx(12.5e9)
    assert rates["random"] < rates["scattered"] <= rates["contiguous"]


def test_detours_are_taken_where_minimal_paths_are_congested_only() -> None:
    near = job("frontier", 64)
    assert adapted_rings(near, group_members(512, [(64, 8)]))[1] == 0
    # all 1,024 rings step from one cabinet to the next: 128 nodes x 100 GB/s over four cables of 25 GB/s, against
    # 75 other cabinets to detour over, each with as many cables, and the links inside cabinets
    wide = job("frontier", 2048)
    members = group_members(16384, [(16, 1024)])
    direct = contention(wide, [wide.rings(members)])
    assert direct.together_bytes_per_s.min() == pytest.approx(100e9 / 1024)
    assert direct.limiting_tier == "global"
    rings, share = adapted_rings(wide, members)
    freed = contention(wide, [rings]).together_bytes_per_s.min()
    assert share > 0.5 and 10 < freed / direct.together_bytes_per_s.min() < 76


def test_other_jobs_take_their_share() -> None:
    network = job("frontier", 16)
    members = group_members(128, [(16, 8)])
    half = replace(network, busy={"injection": 0.5})
    assert contention(half, [half.rings(members)]).together_bytes_per_s.min() == pytest.approx(6.25e9)
    with pytest.raises(ValueError, match="busy"):
        contention(
            JobNetwork(network.interconnect, network.fabric, network.nodes, busy={"moon": 0.5}),
            [half.rings(members)],
        )


def test_equal_ranks_permuted_change_nothing() -> None:
    network = job("frontier", 32)
    members = group_members(256, [(32, 8)])
    shuffled = members[np.random.default_rng(3).permutation(len(members))]
    one, other = (contention(network, [network.rings(m)]).together_bytes_per_s for m in (members, shuffled))
    assert sorted(one) == pytest.approx(sorted(other))


def test_loads_conserve_bytes() -> None:
    # every member sends 1: what enters the interfaces is one byte a ring and crossing
    network = job("frontier", 16, "random")
    members = group_members(128, [(32, 4)])
    rings = network.rings(members)
    load = summed(rings, np.zeros(rings.num_flows, np.int64), 1).load(network.capacity_bytes_per_s.size)
    outer = network.interconnect.topology
    by_tier = {t: load[: outer.num_links][outer.tier == i].sum() for i, t in enumerate(outer.tiers)}
    assert by_tier["injection"] == pytest.approx(by_tier["ejection"])
    assert by_tier["injection"] == pytest.approx(4 * 16)  # four rings, each through 16 nodes


def test_placements() -> None:
    assert place_nodes("contiguous", 3, 9).tolist() == [0, 1, 2]
    scattered = place_nodes("scattered", 40, 100, fill=0.5, seed=4)
    assert (np.diff(scattered) > 0).all() and scattered[-1] > 60
    assert place_nodes("scattered", 40, 100, fill=0.5, seed=4).tolist() == scattered.tolist()
    assert sorted(place_nodes("random", 9, 9)) == list(range(9))
    with pytest.raises(ValueError, match="60 nodes, but 50 of 100 are free"):
        place_nodes("scattered", 60, 100, fill=0.5)


def test_groups_of_a_plan() -> None:
    assert group_members(8, [(2, 1)]).tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert group_members(8, [(2, 2)]).tolist() == [[0, 2], [1, 3], [4, 6], [5, 7]]
    assert group_members(8, [(2, 1), (2, 4)]).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]
    with pytest.raises(ValueError, match="does not tile 6"):
        group_members(6, [(2, 2)])


def test_interfaces_of_devices() -> None:
    assert interface_of(np.arange(8), 8, 4).ravel().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert interface_of(np.arange(2), 2, 4).tolist() == [[0, 1], [2, 3]]


def test_interfaces_of_one_node_lie_at_different_switches() -> None:
    net = interconnect(load_machine("frontier"))
    switches = net.endpoint // 16
    assert all(len(set(row)) == 4 for row in switches[:200].tolist())
    assert len(np.unique(net.endpoint)) == net.endpoint.size


@pytest.mark.parametrize("name", list_machines())
def test_every_machine_has_a_network_or_says_what_is_missing(name: str) -> None:
    machine = load_machine(name)
    try:
        net = interconnect(machine, 8, taper=0.5)
        fabric = node_fabric(machine)
    except UnknownFigure as missing:
        assert machine.name in str(missing)
        return
    nodes = min(8, machine.num_nodes or 8)
    network = JobNetwork(net, fabric, np.arange(nodes))
    devices = nodes * machine.node.devices
    found = contention(network, [network.rings(group_members(devices, [(devices, 1)]))])
    assert 0 < found.together_bytes_per_s.min() < 1e14
