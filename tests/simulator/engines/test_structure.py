import numpy as np
import pytest

from towtank.simulator.engines.compiled import evaluate
from towtank.simulator.engines.simpy_engine import simulate
from towtank.simulator.engines.structure import DeadlockError, GraphError, build_structure
from towtank.simulator.graph import Contention, GraphStructure, TaskGraph


def build(stream, edges, jit=False):
    streams = max(stream) + 1
    sources, targets = [source for source, _ in edges], [target for _, target in edges]
    return build_structure(stream, sources, targets, [0] * streams, [False] * streams, jit=jit)


@pytest.mark.parametrize("jit", [False, True])
def test_order_respects_streams_and_dependencies(jit):
    structure = build([0, 0, 1, 1], [(3, 0), (2, 0)], jit)
    # tasks 2 and 3 of stream 1 come first, then tasks 0 and 1 of stream 0
    assert structure.order.tolist() == [2, 3, 0, 1]


def test_predecessors_keep_the_order_of_their_edges():
    structure = build([0, 1, 2, 3], [(1, 3), (0, 2), (0, 3), (2, 3)])
    assert structure.predecessor_offset.tolist() == [0, 0, 0, 1, 4]
    assert structure.predecessor.tolist() == [0, 1, 0, 2]


def test_both_ways_to_run_the_kernel_give_one_order():
    generator = np.random.default_rng(7)
    ends = np.sort(generator.integers(0, 500, (900, 2)), axis=1)
    edges = [tuple(edge) for edge in ends[ends[:, 0] < ends[:, 1]].tolist()]
    stream = generator.integers(0, 9, 500).tolist()
    interpreted, jitted = build(stream, edges, jit=False), build(stream, edges, jit=True)
    np.testing.assert_array_equal(interpreted.order, jitted.order)
    place = np.empty(500, int)
    place[interpreted.order] = np.arange(500)
    assert all(place[source] < place[target] for source, target in edges)


@pytest.mark.parametrize("jit", [False, True])
def test_cycle_is_named(jit):
    with pytest.raises(DeadlockError) as raised:
        build([0, 1, 2], [(0, 1), (1, 2), (2, 1)], jit)
    assert str(raised.value) == (
        "tasks must not wait for each other: task 1 (stream 1) waits for task 2; "
        "task 2 (stream 2) waits for task 1. 2 of 3 tasks never start; "
        "take out a dependency or change the order of issue"
    )


def test_inverted_order_of_issue_is_named():
    # stream 0 issues 0 then 1, stream 1 issues 2 then 3; 0 waits for 3 and 2 waits for 1
    with pytest.raises(
        DeadlockError, match=r"task 0 .stream 0. waits for task 3, which stands behind task 2"
    ):
        build([0, 0, 1, 1], [(3, 0), (1, 2)])


def test_simpy_reports_the_deadlock_that_it_runs_into():
    good = build([0, 0, 1, 1], [])
    crossed = GraphStructure(
        good.stream,
        np.array([0, 1, 1, 2, 2]),
        np.array([3, 1], np.int32),
        good.order,
        good.device,
        good.communicates,
    )
    with pytest.raises(
        DeadlockError, match=r"task 0 .stream 0. waits for task 3.*task 2 .* waits for task 1"
    ):
        simulate(TaskGraph(crossed, np.ones(4)))


def test_all_faults_are_told_at_once():
    with pytest.raises(GraphError) as raised:
        build_structure([0, 5], [0], [9], [0, 0], [False])
    message = str(raised.value)
    assert "got 2 and 1" in message
    assert "stream must be in 0..1, got 5 at position 1" in message
    assert "target must be in 0..1, got 9 at position 0" in message


def test_shared_arrays_cannot_be_written():
    structure = build([0, 1], [(0, 1)])
    with pytest.raises(ValueError, match="read-only"):
        structure.order[0] = 1


@pytest.mark.parametrize("engine", [evaluate, simulate])
def test_wrong_durations_are_refused(engine):
    structure = build([0, 1], [])
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(GraphError, match=f"got {wrong} for task 1"):
            engine(TaskGraph(structure, np.array([1.0, wrong])))
    with pytest.raises(GraphError, match="one entry a task"):
        engine(TaskGraph(structure, np.ones(3)))
    with pytest.raises(GraphError, match=r"compute_slowdown .* got -0.1"):
        engine(TaskGraph(structure, np.ones(2)), Contention(-0.1))


@pytest.mark.parametrize("engine", [evaluate, simulate])
def test_empty_graph_takes_no_time(engine):
    structure = build_structure([], [], [], [], [])
    assert engine(TaskGraph(structure, np.zeros(0)), Contention(0.1)).makespan_s == 0
