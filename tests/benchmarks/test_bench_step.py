"""Times of one Megatron 1T step on 3,072 A100: 64 stages x 512 micro-batches, in process, after warm-up."""

import resource
import subprocess
import sys

import pytest

from towtank import Plan, load_machine, load_model, load_stack
from towtank.simulator.cost.model import CostModel
from towtank.simulator.engines.compiled import evaluate
from towtank.simulator.engines.simpy_engine import simulate
from towtank.simulator.predict import bound
from towtank.simulator.program import lower
from towtank.simulator.step import time_step

pytestmark = pytest.mark.benchmark

PLAN = Plan(
    tensor_x=8, pipeline=64, data=6, micro_batch=1, global_batch=3072, recompute="full", precision="fp16"
)


@pytest.fixture(scope="module")
def job():
    return load_model("megatron-1t"), load_machine("selene"), load_stack("megatron-2021")


def test_closed_form_bound(benchmark, job):
    model, machine, stack = job
    seconds = benchmark(lambda: bound(model, machine, PLAN, stack))
    assert 90 < seconds < 110


def test_compiled_engine_with_lowering_costing_and_graph(benchmark, job):
    model, machine, stack = job

    def step() -> float:
        lower.cache_clear()
        return time_step(lower(model, PLAN, stack), CostModel(machine, PLAN, stack), evaluate).step_time_s

    for _ in range(5):  # past the interpreted evaluations
        step()
    assert 90 < benchmark(step) < 110


def test_simpy_engine(benchmark, job):
    model, machine, stack = job
    program, cost = lower(model, PLAN, stack), CostModel(machine, PLAN, stack)
    seconds = benchmark.pedantic(lambda: time_step(program, cost, simulate).step_time_s, rounds=3)
    assert 90 < seconds < 110


def test_peak_resident_memory(benchmark, job, capsys):
    model, machine, stack = job
    step = benchmark.pedantic(
        lambda: time_step(lower(model, PLAN, stack), CostModel(machine, PLAN, stack), simulate), rounds=1
    )
    assert 90 < step.step_time_s < 110
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    benchmark.extra_info["peak_rss_mb"] = peak_mb
    with capsys.disabled():
        print(f"\npeak resident memory of the process: {peak_mb:.0f} MB")


def test_step_of_32768_devices_with_contention(benchmark):
    # AxoNN's 320B on Frontier: grid, cached weights, shared interfaces, cables between groups, slowest device
    plan = Plan(
        tensor_x=8, tensor_y=2, tensor_z=64, data=32, micro_batch=4, global_batch=8192, recompute="full",
        cached_layers=93,
    )  # fmt: skip
    model, machine, stack = load_model("gpt-320b"), load_machine("frontier"), load_stack("axonn")

    def step() -> float:
        lower.cache_clear()
        return time_step(lower(model, plan, stack), CostModel(machine, plan, stack), evaluate).step_time_s

    for _ in range(5):
        step()
    assert 20 < benchmark(step) < 40


COMMANDS = {
    "help": ["--help"],
    "predict": [
        *("predict", "--model", "megatron-1t", "--machine", "selene", "--stack", "megatron-2021", "--set"),
        "tensor_x=8,pipeline=64,data=6,micro_batch=1,global_batch=3072,recompute=full,precision=fp16",
    ],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_whole_process(benchmark, command):
    arguments = [sys.executable, "-m", "towtank.cli", *COMMANDS[command]]
    done = benchmark.pedantic(
        lambda: subprocess.run(arguments, capture_output=True, check=True), rounds=5, warmup_rounds=1
    )
    assert done.stdout
