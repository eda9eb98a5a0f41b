"""Collectives by algorithm: hand-calculated times, limits, and how they order by size and scale."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towtank.simulator.network import collectives
from towtank.simulator.network.collectives import Choice, Group, Links, choose, pipelined
from towtank.simulator.network.libraries import (
    Collective,
    FabricCost,
    Library,
    NetworkCost,
    Nvls,
    fabric_cost,
    library,
    network_cost,
)

FABRIC = FabricCost(
    start_s=1.0,
    step_s={"ll": 0.1, "ll128": 0.2, "simple": 0.5},
    payload={"ll": 0.25, "ll128": 0.5, "simple": 1.0},
    fill_s=0.0,
    reach={"all_reduce": 1.0, "all_gather": 1.0, "reduce_scatter": 1.0},
    nvls=Nvls(2.0, 1.5, 4),
)
NETWORK = NetworkCost({"ll": 1.0, "ll128": 2.0, "simple": 5.0}, 0.5, 0.0)
LINKS = Links(FABRIC, NETWORK)
NODE = Group(4, 1, 100.0, port_bytes_per_s=100.0)
WIDE = Group(16, 4, 100.0, 80.0)
"""Four devices on each of four nodes; half of 80 B/s is reached between nodes."""


@pytest.mark.parametrize(
    ("algorithm", "collective", "group", "seconds"),
    [
        # 3 steps of 0.5, 3/4 of 400 bytes at 100
        (collectives.ring, "all_gather", NODE, 1 + 1.5 + 3),
        # twice as many of both
        (collectives.ring, "all_reduce", NODE, 1 + 3 + 6),
        # 15 steps, 3 of them between nodes; 15/16 of 400 bytes at 40
        (collectives.ring, "reduce_scatter", WIDE, 1 + 12 * 0.5 + 3 * 5 + 375 / 40),
        # 3 steps along the chain and 2 levels of the tree, up and down; the array up and down at 40
        (collectives.tree, "all_reduce", WIDE, 1 + 2 * (3 * 0.5 + 2 * 5) + 800 / 40),
        # 2 steps
        (collectives.recursive, "all_gather", NODE, 1 + 2 * 0.5 + 3),
        # 2 + 2 steps; inside 3/4 of 400 at 100, between 3/4 of 100 on the share of one of four, 80 / 4 / 2
        (collectives.recursive, "all_gather", WIDE, 1 + 2 * 0.5 + 2 * 5 + 3 + 75 / 10),
        # a ring inside (1 + 1.5 + 3) beside recursive steps between nodes on a quarter (1 + 10 + 7.5)
        (collectives.hierarchical, "all_gather", WIDE, 5.5 + 18.5),
        (collectives.hierarchical, "all_reduce", WIDE, 11 + 1 + 2 * (10 + 7.5)),
        # a ring inside (5.5), and one of 3 steps between nodes on a quarter, 75 bytes at 10
        (collectives.phased, "all_gather", WIDE, 5.5 + 1 + 15 + 7.5),
        (collectives.phased, "all_reduce", WIDE, 11 + 1 + 30 + 15),
        # 2 s, 600 bytes of bus at 150
        (collectives.nvls, "all_reduce", NODE, 2 + 4),
    ],
)
def test_by_hand(
    algorithm: Callable[..., float], collective: Collective, group: Group, seconds: float
) -> None:
    assert algorithm(collective, 400.0, group, LINKS, "simple") == pytest.approx(seconds)


def test_protocols_trade_latency_for_bandwidth() -> None:
    times = [collectives.ring("all_gather", 400.0, NODE, LINKS, protocol) for protocol in ("ll", "ll128")]
    assert times == pytest.approx([1 + 0.3 + 12, 1 + 0.6 + 6])


def test_pipeline_fill() -> None:
    # (sqrt(4) + sqrt(9))^2 - 9 = 16: the fill itself is in the steps
    assert pipelined(400.0, 100.0, 9.0) == pytest.approx(16)
    assert pipelined(400.0, 100.0, 0.0) == pytest.approx(4)


def test_choice_by_size() -> None:
    nccl = library("nccl")
    assert choose("all_gather", 1.0, NODE, LINKS, nccl).protocol == "ll"
    assert choose("all_gather", 1e5, NODE, LINKS, nccl).protocol == "simple"
    assert choose("all_reduce", 1e5, NODE, LINKS, nccl) == Choice("nvls", "simple", 2 + 1.5e5 / 150)
    without = replace(FABRIC, nvls=None)
    assert choose("all_reduce", 1e5, NODE, Links(without), nccl).algorithm == "ring"
    assert choose("all_reduce", 1e5, Group(1, 1, 1.0), LINKS, nccl).time_s == 0


def test_choice_by_scale() -> None:
    # many nodes and a small message: a tree; many bytes: a ring
    far = Group(4096, 1024, 100.0, 80.0)
    nccl = library("nccl")
    assert choose("all_reduce", 64.0, far, LINKS, nccl).algorithm == "tree"
    assert choose("all_reduce", 1e11, far, LINKS, nccl).algorithm == "ring"


def test_rings_lose_by_ten_to_a_hundred_on_small_messages_at_2048_gcds() -> None:
    # PCCL, arXiv 2504.18658, abstract: over RCCL up to 168x (reduce-scatter), 33x (all-gather), 10x
    group = Group(2048, 256, 135e9, 100e9)
    links = Links(fabric_cost("infinity-fabric"), network_cost("slingshot-11"))

    def most(collective: Collective) -> float:
        return max(
            choose(collective, 2.0**power, group, links, RINGS).time_s
            / choose(collective, 2.0**power, group, links, library("pccl")).time_s
            for power in range(16, 28)
        )

    assert 33 / 2 <= most("all_gather") <= 33 * 2
    assert 10 <= most("reduce_scatter") <= 168
    assert 10 <= most("all_reduce") <= 100


RINGS = Library("rings", dict.fromkeys(("all_reduce", "all_gather", "reduce_scatter"), ("ring",)))


def test_what_is_impossible_is_refused() -> None:
    with pytest.raises(ValueError, match="does not lie evenly on 3 nodes"):
        Group(8, 3, 1.0)
    with pytest.raises(ValueError, match="network between them"):
        collectives.ring("all_gather", 1.0, WIDE, Links(FABRIC), "simple")
    with pytest.raises(ValueError, match="all_gather has no such form"):
        collectives.tree("all_gather", 1.0, WIDE, LINKS, "simple")
    with pytest.raises(ValueError, match="'nvlink9' is unknown; choose one of"):
        fabric_cost("nvlink9")


SIZES = st.floats(1, 1e9)
COLLECTIVES = st.sampled_from(["all_reduce", "all_gather", "reduce_scatter"])
LIBRARIES = st.sampled_from(["nccl", "nccl-efa", "rccl", "cray-mpich", "oneccl", "pccl"]).map(library)
GROUPS = st.tuples(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 64])).map(
    lambda shape: Group(shape[0] * shape[1], shape[1], 200e9, 100e9, 450e9)
)


@given(COLLECTIVES, SIZES, GROUPS, LIBRARIES)
def test_more_bytes_never_take_less_and_a_wider_network_never_more(
    collective: Collective, size: float, group: Group, taken: Library
) -> None:
    links = Links(fabric_cost("nvlink4"), network_cost("infiniband"))
    time = choose(collective, size, group, links, taken).time_s
    assert choose(collective, 2 * size, group, links, taken).time_s >= time
    wider = replace(group, inside_bytes_per_s=4e11, between_bytes_per_s=2e11, port_bytes_per_s=9e11)
    assert choose(collective, size, wider, links, taken).time_s <= time * (1 + 1e-9)


@given(COLLECTIVES, SIZES, GROUPS, LIBRARIES)
def test_never_faster_than_the_bytes_over_all_links(
    collective: Collective, size: float, group: Group, taken: Library
) -> None:
    # a reduction in the switch moves half of the bytes of a ring
    links = Links(fabric_cost("nvlink4"), network_cost("infiniband"))
    widest = max(group.inside_bytes_per_s, group.between_bytes_per_s, group.port_bytes_per_s) * 2
    moved = collectives.bus_bandwidth(collective, size, group.size, 1.0)
    assert choose(collective, size, group, links, taken).time_s >= moved / widest
