"""Plans as trials: what a study of `towtank tune` tries, judged by the simulator."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from towtank.autotune.reasons.constraints import broken_constraints
from towtank.autotune.space.canonical import canonical
from towtank.autotune.study.measures import (
    Prices,
    Simulated,
    check_known,
    measures_named,
    need_busy_share,
    values_of,
)
from towtank.autotune.study.plan_clock import PlanClock
from towtank.autotune.study.plan_space import PlanSpace, plan_space
from towtank.autotune.study.records import Measure, Outcome, Parameter, Parameters, RefusedError, StudyError
from towtank.autotune.task import TuningTask
from towtank.simulator.errors import PlanError
from towtank.simulator.plan import Plan
from towtank.simulator.plan_file import plan_from_mapping, plan_to_mapping
from towtank.simulator.plan_rules import faults_of

MEMORY = "memory"
"""Name of the constraint: bytes that the fullest stage lacks."""


@dataclass(frozen=True, slots=True)
class References:
    """The words that name model, machine and stack, so that a worker elsewhere finds them."""

    model: str
    machine: str
    stack: str


class PlanObjective:
    """Plans of a task around the best of the exact search; see `records.Objective`."""

    def __init__(
        self,
        task: TuningTask,
        plans: Sequence[Plan],
        measures: Sequence[str] = ("step_time",),
        *,
        references: References | None = None,
        prices: Prices | None = None,
        devices: Sequence[int] = (),
    ) -> None:
        """Prepare a study of `task`.

        Args:
            task: what is searched; its constraints hold for every configuration.
            devices: numbers of devices that a plan may occupy; only those of the task if not given.
            plans: plans to start from, best first; they are the seeds.
            measures: names out of `measures.MEASURES`.
            references: what workers load the task from; the names in the records if not given.
            prices: what the user knows and the machine's profile does not.

        Raises:
            StudyError: there is no plan, or a measure is unknown.
            UnknownFigure: the machine's profile lacks what a measure needs.
        """
        if not plans:
            raise StudyError("no plan to start from: none fits; use more devices or relax a constraint")
        self._task, self._prices = task, prices or Prices()
        self._clocks = {
            number: PlanClock(replace(task, devices=number)) for number in devices or (task.devices,)
        }
        self._references = references or References(task.model.name, task.machine.name, task.stack.name)
        self._canonical: dict[Plan, Plan] = {}
        self._measures = measures_named(measures)
        check_known(self._measures, task.machine, self._prices)
        self._space: PlanSpace = plan_space(task.model, task.machine, task.stack, plans, task.constraints)
        self._limit_bytes = task.memory_limit_bytes()

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What is measured."""
        return self._measures

    @property
    def memory_margin(self) -> float:
        """Share of their predicted peak that plans must leave free."""
        return self._task.memory_margin

    @property
    def space(self) -> Mapping[str, Parameter]:
        """What a sampler may choose."""
        return self._space.parameters

    @property
    def seeds(self) -> Sequence[Parameters]:
        """The best plan, its neighbours by one parameter, and the other plans that the space is around."""
        others = range(1, len(self._space.plans))
        starts = [self._space.start(0), *self._space.neighbours(0), *map(self._space.start, others)]
        return [parameters for parameters in starts if self._is_legal(parameters)]

    def _is_legal(self, parameters: Parameters) -> bool:
        try:
            self.plan(parameters)
        except RefusedError:
            return False
        return True

    def identity(self) -> Mapping[str, Any]:
        """The task in words, with a digest of the records behind them."""
        task, names = self._task, self._references
        return {
            "kind": "plans",
            "model": names.model,
            "machine": names.machine,
            "stack": names.stack,
            "devices": sorted(self._clocks),
            "global_batch": task.global_batch,
            "sequence": task.sequence,
            "constraints": {
                "fixed": {name: list(values) for name, values in task.constraints.fixed.items()},
                "least": dict(task.constraints.least),
                "most": dict(task.constraints.most),
            },
            "memory_margin": task.memory_margin,
            "measures": [measure.name for measure in self._measures],
            "price_per_device_hour": self._prices.per_device_hour_usd,
            "plans": [plan_to_mapping(plan) for plan in self._space.plans],
            "records": records_digest(task),
        }

    def plan(self, parameters: Parameters) -> Plan:
        """The plan of a configuration by its canonical name.

        Raises:
            RefusedError: it is not legal.
        """
        plan = self._space.plan(parameters)
        if plan not in self._canonical:
            self._canonical[plan] = self._checked(plan)
        return self._canonical[plan]

    def _checked(self, plan: Plan) -> Plan:
        """The canonical name of a plan, if it is legal."""
        task = self._task
        faults = faults_of(task.model, task.machine, plan, task.stack)
        if plan.num_devices not in self._clocks:
            faults.append(f"the plan occupies {plan.num_devices} devices")
        faults += broken_constraints(plan, task)
        if faults:
            raise RefusedError("; ".join(faults))
        return canonical(task.model, task.machine, task.stack, plan)

    def name_of(self, parameters: Parameters) -> str:
        """The plan itself as JSON: the same for all parameters that come to it.

        Raises:
            RefusedError: it is not legal.
        """
        return json.dumps(plan_to_mapping(self.plan(parameters)), sort_keys=True, separators=(",", ":"))

    def simulated(self, parameters: Parameters) -> Simulated:
        """Put the plan of a legal configuration on the clock."""
        plan = self.plan(parameters)
        return self._clocks[plan.num_devices].simulate(plan, need_busy_share(self._measures))

    def evaluate(self, parameters: Parameters) -> Outcome:
        """Simulate the plan."""
        simulated = self.simulated(parameters)
        values = values_of(self._measures, simulated, self._task.machine, self._prices)
        return Outcome(values, {MEMORY: simulated.peak_memory_bytes - self._limit_bytes})


def plan_of_name(name: str) -> Plan:
    """The plan behind the name of a configuration.

    Raises:
        PlanError: the name is not a plan's.
    """
    try:
        document = json.loads(name)
    except json.JSONDecodeError as error:
        raise PlanError([f"{name!r} is not the name of a plan"], "study") from error
    return plan_from_mapping(document, "study")


def records_digest(task: TuningTask) -> str:
    """Digest of model, machine and stack as loaded: workers with other profiles would measure something else."""
    text = repr((task.model, task.machine, task.stack))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
