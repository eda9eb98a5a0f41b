"""Simulated training runs: 54 days on 2,048 nodes with the failures of Llama 3."""

import pytest

from towtank.autotune.capacity.assemble import StepFigures, assemble
from towtank.autotune.capacity.request import Operation
from towtank.autotune.capacity.run.monte_carlo import simulate_many
from towtank.hardware_profiles.load import load_machine

pytestmark = pytest.mark.benchmark

RUNS, MOST_S = 100, 60.0


def test_a_hundred_runs_of_54_days_on_2048_nodes(benchmark) -> None:
    figures = StepFigures(step_time_s=7.0, devices=16384, parameters=405e9, forward_backward_s=6.9)
    operation = Operation(reliability="llama3-h100", storage_bytes_per_s=2e12)
    steps = int(54 * 86400 / figures.step_time_s)
    job = assemble(load_machine("grand-teton"), figures, steps, operation).job
    done: list[int] = []
    outcomes = benchmark.pedantic(simulate_many, (job, RUNS, 0, done.append), rounds=1)
    assert job.nodes == 2048 and job.training_s == pytest.approx(54 * 86400, rel=1e-3)
    assert len(outcomes.runs) == RUNS and done == list(range(1, RUNS + 1))
    assert benchmark.stats["max"] <= MOST_S
