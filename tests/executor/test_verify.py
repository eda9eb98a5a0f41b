from dataclasses import replace
from pathlib import Path

import pytest
from tests.hardware_profiles.calibrated.examples import calibration

from towtank.autotune.search.records import Counts, RankedPlan, SearchResult
from towtank.autotune.task import TuningTask
from towtank.executor.verify import Verification, Verified, VerifyError, check_machine, chosen
from towtank.hardware_profiles.calibrated.machine import machine_of
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Overlap, Plan
from towtank.simulator.stacks.load import load_stack

DATA = Plan(data=2, global_batch=4, precision="fp32")
TENSOR = Plan(tensor_x=2, global_batch=4, precision="fp32")


def _task(model: str = "tiny-llama") -> TuningTask:
    return TuningTask(load_model(model), machine_of(calibration()), load_stack("towtank-executor"), 2, 4)


def _result(task: TuningTask, *plans: Plan) -> SearchResult:
    ranked = tuple(RankedPlan(n, plan, n * 1.0, 1e6, 0.5, True) for n, plan in enumerate(plans, 1))
    return SearchResult(task, Counts(9, 0, 0, 9), ranked, None, 0.0, 1e9, None, None, 1.0)


def test_plans_that_differ_in_switches_alone_run_once() -> None:
    task = _task()
    switched = replace(DATA, overlap=Overlap(data_gradients=False))
    found, left_out = chosen(task, _result(task, DATA, switched, TENSOR), 2)
    assert [ranked.rank for ranked, _ in found] == [1, 3]
    assert left_out == []
    assert found[0][1].device == "cpu"


def test_no_more_run_than_asked() -> None:
    task = _task()
    found, _ = chosen(task, _result(task, DATA, TENSOR), 1)
    assert [ranked.rank for ranked, _ in found] == [1]


def test_what_the_executor_cannot_run_is_left_out_with_the_reason() -> None:
    task = _task("tiny-mla")
    found, left_out = chosen(task, _result(task, DATA), 5)
    assert found == []
    assert "plan 1: " in left_out[0]
    assert "latent attention" in left_out[0]


def _verified(predicted: int, measured: int, predicted_s: float, measured_s: float) -> Verified:
    return Verified(predicted, measured, DATA, predicted_s, measured_s, (measured_s,), 1e6, None)


def test_regret_is_the_predicted_best_over_the_best() -> None:
    found = Verification(
        (_verified(2, 1, 1.2, 1.0), _verified(1, 2, 1.0, 1.25), _verified(3, 3, 1.3, 1.3)), ()
    )
    assert found.regret == pytest.approx(0.25)
    assert found.median_error == pytest.approx(0.2)


def test_only_this_machine_can_be_verified(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(VerifyError, match="take --machine local"):
        check_machine(load_machine("frontier"))
