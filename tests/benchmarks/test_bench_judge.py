"""Plans judged a second: enumerated, peak memory, bound of those that fit; Megatron 1T on 3,072 A100."""

import time

import numpy as np
import pytest

from towtank import load_machine, load_model, load_stack
from towtank.autotune.judge.bound import step_bound_s
from towtank.autotune.judge.memory import peak_memory_bytes
from towtank.autotune.space.enumerate import legal_plans
from towtank.autotune.task import TuningTask
from towtank.simulator.predict import bound

pytestmark = pytest.mark.benchmark


@pytest.fixture(scope="module")
def task():
    return TuningTask(load_model("megatron-1t"), load_machine("selene"), load_stack("any"), 3072, 3072)


def test_plans_enumerated_and_judged_a_second(benchmark, task, capsys):
    seconds: dict[str, float] = {}

    def clocked(name, work):
        begin = time.process_time()
        result = work()
        seconds[name] = time.process_time() - begin
        return result

    def judged() -> tuple[int, int]:
        table = clocked("enumerate", lambda: legal_plans(task))
        peaks = clocked("memory", lambda: peak_memory_bytes(task, table))
        fitting = table.take(peaks <= task.machine.device.memory_capacity_bytes)
        bounds = clocked("bound", lambda: step_bound_s(task, fitting))
        assert np.all(np.isfinite(bounds))
        return table.num_rows, fitting.num_rows

    plans, fit = benchmark.pedantic(judged, rounds=1)
    rate = plans / sum(seconds.values())
    benchmark.extra_info["plans_judged_per_core_second"] = rate
    with capsys.disabled():
        parts = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
        print(f"\n{plans} plans, {fit} fit: {parts}: {rate:.0f} plans a second on one core")


def test_bound_of_one_plan(benchmark, task):
    table = legal_plans(task)
    plan = table.plan(table.num_rows // 2)
    assert benchmark(lambda: bound(task.model, task.machine, plan, task.stack)) > 0
