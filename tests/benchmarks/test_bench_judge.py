"""Plans judged a second: enumerated, peak memory, bounds of those that fit as the search needs them; large jobs."""

import time

import numpy as np
import pytest

from towtank import load_machine, load_model, load_stack
from towtank.autotune.judge.memory import peak_memory_bytes
from towtank.autotune.search.narrowing import narrowed
from towtank.autotune.search.pool import Crew
from towtank.autotune.space.enumerate import legal_plans
from towtank.autotune.task import TuningTask
from towtank.simulator.predict import bound

pytestmark = pytest.mark.benchmark


@pytest.fixture(scope="module")
def task():
    return TuningTask(load_model("megatron-1t"), load_machine("selene"), load_stack("any"), 3072, 3072)


JOBS = {
    "1t": ("megatron-1t", "selene", 3072, 3072, None),
    "405b-8k": ("llama3.1-405b", "dgx-h100:nodes=1024", 8192, 2048, 8192),
}
"""Model, machine, devices, sequences of one step, tokens of a sequence."""


@pytest.mark.parametrize("job", JOBS)
def test_plans_enumerated_and_judged_a_second(benchmark, job, capsys):
    model, machine, *numbers = JOBS[job]
    task = TuningTask(load_model(model), load_machine(machine), load_stack("any"), *numbers)
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
        crew = Crew(task, 1)
        left = clocked(
            "bounds", lambda: narrowed(task, fitting, 10, crew, lambda needed_s: True, lambda progress: None)
        )
        assert np.all(np.isfinite(left.bound_s)) and len(left.seconds) >= 10
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
