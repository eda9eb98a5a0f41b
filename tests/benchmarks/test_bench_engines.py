"""Timings of the largest pipeline that we care about, 64 stages x 512 micro-batches: 130,112 tasks.

pytest tests/benchmarks/test_bench_engines.py -m benchmark
"""

import numpy as np
import pytest

from towtank.simulator.engines.bounds import lower_bound, pipeline_bound
from towtank.simulator.engines.compiled import evaluate
from towtank.simulator.engines.simpy_engine import simulate
from towtank.simulator.engines.structure import build_structure
from towtank.simulator.graph import Contention, TaskGraph
from towtank.simulator.schedules import schedule
from towtank.simulator.schedules.expand import pipeline_structure
from towtank.simulator.schedules.roles import Role

pytestmark = pytest.mark.benchmark

STAGES, MICRO_BATCHES = 64, 512


@pytest.fixture(scope="module")
def graph():
    pipeline = pipeline_structure("1f1b", STAGES, 1, MICRO_BATCHES)
    seconds = np.zeros(len(Role))
    seconds[[Role.FORWARD, Role.BACKWARD, Role.SEND_FORWARD, Role.SEND_BACKWARD]] = 1.0, 2.0, 0.01, 0.01
    return TaskGraph(pipeline.structure, seconds[pipeline.role])


@pytest.mark.parametrize("jit", [True, False], ids=["jit", "interpreted"])
def test_evaluate(benchmark, graph, jit):
    evaluate(graph, jit=jit)
    assert benchmark(evaluate, graph, jit=jit).makespan_s > 0


@pytest.mark.parametrize("jit", [True, False], ids=["jit", "interpreted"])
def test_evaluate_with_contention(benchmark, graph, jit):
    contention = Contention(0.1)
    evaluate(graph, contention, jit=jit)
    assert benchmark(evaluate, graph, contention, jit=jit).makespan_s > 0


@pytest.mark.parametrize("jit", [True, False], ids=["jit", "interpreted"])
def test_build_structure(benchmark, graph, jit):
    structure = graph.structure
    target = np.repeat(np.arange(structure.num_tasks), np.diff(structure.predecessor_offset))
    arguments = (structure.stream, structure.predecessor, target, structure.device, structure.communicates)
    build_structure(*arguments, jit=jit)
    assert benchmark(build_structure, *arguments, jit=jit).num_tasks == structure.num_tasks


def test_schedule(benchmark):
    assert benchmark(schedule.__wrapped__, "1f1b", STAGES, 1, MICRO_BATCHES).phase.size


def test_pipeline_structure(benchmark):
    assert benchmark(pipeline_structure.__wrapped__, "1f1b", STAGES, 1, MICRO_BATCHES).role.size


@pytest.mark.parametrize("slowdown", [0.0, 0.1])
def test_simpy(benchmark, graph, slowdown):
    timeline = benchmark.pedantic(simulate, (graph, Contention(slowdown)), rounds=2)
    assert timeline.makespan_s > 0


def test_lower_bound(benchmark, graph):
    assert benchmark(lower_bound, graph) > 0


def test_pipeline_bound(benchmark):
    forward, backward, tail_s = np.full((1, STAGES), 1.0), np.full((1, STAGES), 2.0), np.full(STAGES, 0.5)
    assert benchmark(pipeline_bound, forward, backward, MICRO_BATCHES, send_forward_s=0.01, tail_s=tail_s) > 0
