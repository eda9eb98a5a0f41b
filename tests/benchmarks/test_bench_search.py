"""The search of Megatron 1T on 3,072 A100: plans simulated a second by one process, and the whole command.

pytest tests/benchmarks/test_bench_search.py -m benchmark
"""

import json
import resource
import subprocess
import sys
import time

import numpy as np
import pytest

from towtank import load_machine, load_model, load_stack
from towtank.autotune.judge.bound import step_bound_s
from towtank.autotune.judge.memory import peak_memory_bytes
from towtank.autotune.search.simulate import StepClock
from towtank.autotune.space.enumerate import legal_plans
from towtank.autotune.task import TuningTask

pytestmark = pytest.mark.benchmark

PLANS = 600


def test_plans_simulated_by_one_process(capsys):
    task = TuningTask(
        load_model("megatron-1t"), load_machine("selene"), load_stack("megatron-core"), 3072, 3072
    )
    table = legal_plans(task)
    fitting = np.flatnonzero(peak_memory_bytes(task, table) <= task.memory_limit_bytes())
    order = np.argsort(step_bound_s(task, table.take(fitting)), kind="stable")
    plans = [table.plan(int(place)) for place in fitting[order[:PLANS]]]
    StepClock(task).seconds(plans[0])  # numba
    clock, began = StepClock(task), time.process_time()
    seconds = [clock.seconds(plan) for plan in plans]
    rate = PLANS / (time.process_time() - began)
    with capsys.disabled():
        print(f"\n{rate:.0f} plans a second and core, the first {PLANS} in the order of their bounds")
    assert len(set(plans)) == PLANS
    assert min(seconds) > 0


@pytest.mark.parametrize("stack", ["any", "megatron-core"])
@pytest.mark.parametrize(
    "job",
    [
        ["megatron-1t", "selene", "3072", "3072", "2048"],
        ["megatron-530b", "selene:nodes=280", "2240", "2240", "2048"],
        ["llama-3.1-405b", "grand-teton:nodes=1024", "8192", "2048", "8192"],
        ["llama-3.1-405b", "grand-teton:nodes=1024", "8192", "128", "131072"],
    ],
    ids=lambda job: f"{job[0]}-{job[4]}",
)
def test_whole_searches(capsys, tmp_path, job, stack):
    model, machine, devices, batch, sequence = job
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "towtank.cli", "tune", "--model", model, "--machine", machine, "--devices", devices,
         "--global-batch", batch, "--sequence", sequence, "--stack", stack, "--workers", "2", "--json",
         "-o", str(tmp_path / "plan.yaml")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    found = json.loads(done.stdout)
    peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    with capsys.disabled():
        print(f"\n{model} {sequence} {stack}: {found['counts']}, {seconds:.1f} s, {peak_gb:.2f} GB at most")
    assert found["proven"]
