"""Transfers that share links over time: by hand, bytes conserved, loop and SimPy agree."""

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from towtank.simulator.network.processes import FlowNetwork
from towtank.simulator.network.routes import from_lists
from towtank.simulator.network.topology import switch
from towtank.simulator.network.transfers import finish_times, transfer_times

Rows = list[list[tuple[int, float]]]
Case = tuple[list[float], Rows, list[float], list[float]]


def by_loop(case: Case) -> list[float]:
    capacity, rows, size, start = case
    found = finish_times(np.array(capacity), from_lists(rows), np.array(size, float), np.array(start, float))
    return [float(time) for time in found]


def by_simpy(case: Case) -> tuple[list[float], float]:
    capacity, rows, size, start = case
    environment = simpy.Environment()
    network = FlowNetwork(environment, np.array(capacity))
    finish = [-1.0] * len(rows)

    def process(number: int) -> Generator[Any, Any, None]:
        yield environment.timeout(start[number])
        yield network.transfer(from_lists([rows[number]]), size[number])
        finish[number] = environment.now

    for number in range(len(rows)):
        environment.process(process(number))
    environment.run()
    return finish, network.bytes_moved


def test_a_second_flow_halves_the_rate_while_it_lasts() -> None:
    # link of 10. A: 100 bytes from 0. B: 20 bytes from 2: A has 80 left, both at 5 until B is done at 6 (A has 60),
    # then A alone: 6 + 6 = 12
    case: Case = ([10.0], [[(0, 1)], [(0, 1)]], [100, 20], [0, 2])
    assert by_loop(case) == pytest.approx([12, 6])
    assert by_simpy(case)[0] == pytest.approx([12, 6])


def test_a_finish_frees_links_further_away() -> None:
    # A on link 0 (cap 4), B on 0 and 1, C on 1 (cap 10). A = B = 2, C = 8. A: 4 bytes, done at 2. Then B 4, C 6.
    # B: 12 bytes: 4 at t=2, then 8 at 4: t=4. C: 8*2 + 6*2 = 28 at t=4, then 10 a second: 48 bytes at t=6
    case: Case = ([4.0, 10.0], [[(0, 1)], [(0, 1), (1, 1)], [(1, 1)]], [4, 12, 48], [0, 0, 0])
    assert by_loop(case) == pytest.approx([2, 4, 6])
    assert by_simpy(case)[0] == pytest.approx([2, 4, 6])


def test_flows_apart_do_not_notice_each_other() -> None:
    case: Case = ([1.0, 1.0], [[(0, 1)], [(1, 1)]], [3, 5], [0, 1])
    assert by_loop(case) == pytest.approx([3, 6])


def test_empty_messages_and_messages_to_oneself_take_no_time() -> None:
    case: Case = ([1.0], [[(0, 1)], []], [0, 7], [2, 3])
    assert by_loop(case) == [2, 3]
    assert by_simpy(case)[0] == [2, 3]


@pytest.mark.parametrize("size", [5e-324, 1e-300, 1e-18])
def test_a_message_too_small_to_move_the_clock_arrives(size: float) -> None:
    for start in (0.0, 3.0):
        case: Case = ([7.0], [[(0, 1)], [(0, 1)]], [size, 14], [start, start])
        assert by_loop(case) == pytest.approx([start, start + 2])
        assert by_simpy(case)[0] == pytest.approx([start, start + 2])


def test_limits_and_counts() -> None:
    routes, capacity = from_lists([[(0, 1)]]), np.array([12.0])
    one = finish_times(capacity, routes, np.array([12.0]), np.zeros(1), count=np.array([3]))
    assert one == pytest.approx([3])
    slow = finish_times(capacity, routes, np.array([12.0]), np.zeros(1), limit_bytes_per_s=np.array([2.0]))
    assert slow == pytest.approx([6])
    with pytest.raises(ValueError, match="must be 0 or more"):
        finish_times(capacity, routes, np.array([-1.0]), np.zeros(1))


def test_latency_delays_the_first_byte() -> None:
    topology = switch(2, 100.0, 0.5)
    assert transfer_times(topology, np.array([0]), np.array([1]), np.array([200.0])) == pytest.approx([2.5])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    capacity = draw(st.lists(st.floats(0.5, 20), min_size=1, max_size=5))
    link = st.integers(0, len(capacity) - 1)
    row = st.dictionaries(link, st.sampled_from([1.0, 0.5]), min_size=1, max_size=3)
    rows = [list(links.items()) for links in draw(st.lists(row, min_size=1, max_size=7))]
    numbers = st.lists(st.floats(0, 30), min_size=len(rows), max_size=len(rows))
    return capacity, rows, draw(numbers), draw(numbers)


@given(cases())
def test_loop_and_simpy_agree(case: Case) -> None:
    finish, moved = by_simpy(case)
    assert by_loop(case) == pytest.approx(finish, rel=1e-6, abs=1e-9)
    assert moved == pytest.approx(sum(case[2]))


@given(cases())
def test_no_flow_is_faster_than_alone_and_all_arrive(case: Case) -> None:
    capacity, rows, size, start = case
    for row, done, bytes_, begin in zip(rows, by_loop(case), size, start, strict=True):
        alone = max(bytes_ * share / capacity[link] for link, share in row)
        assert np.isfinite(done) and done >= begin + alone * (1 - 1e-6) - 1e-9


@given(cases())
def test_each_link_carries_its_bytes_within_its_capacity(case: Case) -> None:
    # up to the last finish a link cannot have carried more than its capacity times the time it was in use
    capacity, rows, size, start = case
    finish = by_loop(case)
    for link, rate in enumerate(capacity):
        users = [f for f, row in enumerate(rows) if any(k == link for k, _ in row) and size[f] > 0]
        if users:
            carried = sum(size[f] * dict(rows[f])[link] for f in users)
            span = max(finish[f] for f in users) - min(start[f] for f in users)
            assert carried <= rate * span * (1 + 1e-6) + 1e-6
