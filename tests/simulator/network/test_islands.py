"""Islands of nodes with unlike networks: links by hand, sharing of the way out, and files with faults."""

import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towtank.hardware_profiles.errors import InvalidProfile, ProfileError
from towtank.simulator.network.fairness import max_min_rates
from towtank.simulator.network.island_file import read_islands
from towtank.simulator.network.islands import Island, Islands, NodeLinks, island_links, island_topology
from towtank.simulator.network.link_matrix import LINK_COLLECTIVES, LinkMatrix, paced
from towtank.simulator.network.rank_mapping import best_order

MIXED = """\
islands:
  - {name: ib, nodes: 2, technology: InfiniBand, bandwidth: 48 GB/s, latency: 5 us}
  - {name: roce, nodes: [x, y], technology: roce-ethernet, bandwidth: 24 GB/s}
between: {technology: Ethernet, bandwidth: 3 GB/s, latency: 30 us}
"""


def _written(folder: Path, text: str) -> Path:
    path = folder / "islands.yaml"
    path.write_text(textwrap.dedent(text))
    return path


def _read(folder: Path, text: str = MIXED) -> Islands:
    return read_islands(_written(folder, text))


def test_links_of_two_islands_by_hand(tmp_path) -> None:
    islands = _read(tmp_path)
    links = island_links(islands)
    inf = np.inf
    assert links.names == ("ib-0", "ib-1", "x", "y")
    assert (links.bandwidth_bytes_per_s / 1e9).tolist() == [
        [inf, 48, 3, 3], [48, inf, 3, 3], [3, 3, inf, 24], [3, 3, 24, inf],
    ]  # fmt: skip
    # RoCE without a latency: 14 us of the profile roce-ethernet
    us = [[0, 5, 30, 30], [5, 0, 30, 30], [30, 30, 0, 14], [30, 30, 14, 0]]
    assert links.latency_s == pytest.approx(np.array(us) * 1e-6)
    assert links.topology is None
    # a ring through both runs at the pace of Ethernet: 3 steps of 40 MB at 3 GB/s
    ring = paced(links, np.arange(4)[None, :], "all_gather", 160e6)
    assert ring.slowest_s == pytest.approx(3 * (40e6 / 3e9 + 30e-6))
    assert (ring.source, ring.destination) == (1, 2)
    # groups inside: that of RoCE is slower
    inside = paced(links, np.array([[0, 1], [2, 3]]), "all_gather", 160e6)
    assert inside.time_s == pytest.approx([80e6 / 48e9 + 5e-6, 80e6 / 24e9 + 14e-6])


def test_an_island_as_a_whole_can_have_less_than_its_nodes(tmp_path) -> None:
    shared = island_links(_read(tmp_path, MIXED.replace("30 us}", "30 us, total: 4 GB/s}")))
    # one node out of each island: 3 GB/s of its own; two of each at once: 4 / 2
    one = paced(shared, np.array([[0, 2]]), "all_gather", 80e6)
    two = paced(shared, np.array([[0, 2], [1, 3]]), "all_gather", 80e6)
    assert one.slowest_s == pytest.approx(40e6 / 3e9 + 30e-6)
    assert two.time_s == pytest.approx([40e6 / 2e9 + 30e-6] * 2) and two.link_bytes_per_s == pytest.approx(
        2e9
    )
    # a total below a node's own bandwidth holds a lone send
    narrow = island_links(_read(tmp_path, MIXED.replace("30 us}", "30 us, total: 1 GB/s}")))
    assert narrow.bandwidth_bytes_per_s[0, 2] == 1e9


def test_the_order_of_holmes(tmp_path) -> None:
    """Homogeneous RDMA, then groups inside islands, then groups across them, then Ethernet (Holmes)."""
    text = MIXED.replace("nodes: 2", "nodes: 4").replace("[x, y]", "4")
    links = island_links(_read(tmp_path, text))
    across = np.array([[0, 2, 4, 6], [1, 3, 5, 7]])
    placed = best_order(links, across, "all_reduce", 1e9)
    mixed_s, default_s = placed.time_s, placed.given_s
    rdma = island_links(
        _read(
            tmp_path, text.replace("roce-ethernet, bandwidth: 24", "InfiniBand, latency: 5 us, bandwidth: 48")
        )
    )
    rdma_s = best_order(rdma, across, "all_reduce", 1e9).time_s
    slow = LinkMatrix(links.names, np.minimum(links.bandwidth_bytes_per_s, 3e9), links.latency_s)
    assert rdma_s < mixed_s < default_s <= paced(slow, across, "all_reduce", 1e9).slowest_s
    own = np.arange(8) // 4
    for group in placed.order[across]:  # data-parallel groups inside, pipeline stages across
        assert len({own[node] for node in group}) == 1


def test_ranks_may_follow_another_order(tmp_path) -> None:
    links = island_links(_read(tmp_path, MIXED + "ranks: [x, ib-0, y, ib-1]\n"))
    assert links.names == ("x", "ib-0", "y", "ib-1")
    assert links.bandwidth_bytes_per_s[0].tolist() == [np.inf, 3e9, 24e9, 3e9]


@st.composite
def descriptions(draw: st.DrawFn, total: bool) -> Islands:
    rate = st.sampled_from([1e9, 3e9, 12e9, 50e9])
    made = []
    for number in range(draw(st.integers(2, 3))):
        names = tuple(f"{number}-{node}" for node in range(draw(st.integers(1, 3))))
        made.append(Island(str(number), names, NodeLinks("any", draw(rate), draw(st.floats(0, 1e-4)))))
    ranks = draw(st.permutations([node for island in made for node in island.nodes]))
    whole = draw(rate) if total else None
    return Islands(tuple(made), NodeLinks("slow", draw(rate), draw(st.floats(0, 1e-4))), whole, tuple(ranks))


@given(descriptions(total=False), st.sampled_from(LINK_COLLECTIVES))
def test_flows_and_matrix_agree_where_nothing_is_shared(islands, collective) -> None:
    links = island_links(islands)
    flows = LinkMatrix(links.names, links.bandwidth_bytes_per_s, links.latency_s, island_topology(islands))
    ranks = np.arange(links.size)[None, :]
    expected = paced(links, ranks, collective, 1e8).time_s
    assert paced(flows, ranks, collective, 1e8).time_s == pytest.approx(expected)


@given(descriptions(total=True))
def test_a_lone_send_gets_what_the_matrix_says(islands) -> None:
    links = island_links(islands)
    topology = island_topology(islands)
    pairs = [(a, b) for a in range(links.size) for b in range(links.size) if a != b]
    for src, dst in pairs:
        routes = topology.routes(np.array([src]), np.array([dst]))
        (rate,) = max_min_rates(topology.capacity_bytes_per_s, routes)
        assert rate == pytest.approx(links.bandwidth_bytes_per_s[src, dst])
        assert topology.latency_of(routes)[0] == pytest.approx(links.latency_s[src, dst])


@given(descriptions(total=True), st.randoms(use_true_random=False))
def test_equal_nodes_of_an_island_are_interchangeable(islands, random) -> None:
    links, own = island_links(islands), islands.island_of_rank
    moved = np.arange(links.size)
    for island in range(len(islands.islands)):
        places = np.flatnonzero(own == island)
        shuffled = places.tolist()
        random.shuffle(shuffled)
        moved[places] = shuffled
    for collective in LINK_COLLECTIVES:
        times = [
            paced(links, order[None, :], collective, 1e7).slowest_s
            for order in (np.arange(links.size), moved)
        ]
        assert times[0] == pytest.approx(times[1])


@settings(deadline=None)
@given(descriptions(total=True), st.sampled_from(LINK_COLLECTIVES))
def test_the_mapping_is_never_worse_where_links_are_shared(islands, collective) -> None:
    links = island_links(islands)
    half = links.size // 2
    shapes = [np.arange(links.size)[None, :]]
    if links.size % 2 == 0 and half > 1:
        shapes.append(np.arange(links.size).reshape(half, 2).T)
    for members in shapes:
        found = best_order(links, members, collective, 1e8)
        assert found.given_s == paced(links, members, collective, 1e8).slowest_s
        assert found.time_s == paced(links, found.order[members], collective, 1e8).slowest_s <= found.given_s


WRONG = {
    "empty": ("", ["islands: a list of one island or more"]),
    "a list": ("[1]", ["mapping"]),
    "not YAML": ("islands: [", ["not valid YAML"]),
    "one node": (
        "islands: [{name: a, nodes: 1, technology: IB, bandwidth: 1 GB/s, latency: 1 us}]", ["1 nodes in all"]
    ),
    "no between": (MIXED.split("between")[0], ["between: missing"]),
    "all at once": (
        """\
        islnds: 3
        islands:
          - {name: a, nodes: 0, technology: infiniband-ndx, bandwidth: 48}
          - {nodes: [p, p], technology: IB, bandwidth: 0 GB/s, latency: 5 GB, speed: 1}
          - 7
        between: {technology: Ethernet, latency: 1 us, total: -1 GB/s}
        """,
        ["islnds: unknown key; did you mean 'islands'?", "islands[0].nodes = 0", "islands[0].bandwidth",
         "islands[0].latency: missing", "'infiniband-ndr'", "islands[1].name: missing",
         "islands[1].bandwidth = '0 GB/s' must be above zero", "islands[1].latency: ",
         "islands[1].speed: unknown key",
         "islands[2]: a mapping", "between.bandwidth: missing", "between.total: "],
    ),
    "twins": (
        MIXED.replace("name: roce", "name: ib").replace("[x, y]", "[x, ib-0]"), ["islands: ib stands", "nodes: ib-0"]
    ),
    "ranks": (MIXED + "ranks: [x, x, z]\n", ["x stands twice", "no island has z", "ranks: ib-0, ib-1, y missing"]),
    "ranks as text": (MIXED + "ranks: x\n", ["ranks: a list"]),
    "between as text": (MIXED.split("between")[0] + "between: Ethernet\n", ["between: a mapping"]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "phrases"), WRONG.values(), ids=list(WRONG))
def test_every_fault_of_a_file_is_told(tmp_path, text, phrases) -> None:
    with pytest.raises(InvalidProfile) as raised:
        _read(tmp_path, text)
    for phrase in ["islands.yaml", *phrases]:
        assert phrase in str(raised.value)


def test_a_missing_file(tmp_path) -> None:
    with pytest.raises(ProfileError, match="cannot be read"):
        read_islands(tmp_path / "none.yaml")
