"""Gates on runs of 512 to 32,768 devices: what supercomputers lose as jobs grow."""

import re
from statistics import median

import pytest

from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.predict import predict
from towtank.simulator.ranked_grids import simulate_ranked_grids
from towtank.simulator.stacks.load import load_stack
from towtank.validation.express import Expressed, express
from towtank.validation.rows import RUNS, read_runs

pytestmark = pytest.mark.slow

FRONTIER = {512: "gpt-5b", 8192: "gpt-80b", 16384: "gpt-160b", 32768: "gpt-320b"}
"""Models of AxoNN's weak scaling by number of GCDs (Singh et al., SC'24, as recalled)."""

EFFICIENCY = {8192: 0.883, 16384: 0.7902, 32768: 0.535}
"""Rate of one GCD over that of one of 512 (Import AI, quoting the paper)."""


@pytest.fixture(scope="module")
def frontier_flop_per_s() -> dict[int, float]:
    """Executed FLOP/s of all devices together, of the fastest grid for 16.8 million tokens a step."""
    machine, stack = load_machine("frontier"), load_stack("axonn")
    found = {}
    for devices, model in FRONTIER.items():
        best = simulate_ranked_grids(load_model(model), machine, stack, devices, 8192)[0].prediction
        found[devices] = best.executed_flop / best.step_time_s
    return found


@pytest.mark.parametrize("devices", list(EFFICIENCY))
def test_weak_scaling_on_frontier_within_8_points(frontier_flop_per_s, devices: int) -> None:
    rate = {count: flop / count for count, flop in frontier_flop_per_s.items()}
    assert rate[devices] / rate[512] == pytest.approx(EFFICIENCY[devices], abs=0.08)


def test_headline_of_frontier_within_10_percent(frontier_flop_per_s) -> None:
    # 1.381 Exaflop/s (abstract); no parameter was fitted to it
    assert frontier_flop_per_s[32768] == pytest.approx(1.381e18, rel=0.10)


def errors(source: str, machine: str) -> dict[str, float]:
    """Relative error of the predicted step time by run, of the gate rows of a source on a machine."""
    found = {}
    for run in read_runs(RUNS):
        if not re.search(source, run.source) or not run.gate or not run.step_time_s:
            continue
        row = express(run)
        if isinstance(row, Expressed) and row.machine.name == machine:
            step_time_s = predict(row.model, row.machine, row.plan, stack=row.stack).step_time_s
            found[run.id] = step_time_s * row.step_share / run.step_time_s - 1
    return found


MACHINES = {"jupiter-booster": "OpenEuroLLM JUPITER", "aurora": "AuroraGPT"}
"""Machines and the sources of runs on them; runs of Sunspot, a small Aurora, are among the latter."""


@pytest.fixture(scope="module")
def errors_on() -> dict[str, dict[str, float]]:
    return {machine: errors(source, machine) for machine, source in MACHINES.items()}


@pytest.mark.parametrize("machine", list(MACHINES))
def test_median_error_on_a_machine_is_at_most_8_percent(errors_on, machine: str) -> None:
    assert len(errors_on[machine]) >= 40
    assert median(abs(error) for error in errors_on[machine].values()) <= 0.08


@pytest.mark.parametrize(
    ("machine", "small", "large", "measured"),
    [
        # rate of a device in the large run over that in the small one: from 32 to 4,096 devices of JUPITER
        ("jupiter-booster", "jup-32b-strong-fp8-32", "jup-32b-strong-fp8-4096", 0.575),
        ("jupiter-booster", "jup-32b-weakbatch-fp8-32", "jup-32b-weakbatch-fp8-4096", 0.750),
        # tiles of Aurora; the run on 6,144 is not compiled, of which the plan knows nothing
        ("aurora", "aurora-2b-48", "aurora-2b-3072", 0.681),
        ("aurora", "aurora-80b-48", "aurora-80b-3072", 0.909),
        ("aurora", "aurora-80b-48", "aurora-80b-6144-nocompile", 0.750),
        ("aurora", "sunspot-2b-24", "sunspot-2b-768", 0.866),
    ],
)
def test_rates_fall_as_far_as_measured_within_8_points(
    errors_on, machine: str, small: str, large: str, measured: float
) -> None:
    found = errors_on[machine]
    assert measured * (1 + found[small]) / (1 + found[large]) == pytest.approx(measured, abs=0.08)
