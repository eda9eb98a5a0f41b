"""Rates that runs imply."""

import pytest
from made_runs import run

from towtank.simulator.stacks.load import load_stack
from towtank.validation.express import Expressed, express
from towtank.validation.rates import (
    factors_of,
    fitted_runs,
    group_of,
    implied_rate,
    observe,
    observe_run,
    predict_at,
)
from towtank.validation.rows import RUNS, read_runs


def _expressed(name: str) -> Expressed:
    found = express(next(run for run in read_runs(RUNS) if run.id == name))
    assert isinstance(found, Expressed)
    return found


@pytest.mark.parametrize("rate", [0.4, 0.83, 1.0, 1.37])
def test_the_rate_of_a_predicted_step_is_found_again(rate: float) -> None:
    one = _expressed("mlm21-t1-10")
    assert implied_rate(one, predict_at(one, rate).step_time_s) == pytest.approx(rate, rel=1e-3)


def test_a_step_that_no_plausible_rate_explains_has_none() -> None:
    one = _expressed("mlm21-t1-10")
    assert implied_rate(one, predict_at(one, 1.0).step_time_s * 10) is None
    assert implied_rate(one, predict_at(one, 1.0).step_time_s / 10) is None


def test_predict_at_the_rate_in_force_is_what_predict_says() -> None:
    from towtank import predict
    from towtank.hardware_profiles.calibration import training_rate

    one = _expressed("mlm21-t1-10")
    rate = one.stack.fitted.compute_efficiency * training_rate(one.machine.device.name).rate
    known = predict(one.model, one.machine, one.plan, stack=one.stack).step_time_s
    assert predict_at(one, rate).step_time_s == pytest.approx(known, rel=1e-12)


def test_a_mapping_counts_once() -> None:
    runs = [run for run in read_runs(RUNS) if run.id == "mlm21-t1-10"]
    assert len(observe(runs * 3)) == 1


def test_an_observation_says_to_whom_it_belongs() -> None:
    found = observe_run(run())
    assert found is not None
    assert (found.source, found.stack, found.device) == ("NVIDIA DGX Cloud", "megatron-core", "h100-80gb-sxm")
    assert found.group == group_of(run())
    assert observe_run(run(device="abacus")) is None


def test_a_group_is_a_family_model_and_mapping() -> None:
    one = run(source="NVIDIA/dgxc-benchmarking v25.02")
    assert group_of(one) == group_of(
        run(source="NVIDIA/dgxc-benchmarking v25.05", gpus=64, dp=32, precision="fp8")
    )
    assert group_of(one) != group_of(run(tp=4))
    assert group_of(one) != group_of(run(model="llama2-13b"))
    assert group_of(one) != group_of(run(source="MosaicML llm-foundry"))


def test_a_stack_that_borrows_its_factor_is_fitted_with_the_lender() -> None:
    assert factors_of("deepspeed") == "llm-foundry"
    assert factors_of("megatron-core") == "megatron-core"
    assert (
        load_stack("deepspeed").fitted.compute_efficiency
        == load_stack("llm-foundry").fitted.compute_efficiency
    )


def test_axonn_and_incomplete_runs_are_not_fitted_to() -> None:
    runs = [
        run(id="a"),
        run(gate=False),
        run(source="AxoNN"),
        run(source="Nanotron sweep", mfu_pct=9.0),
    ]
    assert [one.id for one in fitted_runs(runs)] == ["a"]
