"""Small graphs worked out by hand, for both engines."""

import subprocess
import sys

import numpy as np
import pytest

from towtank.simulator.engines import jit
from towtank.simulator.engines.bounds import lower_bound
from towtank.simulator.engines.compiled import evaluate
from towtank.simulator.engines.simpy_engine import simulate
from towtank.simulator.engines.structure import build_structure
from towtank.simulator.graph import Contention, TaskGraph

COMPUTE, COMMUNICATE = 0, 1


def beside(compute_s, communicate_s, edges=(), device=(0, 0)):
    """Compute tasks 0, 1, ... on stream 0, then communication tasks on stream 1."""
    structure = build_structure(
        [COMPUTE] * len(compute_s) + [COMMUNICATE] * len(communicate_s),
        [source for source, _ in edges],
        [target for _, target in edges],
        device,
        [False, True],
        jit=False,
    )
    return TaskGraph(structure, np.array([*compute_s, *communicate_s], float))


@pytest.mark.parametrize("engine", [evaluate, simulate])
def test_start_and_binding(engine):
    # compute 0-2, 2-5; communication starts after task 0 at 2 and lasts until 3; task 1 does not wait for it
    timeline = engine(beside([2, 3], [1], edges=[(0, 2)]))
    assert timeline.start_s.tolist() == [0, 2, 2]
    assert timeline.finish_s.tolist() == [2, 5, 3]
    assert timeline.binding.tolist() == [-1, 0, 0]
    assert timeline.makespan_s == 5


@pytest.mark.parametrize("engine", [evaluate, simulate])
@pytest.mark.parametrize(
    ("compute_s", "communicate_s", "edges", "finish_s"),
    [
        # 2 s under communication do 2 / 1.25 = 1.6 s of work, 0.4 s are left: 2.4 s
        ([2], [2], [], [2.4, 2]),
        # communication outlasts the kernel: 2 x 1.25
        ([2], [9], [], [2.5, 9]),
        # kernels behind each other share the communication: 1.25, then 0.75 s at 1 / 1.25 = 0.6, 0.4 left
        ([1, 1], [2], [], [1.25, 2.4, 2]),
        # two separate collectives inside one kernel; the second waits for the first on its stream
        ([4], [1, 1], [], [4.4, 1, 2]),
        # communication begins at 1, behind the first kernel; until 3 the second does 1.6 s, 1.4 s are left
        ([1, 3], [2], [(0, 2)], [1, 4.4, 3]),
    ],
)
def test_contention_by_hand(engine, compute_s, communicate_s, edges, finish_s):
    timeline = engine(beside(compute_s, communicate_s, edges), Contention(0.25))
    np.testing.assert_allclose(timeline.finish_s, finish_s, rtol=1e-12)


@pytest.mark.parametrize("engine", [evaluate, simulate])
def test_communication_on_another_device_does_not_slow_down(engine):
    timeline = engine(beside([2], [2], device=(0, 1)), Contention(0.25))
    assert timeline.finish_s.tolist() == [2, 2]


@pytest.mark.parametrize("engine", [evaluate, simulate])
def test_two_collectives_at_once_slow_down_once(engine):
    structure = build_structure([0, 1, 2], [], [], [0, 0, 0], [False, True, True], jit=False)
    timeline = engine(TaskGraph(structure, np.array([2.0, 2.0, 1.0])), Contention(0.25))
    np.testing.assert_allclose(timeline.finish_s, [2.4, 2, 1], rtol=1e-12)


def test_exact_contention_follows_what_it_delays():
    # kernel 0 is delayed to 1.25 by the collective beside it; so the collective behind it runs 1.25-3.25 and
    # kernel 1, from 1.25 on, does 2 / 1.25 = 1.6 of its 2 s until then: 3.65
    structure = build_structure([0, 0, 1, 1], [0], [3], [0, 0], [False, True], jit=False)
    graph = TaskGraph(structure, np.array([1.0, 2.0, 1.25, 2.0]))
    np.testing.assert_allclose(
        simulate(graph, Contention(0.25)).finish_s, [1.25, 3.65, 1.25, 3.25], rtol=1e-12
    )


def test_bound_of_a_chain_is_its_length():
    # stream 0: 1 s, then 2 s; stream 1 waits for both and takes 4 s; stream 2 waits for that and takes 8 s
    structure = build_structure([0, 0, 1, 2], [1, 2], [2, 3], [0, 1, 2], [False] * 3, jit=False)
    assert lower_bound(TaskGraph(structure, np.array([1.0, 2.0, 4.0, 8.0]))) == pytest.approx(15)


def test_numba_is_loaded_only_when_it_pays():
    program = (
        "import sys, numpy as np\n"
        "from towtank.simulator.engines import jit\n"
        "from towtank.simulator.engines.compiled import evaluate\n"
        "from towtank.simulator.graph import TaskGraph\n"
        "from towtank.simulator.schedules.expand import pipeline_structure\n"
        "structure = pipeline_structure('1f1b', 4, 1, 32).structure\n"
        "evaluate(TaskGraph(structure, np.ones(structure.num_tasks)))\n"
        "heavy = {'numba', 'simpy', 'scipy', 'pandas', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "jit.INTERPRETED_TASKS = 0\n"
        "evaluate(TaskGraph(structure, np.ones(structure.num_tasks)))\n"
        "assert 'numba' in sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_kernels_compile_where_nothing_can_be_cached(monkeypatch):
    import numba

    real, asked = numba.njit, []

    def njit(*arguments, **options):
        asked.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(*arguments, **options)

    monkeypatch.setattr(numba, "njit", njit)
    assert jit.compiled(_answer)() == 42
    # the first compilation of a process makes numba compile parts of its own, after ours
    assert asked[:2] == [{"cache": True}, {}]


def _answer():
    return 42
