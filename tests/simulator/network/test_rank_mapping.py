"""Orders of ranks: against all orders tried plainly, and never worse than what was given."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towtank.simulator.network.link_matrix import LINK_COLLECTIVES, LinkMatrix, paced
from towtank.simulator.network.rank_mapping import _Search, best_order


def _random(size: int, seed: int, symmetric: bool = False) -> LinkMatrix:
    width = np.random.default_rng(seed).uniform(2e9, 25e9, (size, size))
    width = np.minimum(width, width.T) if symmetric else width
    np.fill_diagonal(width, np.inf)
    return LinkMatrix(tuple(map(str, range(size))), width, np.zeros((size, size)))


def _plainly(links: LinkMatrix, members: np.ndarray, collective) -> float:
    return min(
        paced(links, np.array(order)[members], collective, 1e8).slowest_s
        for order in permutations(range(links.size))
    )


@settings(deadline=None, max_examples=12)
@given(
    st.integers(0, 10**6),
    st.sampled_from(LINK_COLLECTIVES),
    st.sampled_from([[[0, 1, 2, 3, 4]], [[0, 2, 4], [1, 3, 5]], [[0, 1], [2, 3], [4, 5]]]),
)
def test_few_ranks_get_the_best_of_all_orders(seed, collective, groups) -> None:
    members = np.array(groups)
    links = _random(members.size, seed)
    found = best_order(links, members, collective, 1e8)
    assert found.search == "all orders"
    assert found.time_s == pytest.approx(_plainly(links, members, collective))
    assert sorted(found.order) == list(range(links.size))


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 10**6),
    st.sampled_from(LINK_COLLECTIVES),
    st.sampled_from([(1, 12), (2, 6), (3, 4), (6, 2), (4, 4)]),
    st.booleans(),
)
def test_the_mapping_is_never_worse(seed, collective, shape, symmetric) -> None:
    members = np.arange(shape[0] * shape[1]).reshape(shape[1], shape[0]).T  # strided, as of a plan
    links = _random(members.size, seed, symmetric)
    found = best_order(links, members, collective, 1e8, seed=1)
    assert found.search == "greedy and 2-opt" and sorted(found.order) == list(range(links.size))
    assert found.given_s == paced(links, members, collective, 1e8).slowest_s
    assert found.time_s == paced(links, found.order[members], collective, 1e8).slowest_s
    assert found.time_s <= found.given_s and found.gain >= 1
    assert np.array_equal(found.order, best_order(links, members, collective, 1e8, seed=1).order)


@pytest.mark.parametrize("seed", range(6))
def test_greedy_and_2_opt_come_near_the_best_of_seven(seed) -> None:
    links = _random(7, seed, symmetric=True)
    rows = np.arange(7)[None, :]
    search = _Search(links.alone_s(1e8 / 7), exchange=False)
    near = paced(links, search.descend_all(rows, np.random.default_rng(0)), "all_gather", 1e8).slowest_s
    assert near <= 1.02 * best_order(links, rows, "all_gather", 1e8).time_s


def test_a_hidden_fast_ring_is_found() -> None:
    # 24 nodes: a ring of 20 GB/s in a hidden order, all other links 2 GB/s
    hidden = np.random.default_rng(4).permutation(24)
    width = np.full((24, 24), 2e9)
    width[hidden, np.roll(hidden, -1)] = width[np.roll(hidden, -1), hidden] = 20e9
    links = LinkMatrix(tuple(map(str, range(24))), width, np.zeros((24, 24)))
    found = best_order(links, np.arange(24)[None, :], "all_gather", 24e8)
    assert found.time_s == pytest.approx(23 * 1e8 / 20e9) and found.gain == pytest.approx(10)


@pytest.mark.parametrize("collective", ["all_reduce", "all_to_all"])
def test_groups_are_gathered_inside_fast_boxes(collective) -> None:
    # four boxes of four with 50 GB/s inside and 5 between; groups of stride 4 have one member in each
    box = np.arange(16) // 4
    width = np.where(box[:, None] == box[None, :], 50e9, 5e9)
    links = LinkMatrix(tuple(map(str, range(16))), width, np.zeros((16, 16)))
    members = np.arange(16).reshape(4, 4).T
    found = best_order(links, members, collective, 4e8)
    assert found.gain == pytest.approx(10)
    assert all(len(set(box[group])) == 1 for group in found.order[members])


def test_equal_links_have_nothing_to_gain() -> None:
    links = LinkMatrix(tuple(map(str, range(10))), np.full((10, 10), 1e9), np.zeros((10, 10)))
    found = best_order(links, np.arange(10)[None, :], "all_reduce", 1e8)
    assert found.gain == 1 and found.order.tolist() == list(range(10))


def test_gain_grows_with_the_spread_of_links() -> None:
    """Pipette: the tuned order gains more where links are more unequal."""
    gains = []
    base = np.triu(np.random.default_rng(0).uniform(-1, 1, (16, 16)), 1)
    for spread in (0.0, 0.1, 0.3):
        width = 20e9 * (1 + spread * (base + base.T))
        links = LinkMatrix(tuple(map(str, range(16))), width, np.zeros((16, 16)))
        gains.append(best_order(links, np.arange(16)[None, :], "all_reduce", 1e9).gain)
    assert gains[0] == 1 and 1.05 < gains[1] < gains[2]
