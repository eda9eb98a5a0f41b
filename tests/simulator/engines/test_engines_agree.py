"""Properties that hold for every task graph: the engines agree, bounds hold, nothing is random."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towtank.simulator.engines.bounds import lower_bound
from towtank.simulator.engines.compiled import evaluate
from towtank.simulator.engines.simpy_engine import simulate
from towtank.simulator.engines.structure import build_structure
from towtank.simulator.graph import Contention, TaskGraph

SECONDS = st.one_of(st.just(0.0), st.floats(1e-6, 1e3))


@st.composite
def graphs(draw: st.DrawFn) -> TaskGraph:
    tasks = draw(st.integers(1, 30))
    streams = draw(st.integers(1, 6))
    index = st.integers(0, tasks - 1)
    edges = draw(st.lists(st.tuples(index, index).filter(lambda edge: edge[0] < edge[1]), max_size=2 * tasks))
    # numbered in topological order above, then shuffled across streams: each stream keeps its order
    stream = np.array(draw(st.lists(st.integers(0, streams - 1), min_size=tasks, max_size=tasks)))
    number = np.argsort(np.argsort(stream, kind="stable")) if draw(st.booleans()) else np.arange(tasks)
    shuffled = np.empty(tasks, int)
    shuffled[number] = stream
    structure = build_structure(
        shuffled,
        [number[source] for source, _ in edges],
        [number[target] for _, target in edges],
        draw(st.lists(st.integers(0, 2), min_size=streams, max_size=streams)),
        draw(st.lists(st.booleans(), min_size=streams, max_size=streams)),
        jit=False,
    )
    return TaskGraph(structure, np.array(draw(st.lists(SECONDS, min_size=tasks, max_size=tasks))))


@settings(max_examples=300, deadline=None)
@given(graphs())
def test_compiled_equals_simpy(graph):
    compiled, reference = evaluate(graph, jit=False), simulate(graph)
    np.testing.assert_allclose(compiled.start_s, reference.start_s, rtol=1e-9)
    np.testing.assert_allclose(compiled.finish_s, reference.finish_s, rtol=1e-9)
    np.testing.assert_array_equal(compiled.binding, reference.binding)
    assert lower_bound(graph) <= compiled.makespan_s


@settings(max_examples=50, deadline=None)
@given(graphs())
def test_jit_equals_interpreter_to_the_bit(graph):
    jitted, interpreted = evaluate(graph, jit=True), evaluate(graph, jit=False)
    assert jitted.start_s.tobytes() == interpreted.start_s.tobytes()
    assert jitted.finish_s.tobytes() == interpreted.finish_s.tobytes()
    assert jitted.binding.tobytes() == interpreted.binding.tobytes()


@settings(max_examples=50, deadline=None)
@given(graphs(), st.floats(0, 1))
def test_same_graph_gives_the_same_bits(graph, slowdown):
    for engine in (evaluate, simulate):
        once, again = engine(graph, Contention(slowdown)), engine(graph, Contention(slowdown))
        assert once.finish_s.tobytes() == again.finish_s.tobytes()
        assert once.binding.tobytes() == again.binding.tobytes()


@settings(max_examples=100, deadline=None)
@given(graphs())
def test_timeline_respects_streams_and_dependencies(graph):
    timeline, structure = evaluate(graph, jit=False), graph.structure
    target = np.repeat(np.arange(structure.num_tasks), np.diff(structure.predecessor_offset))
    assert (timeline.start_s[target] >= timeline.finish_s[structure.predecessor]).all()
    for stream in range(len(structure.device)):
        lane = np.flatnonzero(structure.stream == stream)
        assert (timeline.start_s[lane[1:]] >= timeline.finish_s[lane[:-1]]).all()
    bound = timeline.binding >= 0
    assert (timeline.start_s[~bound] == 0).all()
    assert (timeline.finish_s[timeline.binding[bound]] == timeline.start_s[bound]).all()


@settings(max_examples=100, deadline=None)
@given(graphs(), st.data())
def test_longer_tasks_never_end_sooner(graph, data):
    task = data.draw(st.integers(0, graph.structure.num_tasks - 1))
    longer = graph.duration_s.copy()
    longer[task] += data.draw(st.floats(0, 100))
    after = evaluate(TaskGraph(graph.structure, longer), jit=False)
    assert (after.finish_s >= evaluate(graph, jit=False).finish_s).all()


@settings(max_examples=300, deadline=None)
@given(graphs(), st.floats(0, 0.5))
def test_two_pass_contention_is_near_the_exact_one(graph, slowdown):
    """The error is of second order: within slowdown squared of the makespan."""
    alone = evaluate(graph, jit=False).makespan_s
    estimate = evaluate(graph, Contention(slowdown), jit=False).makespan_s
    exact = simulate(graph, Contention(slowdown)).makespan_s
    assert alone <= estimate
    assert lower_bound(graph) <= exact
    assert estimate <= alone * (1 + slowdown) * (1 + 1e-9)
    assert exact <= alone * (1 + slowdown) * (1 + 1e-9)
    assert estimate == pytest.approx(exact, rel=slowdown**2 + 1e-9)
