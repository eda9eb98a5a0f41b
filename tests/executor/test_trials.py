"""Real runs as trials of a study."""

from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from tests.hardware_profiles.calibrated.examples import calibration

from towtank.autotune.study.plan_objective import plan_of_name
from towtank.autotune.study.records import RefusedError, Settings
from towtank.autotune.study.session import create_or_continue
from towtank.autotune.study.storage import MEMORY
from towtank.autotune.study.work import work
from towtank.autotune.task import TuningTask
from towtank.executor import trials
from towtank.executor.calibrate.pool import CalibrationError
from towtank.executor.trials import RunObjective
from towtank.hardware_profiles.calibrated.machine import machine_of
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Plan
from towtank.simulator.stacks.load import load_stack

DATA = Plan(data=2, global_batch=4, precision="fp32")
TENSOR = Plan(tensor_x=2, global_batch=4, precision="fp32")


def _task(model: str = "tiny-llama") -> TuningTask:
    return TuningTask(load_model(model), machine_of(calibration()), load_stack("towtank-executor"), 2, 4)


class _Pool:
    """Runs that take 3 s with tensor parallelism and 2 s with recomputation; others end their processes."""

    made: ClassVar[list["_Pool"]] = []

    def __init__(self, counts: tuple[int, ...], device: str) -> None:
        self.counts, self.is_open = counts, True
        _Pool.made.append(self)

    def train(self, settings: Any, threads: int, steps: int, warm_up: int) -> Any:
        assert self.is_open
        plan = settings.plan
        if plan.tensor_x == 1 and plan.recompute == "none":
            raise CalibrationError("process 1 ended (out of memory?)")
        seconds = 3.0 if plan.recompute == "none" else 2.0
        return SimpleNamespace(step=SimpleNamespace(step_time_s=seconds))

    def close(self) -> None:
        self.is_open = False


def test_plans_are_measured_and_those_that_die_are_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "Pool", _Pool)
    monkeypatch.setattr(_Pool, "made", [])
    with RunObjective(_task(), [DATA, TENSOR], steps=3) as objective:
        opened = create_or_continue(MEMORY, "runs", objective, Settings(12, "random"))
        result = work(opened, objective)
    names = [trial.user_attrs["configuration"] for trial in opened.study.trials]
    assert len(set(names)) == len(names) == result.counts.finished == 12
    assert result.counts.failed > 0
    assert result.best[0].outcome.values == (2.0,)
    assert plan_of_name(result.best[0].name).recompute != "none"
    # a run that dies takes its processes along; the others share theirs
    assert len(_Pool.made) <= result.counts.failed + 1
    assert [pool.counts for pool in _Pool.made] == [(2,)] * len(_Pool.made)
    assert not any(pool.is_open for pool in _Pool.made)


def test_what_the_executor_does_not_run_is_no_trial() -> None:
    objective = RunObjective(_task("tiny-mla"), [DATA], steps=3)
    assert objective.seeds == []
    with pytest.raises(RefusedError, match="latent attention"):
        objective.name_of({"plan": 0})


def test_a_study_of_runs_is_none_of_predictions() -> None:
    identity = RunObjective(_task(), [DATA], steps=3).identity()
    assert (identity["kind"], identity["measures"], identity["steps"]) == ("runs", ["measured_step_time"], 3)
    assert identity != RunObjective(_task(), [DATA], steps=4).identity()


@pytest.mark.slow
def test_real_runs_are_trials() -> None:
    pytest.importorskip("torch")
    with RunObjective(_task(), [DATA, TENSOR], steps=2) as objective:
        opened = create_or_continue(MEMORY, "runs", objective, Settings(4, "random"))
        result = work(opened, objective)
        predicted = [objective.predicted_s(trial.parameters) for trial in result.best]
    assert (result.counts.complete, result.counts.failed) == (4, 0)
    assert all(trial.outcome.values[0] > 0 for trial in result.best)
    assert min(predicted) > 0
