"""Max-min fair shares: cases by hand, and the definition as a property."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from towtank.simulator.network.fairness import max_min_rates, saturated
from towtank.simulator.network.routes import Routes, alike, from_lists

Rows = list[list[tuple[int, float]]]


def rates(capacity: list[float], rows: Rows, **options: object) -> list[float]:
    found = max_min_rates(np.array(capacity, float), from_lists(rows), **options)  # type: ignore[arg-type]
    return [float(rate) for rate in found]


def test_one_link_is_shared_evenly() -> None:
    assert rates([12.0], [[(0, 1.0)]] * 3) == pytest.approx([4, 4, 4])


def test_parking_lot() -> None:
    # one long flow over both links, one short flow on each: the long one gets half of the narrow link (3),
    # its neighbour there the other half, and the short flow of the wide link what is left of 10
    assert rates([6.0, 10.0], [[(0, 1), (1, 1)], [(0, 1)], [(1, 1)]]) == pytest.approx([3, 3, 7])


def test_bertsekas_gallager_chain() -> None:
    # three flows on link 0 (capacity 1): 1/3 each; one of them goes on to link 1 (capacity 1) with one other: 2/3;
    # that one goes on to link 2 (capacity 2) alone with a third: 4/3
    rows: Rows = [[(0, 1)], [(0, 1)], [(0, 1), (1, 1)], [(1, 1), (2, 1)], [(2, 1)]]
    assert rates([1, 1, 2], rows) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2 / 3, 4 / 3])


def test_weights_and_limits() -> None:
    assert rates([9.0], [[(0, 1)], [(0, 1)]], weight=np.array([1.0, 2.0])) == pytest.approx([3, 6])
    assert rates([9.0], [[(0, 1)], [(0, 1)]], limit_bytes_per_s=np.array([2.0, np.inf])) == pytest.approx(
        [2, 7]
    )
    assert rates([9.0], [[(0, 1)], []], limit_bytes_per_s=np.array([99.0, 5.0])) == pytest.approx([9, 5])


def test_a_flow_over_two_paths_uses_its_share_of_each() -> None:
    # half of flow 0 over each of two links of 4 and 8: at rate 8 the first is full; flow 1 then shares it
    assert rates([4.0, 8.0], [[(0, 0.5), (1, 0.5)]]) == pytest.approx([8])
    # both at t: 0.5 t + t = 4
    assert rates([4.0, 8.0], [[(0, 0.5), (1, 0.5)], [(0, 1)]]) == pytest.approx([8 / 3, 8 / 3])


def test_faults_are_named() -> None:
    with pytest.raises(ValueError, match="capacity_bytes_per_s must be above zero"):
        rates([1.0, 0.0], [[(0, 1)]])
    with pytest.raises(ValueError, match="finite"):
        rates([np.inf], [[(0, 1)]])


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[float], Rows]:
    capacity = draw(st.lists(st.floats(0.5, 50), min_size=1, max_size=7))
    link = st.integers(0, len(capacity) - 1)
    row = st.dictionaries(link, st.sampled_from([1.0, 0.5, 0.25, 2.0]), min_size=1, max_size=4)
    return capacity, [list(links.items()) for links in draw(st.lists(row, min_size=1, max_size=12))]


def _solved(network: tuple[list[float], Rows]) -> tuple[np.ndarray, Routes, np.ndarray]:
    capacity, routes = np.array(network[0]), from_lists(network[1])
    return capacity, routes, max_min_rates(capacity, routes)


@given(networks())
def test_no_link_above_capacity(network: tuple[list[float], Rows]) -> None:
    capacity, routes, rate = _solved(network)
    assert (routes.load(len(capacity), rate) <= capacity * (1 + 1e-9)).all()


@given(networks())
def test_every_flow_has_a_full_link_on_which_none_is_faster(network: tuple[list[float], Rows]) -> None:
    capacity, routes, rate = _solved(network)
    full = saturated(capacity, routes, rate)
    for flow in range(routes.num_flows):
        links = routes.link[routes.offset[flow] : routes.offset[flow + 1]]
        fastest = [rate[routes.flow[routes.link == link]].max() for link in links if link in full]
        assert fastest and rate[flow] >= min(fastest) * (1 - 1e-9)


@given(networks(), st.dictionaries(st.integers(0, 6), st.sampled_from([1.0, 0.5]), min_size=1))
def test_the_smallest_rate_never_rises_when_a_flow_is_added(
    network: tuple[list[float], Rows], added: dict[int, float]
) -> None:
    capacity, rows = network
    _, _, before = _solved(network)
    _, _, after = _solved(
        (capacity, [*rows, [(link % len(capacity), share) for link, share in added.items()]])
    )
    assert after.min() <= before.min() * (1 + 1e-9)


@given(networks())
def test_order_of_flows_changes_nothing(network: tuple[list[float], Rows]) -> None:
    capacity, rows = network
    _, _, rate = _solved(network)
    order = np.random.default_rng(len(rows)).permutation(len(rows))
    _, _, permuted = _solved((capacity, [rows[index] for index in order]))
    assert permuted == pytest.approx(rate[order], rel=1e-9)


@given(networks(), st.integers(1, 5))
def test_equal_flows_merged_have_the_rates_of_single_ones(
    network: tuple[list[float], Rows], copies: int
) -> None:
    capacity, rows = np.array(network[0]), network[1]
    routes = from_lists(rows * copies)
    merged, member, count = alike(routes)
    assert merged.num_flows == len({tuple(sorted(row)) for row in rows})
    assert count.sum() == routes.num_flows
    single = max_min_rates(capacity, routes)
    assert max_min_rates(capacity, merged, count=count)[member] == pytest.approx(single, rel=1e-9)


@given(networks())
def test_agrees_with_filling_one_link_at_a_time(network: tuple[list[float], Rows]) -> None:
    capacity, _, rate = _solved(network)
    assert rate == pytest.approx(_textbook(capacity, network[1]), rel=1e-9)


def _textbook(capacity: np.ndarray, rows: Rows) -> list[float]:
    """Progressive filling as it is taught: raise all rates until one link is full, stop its flows, go on."""
    rate, open_flows = [0.0] * len(rows), set(range(len(rows)))
    while open_flows:
        level = {}
        for link, limit in enumerate(capacity):
            used = sum(rate[f] * s for f, row in enumerate(rows) for k, s in row if k == link)
            growth = sum(s for f in open_flows for k, s in rows[f] if k == link)
            if growth > 0:
                level[link] = (limit - used) / growth
        step = min(level.values())
        for flow in open_flows:
            rate[flow] += step
        full = {link for link, value in level.items() if value <= step * (1 + 1e-12) + 1e-15}
        open_flows -= {f for f in open_flows if any(k in full for k, _ in rows[f])}
    return rate
