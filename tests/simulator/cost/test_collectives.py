"""Collective formulas against hand calculations. S = 800 MB; 8 devices; the numbers are in each test."""

from dataclasses import replace

import pytest

from towtank.simulator.cost.collectives import (
    all_to_all,
    broadcast,
    bus_factor,
    collective_time,
    distinct,
    hierarchical,
    multicast,
    phased,
    recursive,
    ring,
    send,
    tree,
)
from towtank.simulator.cost.links import Links

S = 800e6
ONE_NODE = Links(1, 8, 100e9, 100e9, 100e9, 100e9, 2e-6, 0.0)
TWO_NODES = Links(2, 4, 100e9, 20e9, 5e9, 5e9, 2e-6, 10e-6)
"""2 nodes of 4: one ring has 20 GB/s between nodes, each device's share of the network is 5 GB/s."""


@pytest.mark.parametrize(
    "collective, factor",
    [
        ("all-reduce", 1.75), ("all-gather", 0.875), ("reduce-scatter", 0.875), ("all-to-all", 0.875),
        ("broadcast", 1.0), ("send", 1.0),
    ],
)  # fmt: skip
def test_bus_factors_of_eight_devices(collective, factor):
    assert bus_factor(collective, 8) == factor


def test_ring_inside_a_node():
    # all-gather: 7 steps of 2 us + 7/8 x 800 MB / 100 GB/s; all-reduce: twice that
    assert ring("all-gather", S, 8, ONE_NODE) == pytest.approx(7 * 2e-6 + 7e-3)
    assert ring("all-reduce", S, 8, ONE_NODE) == pytest.approx(14 * 2e-6 + 14e-3)


def test_ring_over_nodes():
    # 8 steps close the ring: 2 between nodes; of the others 6 inside. 7/8 x 800 MB / 20 GB/s = 35 ms
    assert ring("reduce-scatter", S, 8, TWO_NODES) == pytest.approx(2 * 10e-6 + 6 * 2e-6 + 35e-3)


def test_tree():
    # up and down: 1 level between 2 nodes and 3 chain steps inside; 2 x 800 MB / 20 GB/s
    assert tree(S, TWO_NODES) == pytest.approx(2 * (10e-6 + 3 * 2e-6) + 80e-3)


def test_recursive_doubling():
    # 1 step between nodes, 2 inside; each device pushes 7/8 of 800 MB at 5 GB/s
    assert recursive("all-gather", S, 8, TWO_NODES) == pytest.approx(10e-6 + 2 * 2e-6 + 140e-3)


def test_hierarchical():
    # inside: 3 steps, 3/4 x 800 MB / 100 GB/s = 6 ms; between: 1 step, 1/2 of 200 MB at 5 GB/s = 20 ms
    once = 3 * 2e-6 + 6e-3 + 10e-6 + 20e-3
    assert hierarchical("all-gather", S, TWO_NODES) == pytest.approx(once)
    assert hierarchical("all-reduce", S, TWO_NODES) == pytest.approx(2 * once)


def test_phases_of_a_node_and_between_nodes_follow_each_other():
    # inside 3 steps of 2 us and 3/4 x 800 MB / 100 GB/s = 6 ms; between four nodes 3 steps of 10 us and
    # 3/4 x 200 MB / 5 GB/s = 30 ms
    four = replace(TWO_NODES, nodes=4)
    once = 3 * 2e-6 + 6e-3 + 3 * 10e-6 + 30e-3
    assert phased("all-gather", S, 16, four) == pytest.approx(once)
    assert phased("all-reduce", S, 16, four) == pytest.approx(2 * once)
    assert phased("all-gather", S, 8, ONE_NODE) == ring("all-gather", S, 8, ONE_NODE)
    # the library has nothing else, however small the message
    assert collective_time("all-gather", 8.0, 16, four, ("phased",)) == pytest.approx(36e-6, rel=1e-3)


def test_all_to_all():
    # inside: 7/8 x 800 MB / 100 GB/s = 7 ms; over nodes 4/8 of the array leave at 5 GB/s = 80 ms
    # one latency, and 0.4 us for each of the six peers beyond the first
    assert all_to_all(S, 8, ONE_NODE) == pytest.approx(2e-6 + 6 * 0.4e-6 + 7e-3)
    assert all_to_all(S, 8, TWO_NODES) == pytest.approx(10e-6 + 6 * 0.4e-6 + 80e-3)
    # without bytes to speak of, only the start-up is left
    assert all_to_all(8.0, 8, ONE_NODE) == pytest.approx(2e-6 + 2.4e-6, rel=1e-3)


def test_send_and_broadcast():
    assert send(S, ONE_NODE) == pytest.approx(2e-6 + 8e-3)
    assert send(S, TWO_NODES) == pytest.approx(10e-6 + 160e-3)
    assert broadcast(S, 8, TWO_NODES) == pytest.approx(10e-6 + 6 * 2e-6 + 40e-3)


def test_the_fastest_algorithm_of_the_library_is_taken():
    def time(size, *algorithms):
        return collective_time("all-reduce", size, 8, TWO_NODES, algorithms)

    assert time(S, "ring", "tree") == ring("all-reduce", S, 8, TWO_NODES)
    assert time(8.0, "ring", "tree") == tree(8.0, TWO_NODES) < ring("all-reduce", 8.0, 8, TWO_NODES)
    assert time(S, "ring", "tree", "hierarchical") == hierarchical("all-reduce", S, TWO_NODES)
    # a library without trees sends even small messages round the ring
    assert time(8.0, "ring") == ring("all-reduce", 8.0, 8, TWO_NODES)


def test_nothing_to_do_takes_no_time():
    assert collective_time("all-reduce", S, 1, ONE_NODE, ("ring",)) == 0
    assert collective_time("all-reduce", 0, 8, ONE_NODE, ("ring",)) == 0


def test_distinct_targets_of_copies_drawn_evenly():
    assert distinct(8, 1) == pytest.approx(1.0)
    assert distinct(2, 2) == pytest.approx(1.5)  # both copies fall on one target every second time
    assert distinct(4, 100) == pytest.approx(4.0)
    assert distinct(1, 8) == 1.0


def test_multicast_sends_a_token_once_to_each_device_and_node():
    # 800 MB are 2 copies of 400 MB. Inside: 8 (1 - 49/64) = 1.875 devices a token, of which 3/4 over links:
    # 5.625 ms at 100 GB/s; between: 1.5 nodes, half of them others: 300 MB at 5 GB/s = 60 ms. 6 further peers.
    assert multicast(S, 2, 8, TWO_NODES) == pytest.approx(10e-6 + 6 * 0.4e-6 + 60e-3)
    inside = 400e6 * 1.875 * 7 / 8 / 100e9
    assert multicast(S, 2, 8, ONE_NODE) == pytest.approx(2e-6 + 6 * 0.4e-6 + inside)
    assert multicast(S, 2, 8, TWO_NODES) < all_to_all(S, 8, TWO_NODES)
