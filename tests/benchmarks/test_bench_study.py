"""Trials of a study per second: what claims, samplers and storages cost beside the simulation of a plan."""

from pathlib import Path

import pytest

from towtank.autotune.study.plan_objective import PlanObjective
from towtank.autotune.study.records import Settings, StudyCounts
from towtank.autotune.study.session import create_or_continue
from towtank.autotune.study.storage import MEMORY
from towtank.autotune.study.work import work
from towtank.autotune.task import TuningTask
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Plan
from towtank.simulator.stacks.load import load_stack

pytestmark = pytest.mark.benchmark

TRIALS = 200
PLAN = Plan(tensor_x=2, pipeline=4, data=4, sequence_parallel=True, global_batch=64, recompute="full")


@pytest.fixture(scope="module")
def objective() -> PlanObjective:
    machine, stack = load_machine("dgx-h100:nodes=4"), load_stack("megatron-core")
    found = PlanObjective(TuningTask(load_model("llama3-8b"), machine, stack, 32, 64), [PLAN])
    found.evaluate(found.seeds[0])  # the first loads the compiled engine
    return found


def study(place: str, objective: PlanObjective, sampler: str) -> StudyCounts:
    opened = create_or_continue(place, "bench", objective, Settings(TRIALS, sampler))
    counts = work(opened, objective).counts
    opened.close()
    return counts


def test_plans_without_a_study(benchmark, objective):
    seeds = objective.seeds
    outcomes = benchmark(lambda: [objective.evaluate(seed) for seed in seeds])
    benchmark.extra_info["plans per second"] = round(len(seeds) / benchmark.stats["mean"])
    assert len(outcomes) == len(seeds) > 1
    assert all(outcome.values[0] > 0 for outcome in outcomes)


@pytest.mark.parametrize("sampler", ["random", "nsgaii", "tpe"])
def test_trials_in_memory(benchmark, objective, sampler):
    counts = benchmark.pedantic(study, (MEMORY, objective, sampler), rounds=2, iterations=1)
    benchmark.extra_info["trials per second"] = round(TRIALS / benchmark.stats["min"])
    assert counts.finished == TRIALS


@pytest.mark.parametrize("form", ["{}/bench.journal", "sqlite:///{}/bench.db"])
def test_trials_in_a_file(benchmark, objective, tmp_path: Path, form: str):
    places = iter(range(9))

    def fresh() -> tuple[tuple[str, PlanObjective, str], dict[str, object]]:
        folder = tmp_path / str(next(places))
        folder.mkdir()
        return (form.format(folder), objective, "random"), {}

    counts = benchmark.pedantic(study, setup=fresh, rounds=1, iterations=1)
    benchmark.extra_info["trials per second"] = round(TRIALS / benchmark.stats["min"])
    assert counts.finished == TRIALS
