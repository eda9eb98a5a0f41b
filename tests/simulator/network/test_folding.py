"""Folding keeps every rate and time, and makes large symmetric networks small."""

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from towtank.hardware_profiles.load import load_machine
from towtank.simulator.network.fairness import max_min_rates
from towtank.simulator.network.folding import fold
from towtank.simulator.network.job import JobNetwork, stacked
from towtank.simulator.network.machine import interconnect, node_fabric
from towtank.simulator.network.placement import PlacementKind, group_members, place_nodes
from towtank.simulator.network.processes import FlowNetwork
from towtank.simulator.network.routes import from_lists
from towtank.simulator.network.transfers import finish_times

Rows = list[list[tuple[int, float]]]


def test_a_ring_of_equal_links_is_one_flow_and_one_link() -> None:
    rows: Rows = [[(i, 1.0), ((i + 1) % 6, 1.0)] for i in range(6)]
    folded = fold(np.full(6, 8.0), from_lists(rows))
    assert folded.count.tolist() == [6] and folded.capacity_bytes_per_s.tolist() == [8.0]
    # two flows on each link
    assert folded.routes.share.tolist() == [2.0]


def test_parking_lot_has_nothing_to_fold() -> None:
    folded = fold(np.array([6.0, 10.0]), from_lists([[(0, 1), (1, 1)], [(0, 1)], [(1, 1)]]))
    assert folded.count.tolist() == [1, 1, 1]


def test_kinds_stay_apart_and_unused_links_have_no_class() -> None:
    folded = fold(np.array([6.0, 6.0, 6.0]), from_lists([[(0, 1)], [(1, 1)]]), np.array([0, 1]))
    assert len(folded.count) == 2 and folded.link_class[2] == -1
    assert len(fold(np.array([6.0, 6.0]), from_lists([[(0, 1)], [(1, 1)]])).count) == 1


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[float], Rows]:
    """Few capacities and shares, and copies side by side, so that there is something to fold."""
    capacity = draw(st.lists(st.sampled_from([4.0, 10.0]), min_size=1, max_size=4))
    row = st.dictionaries(
        st.integers(0, len(capacity) - 1), st.sampled_from([1.0, 0.5]), min_size=1, max_size=3
    )
    rows = [list(links.items()) for links in draw(st.lists(row, min_size=1, max_size=6))]
    copies, size = draw(st.integers(1, 3)), len(capacity)
    shifted = [[(link + copy * size, share) for link, share in row] for copy in range(copies) for row in rows]
    return capacity * copies, shifted


@given(networks())
def test_rates_are_those_of_the_whole(network: tuple[list[float], Rows]) -> None:
    capacity, routes = np.array(network[0]), from_lists(network[1])
    folded = fold(capacity, routes)
    rate = max_min_rates(folded.capacity_bytes_per_s, folded.routes)[folded.flow_class]
    assert rate == pytest.approx(max_min_rates(capacity, routes), rel=1e-9)


@given(networks(), st.lists(st.sampled_from([1.0, 5.0]), min_size=1, max_size=3))
def test_finish_times_are_those_of_the_whole(network: tuple[list[float], Rows], sizes: list[float]) -> None:
    capacity, routes = np.array(network[0]), from_lists(network[1])
    size = np.resize(sizes, routes.num_flows)
    start = size / 4
    folded = fold(capacity, routes, size.astype(np.int64))
    first = np.unique(folded.flow_class, return_index=True)[1]
    small = finish_times(folded.capacity_bytes_per_s, folded.routes, size[first], start[first])
    whole = finish_times(capacity, routes, size, start)
    assert small[folded.flow_class] == pytest.approx(whole, rel=1e-6)


def frontier(nodes: int, kind: PlacementKind) -> JobNetwork:
    machine = load_machine("frontier")
    return JobNetwork(interconnect(machine), node_fabric(machine), place_nodes(kind, nodes, 9856, seed=1))


# AxoNN's grid of 32,768 GCDs: column 2, row 4 inside a node, depth 64 and data 64 between them (size, stride)
GRID = {"column": (2, 1), "row": (4, 2), "depth": (64, 8), "data": (64, 512)}


def test_a_step_of_32768_gcds_in_processes() -> None:
    network = frontier(4096, "contiguous")
    families = {name: network.rings(group_members(32768, [shape])) for name, shape in GRID.items()}
    kind = np.repeat(np.arange(len(families)), [routes.num_flows for routes in families.values()])
    capacity = network.capacity_bytes_per_s
    whole = stacked(list(families.values()))
    folded = fold(capacity, whole, kind)
    assert whole.num_flows == 32768 // 2 + 32768 // 4 + 2 * 512
    assert len(folded.count) < 200

    environment = simpy.Environment()
    links = FlowNetwork(environment, folded.capacity_bytes_per_s)
    finish = np.zeros(len(folded.count))
    first = np.unique(folded.flow_class, return_index=True)[1]

    def group(number: int) -> Generator[Any, Any, None]:
        yield environment.timeout(0.01 * kind[first[number]])
        yield links.transfer(folded.routes.take(np.array([number])), 1e9)
        finish[number] = environment.now

    for number in range(len(folded.count)):
        environment.process(group(number))
    environment.run()
    start = 0.01 * kind[first]
    loop = finish_times(folded.capacity_bytes_per_s, folded.routes, np.full(len(start), 1e9), start)
    assert finish == pytest.approx(loop, rel=1e-9)
    # 512 data rings step from each cabinet to the next over four cables of 25 GB/s
    assert finish.max() == pytest.approx(512 * 1e9 / 100e9 + 0.03, rel=1e-6)


def test_random_placement_folds_little_and_keeps_its_rates() -> None:
    network = frontier(64, "random")
    routes = network.rings(group_members(512, [(64, 8)]))
    folded = fold(network.capacity_bytes_per_s, routes)
    whole = max_min_rates(network.capacity_bytes_per_s, routes)
    small = max_min_rates(folded.capacity_bytes_per_s, folded.routes)
    assert small[folded.flow_class] == pytest.approx(whole, rel=1e-9)
