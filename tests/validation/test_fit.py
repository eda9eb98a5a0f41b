"""The fit of stack and device factors."""

import pytest

from towtank.validation.fit import ANCHOR, Observation, fit, implied_rate, observe
from towtank.validation.rows import RUNS, read_runs


def _made(stack: str, device: str, rate: float, count: int) -> list[Observation]:
    return [
        Observation(f"{stack}-{device}-{number}", "source", stack, device, rate) for number in range(count)
    ]


def test_factors_are_recovered_in_spite_of_outliers() -> None:
    # log(rate) = log(stack) + log(device): 0.8 and 0.5 on the anchor, a device at 0.9; two runs waited for a network
    runs = [
        *_made("fast", ANCHOR, 0.8, 10),
        *_made("slow", ANCHOR, 0.5, 10),
        *_made("fast", "other", 0.72, 10),
        *_made("slow", "other", 0.3, 2),
    ]
    fitted = fit(runs)
    assert fitted.num_parameters == 3
    assert fitted.devices[ANCHOR].value == pytest.approx(1.0)
    assert fitted.devices["other"].value == pytest.approx(0.9)
    assert fitted.stacks["fast"].value == pytest.approx(0.8)
    assert fitted.stacks["slow"].value == pytest.approx(0.5)
    assert fitted.stacks["slow"].rows == 12


def test_rate_of_a_run_that_was_predicted_exactly_is_the_factor_in_force() -> None:
    from towtank import predict
    from towtank.validation.express import Expressed, express

    run = next(run for run in read_runs(RUNS) if run.id == "mlm21-t1-10")
    expressed = express(run)
    assert isinstance(expressed, Expressed)
    exact = predict(expressed.model, expressed.machine, expressed.plan, stack=expressed.stack).step_time_s
    assert implied_rate(expressed, exact) == pytest.approx(expressed.stack.fitted.compute_efficiency)
    assert implied_rate(expressed, exact * 1.1) < expressed.stack.fitted.compute_efficiency


def test_a_mapping_counts_once() -> None:
    runs = [run for run in read_runs(RUNS) if run.id == "mlm21-t1-10"]
    assert len(observe(runs * 3)) == 1
