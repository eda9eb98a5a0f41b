"""Collectives as flows in a task graph: shares by hand, and conservation of bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from towtank.simulator.engines.flow_engine import Collective, FlowClasses, simulate_flows
from towtank.simulator.engines.simpy_engine import simulate
from towtank.simulator.engines.structure import build_structure
from towtank.simulator.graph import Contention, TaskGraph
from towtank.simulator.network.routes import from_lists

NONE = Contention()


def classes(capacity: float, rows: list[list[tuple[int, float]]], limit: list[float], weight: list[float]):
    routes = from_lists(rows)
    single = tuple(routes.take(np.array([number])) for number in range(len(rows)))
    return FlowClasses(np.array([capacity]), single, np.array(limit), np.array(weight))


def graph(streams: list[int], duration: list[float], edges: list[tuple[int, int]] = []):  # noqa: B006
    """Stream 0 computes, 1 and 2 communicate."""
    source, target = [a for a, _ in edges], [b for _, b in edges]
    structure = build_structure(streams, source, target, [0, 0, 0], [False, True, True])
    return TaskGraph(structure, np.array(duration))


def test_two_rings_on_one_interface_by_hand() -> None:
    # 10 B/s; a ring of 4 senders (a quarter each) at 20 B/s, twice, and one of 1 sender at 5 B/s, twice. At once
    # the senders get 2.5 B/s: 10 and 2.5 B/s. 40 B of the first take 4 s; the other has moved 10 of 20 B, the rest
    # at its own 5 B/s takes 2 s
    network = classes(10.0, [[(0, 0.5)], [(0, 2.0)]], [20.0, 5.0], [4.0, 1.0])
    tasks = {0: [Collective(0.0, 40.0, (0,))], 1: [Collective(0.0, 20.0, (1,))]}
    run = simulate_flows(graph([1, 2], [2.0, 4.0]), NONE, network, tasks)
    assert run.timeline.finish_s == pytest.approx([4.0, 6.0], rel=1e-12)
    assert run.bytes_moved == 60.0


def test_compute_runs_beside_and_a_later_collective_meets_the_first() -> None:
    # the second collective starts after 3 s of compute and 1 s of latency, when the first has moved 40 of 60 B;
    # both at 5 B/s: the first ends at 8, the second has 20 of 40 B left and ends at 10
    network = classes(10.0, [[(0, 1.0)], [(0, 1.0)]], [10.0, 10.0], [1.0, 1.0])
    tasks = {1: [Collective(0.0, 60.0, (0,))], 2: [Collective(1.0, 40.0, (1,))]}
    run = simulate_flows(graph([0, 1, 2], [3.0, 6.0, 5.0], [(0, 2)]), NONE, network, tasks)
    assert run.timeline.start_s.tolist() == [0.0, 0.0, 3.0]
    assert run.timeline.finish_s == pytest.approx([3.0, 8.0, 10.0], rel=1e-12)


def test_compute_is_slowed_as_long_as_flows_run() -> None:
    # two flows of 10 B share 10 B/s for 2 s; of 3 s of compute 2 / 1.5 are done then
    network = classes(10.0, [[(0, 1.0)], [(0, 1.0)]], [10.0, 10.0], [1.0, 1.0])
    tasks = {number: [Collective(0.0, 10.0, (number - 1,))] for number in (1, 2)}
    run = simulate_flows(graph([0, 1, 2], [3.0, 1.0, 1.0]), Contention(0.5), network, tasks)
    assert run.timeline.finish_s == pytest.approx([2 + 3 - 2 / 1.5, 2.0, 2.0], rel=1e-12)


def test_a_collective_ends_with_the_slowest_of_its_classes() -> None:
    network = classes(10.0, [[(0, 1.0)], []], [10.0, 2.0], [1.0, 1.0])
    run = simulate_flows(graph([1], [1.0]), NONE, network, {0: [Collective(0.5, 10.0, (0, 1))]})
    assert run.timeline.finish_s == pytest.approx([5.5], rel=1e-12)


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.floats(0.1, 100.0)), min_size=1, max_size=12))
def test_bytes_are_conserved_and_a_full_link_is_never_idle(tasks: list[tuple[int, float]]) -> None:
    network = classes(10.0, [[(0, 1.0)], [(0, 1.0)]], [10.0, 10.0], [1.0, 1.0])
    moved = {number: [Collective(0.0, size, (stream - 1,))] for number, (stream, size) in enumerate(tasks)}
    run = simulate_flows(graph([stream for stream, _ in tasks], [1.0] * len(tasks)), NONE, network, moved)
    total = sum(size for _, size in tasks)
    assert run.bytes_moved == pytest.approx(total, rel=1e-12)
    assert run.timeline.makespan_s == pytest.approx(total / 10.0, rel=1e-9)


@given(st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.floats(0.1, 100.0)), min_size=1, max_size=12))
def test_with_room_for_all_it_is_the_plain_engine(tasks: list[tuple[int, float]]) -> None:
    network = classes(20.0, [[(0, 1.0)], [(0, 1.0)]], [10.0, 10.0], [1.0, 1.0])
    plain = graph([stream for stream, _ in tasks], [seconds for _, seconds in tasks])
    flows = {
        number: [Collective(0.25 * seconds, 7.5 * seconds, (stream - 1,))]
        for number, (stream, seconds) in enumerate(tasks)
        if stream
    }
    run = simulate_flows(plain, Contention(0.1), network, flows)
    expected = simulate(plain, Contention(0.1))
    assert run.timeline.finish_s == pytest.approx(expected.finish_s, rel=1e-9)
