"""Real runs as trials of a study: every plan that a sampler proposes runs for a few steps on this machine."""

from collections.abc import Mapping, Sequence
from typing import Any

from towtank.autotune.study.plan_objective import PlanObjective, References
from towtank.autotune.study.records import (
    Measure,
    Outcome,
    Parameter,
    Parameters,
    RefusedError,
    TrialError,
)
from towtank.autotune.task import TuningTask
from towtank.executor import supported
from towtank.executor.calibrate.pool import CalibrationError, Pool
from towtank.executor.settings import RunSettings
from towtank.executor.verify import WARM_UP, settings_of, threads_for
from towtank.simulator.plan import Plan

MEASURED = Measure("measured_step_time", "minimize", "s")
"""Median of the steps after the warm-up."""


class RunObjective:
    """The plans of a study of plans, measured instead of simulated; see `autotune.study.records.Objective`.

    It is a context: its processes stay from one trial to the next. A plan during whose run one of them ends is a
    failed trial, and the next one gets new processes.
    """

    def __init__(
        self, task: TuningTask, plans: Sequence[Plan], steps: int, references: References | None = None
    ) -> None:
        """Prepare a study of `task` around `plans`, best first, with so many measured steps a trial.

        Raises:
            StudyError: there is no plan.
        """
        self._task, self._steps = task, steps
        self._plans = PlanObjective(task, plans, references=references)
        self._pool: Pool | None = None

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Measured step time."""
        return (MEASURED,)

    @property
    def space(self) -> Mapping[str, Parameter]:
        """What a sampler may choose."""
        return self._plans.space

    @property
    def seeds(self) -> Sequence[Parameters]:
        """The best predicted plans, and the neighbours of the first, as far as the executor runs them."""
        return [parameters for parameters in self._plans.seeds if not self._faults(parameters)]

    def identity(self) -> Mapping[str, Any]:
        """That of the study of plans, and how they run."""
        return {
            **self._plans.identity(),
            "kind": "runs",
            "measures": [MEASURED.name],
            "steps": self._steps,
            "warm_up": WARM_UP,
        }

    def plan(self, parameters: Parameters) -> Plan:
        """The plan of a configuration.

        Raises:
            RefusedError: it is not legal.
        """
        return self._plans.plan(parameters)

    def predicted_s(self, parameters: Parameters) -> float:
        """Predicted step time of the plan of a configuration in seconds."""
        return self._plans.simulated(parameters).step_time_s

    def name_of(self, parameters: Parameters) -> str:
        """Name of the plan.

        Raises:
            RefusedError: it is not legal, or the executor does not run it.
        """
        if faults := self._faults(parameters):
            raise RefusedError("; ".join(faults))
        return self._plans.name_of(parameters)

    def _faults(self, parameters: Parameters) -> list[str]:
        try:
            return supported.faults(self._settings(parameters))
        except KeyError:
            return [f"the executor has no precision {self._plans.plan(parameters).precision}"]

    def _settings(self, parameters: Parameters) -> RunSettings:
        return settings_of(self._task, self._plans.plan(parameters))

    def evaluate(self, parameters: Parameters) -> Outcome:
        """Run the plan.

        Raises:
            TrialError: one of its processes ended.
        """
        settings = self._settings(parameters)
        try:
            if self._pool is None:
                self._pool = Pool((self._task.devices,), settings.device)
            found = self._pool.train(settings, threads_for(self._task), self._steps, WARM_UP)
        except CalibrationError as error:
            self.close()
            raise TrialError(str(error)) from error
        return Outcome((found.step.step_time_s,), {})

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> "RunObjective":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
