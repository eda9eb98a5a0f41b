"""Capacity plans: for each machine and number of devices the tuned plan, the run it makes, and what the run takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.capacity.assemble import StepFigures, assemble
from towtank.autotune.capacity.assumed import assumed_ranges
from towtank.autotune.capacity.charges import Bill, bill, device_power
from towtank.autotune.capacity.delivery import delivery
from towtank.autotune.capacity.device_counts import counts_near
from towtank.autotune.capacity.draws import StepInterval, acts, draw_factors, importance, job_with
from towtank.autotune.capacity.errors import CapacityError
from towtank.autotune.capacity.request import Charges, Operation, Uncertainty
from towtank.autotune.capacity.run.monte_carlo import Outcomes, simulate_each
from towtank.autotune.capacity.run.records import Stretch, TrainingJob
from towtank.autotune.scaling.series import ScalePoint
from towtank.autotune.scaling.study import INTERRUPTED, Study, TunedPoint, tune_points
from towtank.autotune.study.measures import busy_share
from towtank.hardware_profiles.errors import ProfileError
from towtank.hardware_profiles.records import Machine
from towtank.simulator.errors import PlanError
from towtank.simulator.models.count import parameters
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.plan import Plan
from towtank.simulator.predict import Prediction, predict
from towtank.simulator.stacks.records import Stack
from towtank.validation.intervals import attach_interval

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True, slots=True)
class Request:
    """What all candidates of a capacity plan share."""

    model: ModelSpec
    tokens: float
    global_batch: int
    """Sequences of one step."""
    stack: Stack
    sequence: int | None = None
    operation: Operation = field(default_factory=Operation)
    charges: Charges = field(default_factory=Charges)
    uncertainty: Uncertainty = field(default_factory=Uncertainty)
    deadline_s: float | None = None
    search_budget_s: float | None = 30.0
    memory_margin: float = 0.0
    profile_dirs: tuple[Path, ...] = ()
    ramp: tuple[tuple[int, float], ...] = ()
    """Sequences of a step and tokens trained with so many, before the batch is full."""

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one step."""
        return self.global_batch * (self.sequence or self.model.sequence)

    @property
    def steps(self) -> int:
        """Steps with the full batch, the last one counted in full."""
        return max(1, -int(-(self.tokens - sum(tokens for _, tokens in self.ramp)) // self.tokens_per_step))


@dataclass(frozen=True, slots=True)
class Quantiles:
    """What 5, 50 and 95 % of the simulated runs stay within."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True)
class CapacityPlan:
    """A run on so many devices of a machine."""

    machine: Machine
    devices: int
    plan: Plan
    step_time_s: float
    step_low_s: float
    step_high_s: float
    mfu: float
    peak_memory_bytes: float
    power_w: float | None
    """Electric power of all devices that are held while the others train, cooling included; None: unknown."""
    validated_on: str
    """Published runs that the interval of the step stands on."""
    extrapolated: tuple[str, ...]
    job: TrainingJob
    outcomes: Outcomes
    bills: tuple[Bill, ...]
    """One for each simulated run."""
    chance: float | None
    """Share of the simulated runs that meet the deadline; None without one."""
    matters: tuple[tuple[str, float], ...]
    """Inputs by their rank correlation with the time of the run, the strongest first."""
    assumptions: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def nodes(self) -> int:
        """Nodes that work."""
        return self.job.nodes

    @property
    def days(self) -> Quantiles:
        """Days from the first submission to the last step."""
        return quantiles([run.elapsed_s / 86400.0 for run in self.outcomes.runs])

    def billed(self, name: str) -> Quantiles | None:
        """Quantiles of a figure of the bills; None: unknown."""
        values = [getattr(one, name) for one in self.bills]
        return None if any(value is None for value in values) else quantiles(values)


@dataclass(frozen=True, slots=True)
class NoPlan:
    """A candidate without a plan, and why."""

    machine: Machine
    devices: int
    why_not: str


def quantiles(values: Sequence[float]) -> Quantiles:
    """5, 50 and 95 % quantiles."""
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95])
    return Quantiles(float(low), float(median), float(high))


MOST_DEVICES = 65536
"""Largest candidate on a machine whose size is not known."""


def candidate_devices(request: Request, machine: Machine) -> tuple[int, ...]:
    """Numbers of devices worth a look: whole nodes, around what the deadline asks for.

    The middle is what a model FLOP utilisation of 40 % would need.
    """
    from towtank.simulator.models.flop import model_flop_per_token

    node = machine.node.devices
    peaks = machine.device.peak_flop_per_s
    peak = peaks.get("bf16") or peaks.get("fp16") or max(peaks.values())
    sequence = request.sequence or request.model.sequence
    flop = model_flop_per_token(request.model, sequence, causal=False) * request.tokens
    seconds = request.deadline_s or 90 * 86400.0
    middle = flop / (0.4 * peak * seconds)
    return counts_near(
        middle, node, machine.num_devices or MOST_DEVICES, request.model.num_layers * request.global_batch
    )


def plan_capacity(
    request: Request,
    candidates: Sequence[tuple[Machine, int]],
    *,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> list[CapacityPlan | NoPlan]:
    """A capacity plan for each machine and number of devices, in their order, or why there is none."""
    tell = progress or (lambda what, done, total: None)
    found: list[CapacityPlan | NoPlan] = []
    tuned = _tuned(request, candidates, jobs, tell)
    runs = request.uncertainty.runs
    total, stopped = len(candidates) * runs, False
    tell("runs simulated", 0, total)
    for number, ((machine, devices), point) in enumerate(zip(candidates, tuned, strict=True)):
        if point.found is None or stopped:
            found.append(NoPlan(machine, devices, point.why_not or INTERRUPTED))
            continue
        try:
            found.append(
                plan_run(
                    request, machine, point.found.plan,
                    lambda done, before=number * runs: tell("runs simulated", before + done, total),  # type: ignore[misc]
                )
            )  # fmt: skip
        except (CapacityError, PlanError) as error:
            found.append(NoPlan(machine, devices, "; ".join(error.faults)))
        except ProfileError as error:
            found.append(NoPlan(machine, devices, str(error)))
        except KeyboardInterrupt:
            # what is done stays worth having, as after a stopped search
            stopped = True
            found.append(NoPlan(machine, devices, INTERRUPTED))
    tell("runs simulated", total, total)
    return found


def _tuned(
    request: Request, candidates: Sequence[tuple[Machine, int]], jobs: int | None, tell: Progress
) -> list[TunedPoint]:
    by_machine: dict[int, list[int]] = {}
    for place, (machine, _) in enumerate(candidates):
        by_machine.setdefault(id(machine), []).append(place)  # the same name may stand for several sizes
    result: dict[int, TunedPoint] = {}
    for places in by_machine.values():
        machine = candidates[places[0]][0]
        study = Study(
            machine, request.stack, request.sequence, profile_dirs=request.profile_dirs,
            budget_s=request.search_budget_s, memory_margin=request.memory_margin,
        )  # fmt: skip
        points = [ScalePoint(candidates[place][1], request.model, request.global_batch) for place in places]
        before = len(result)
        tell("searches", before, len(candidates))
        if any(point.why_not == INTERRUPTED for point in result.values()):
            result.update(
                (place, TunedPoint(point, None, INTERRUPTED))
                for place, point in zip(places, points, strict=True)
            )
            continue
        found = tune_points(
            study, points, jobs=jobs,
            progress=lambda done, total, before=before: tell("searches", before + done, len(candidates)),  # type: ignore[misc]
        )  # fmt: skip
        result.update(zip(places, found, strict=True))
    return [result[place] for place in range(len(candidates))]


def plan_run(
    request: Request, machine: Machine, plan: Plan, progress: Callable[[int], None] | None = None
) -> CapacityPlan:
    """The run that one plan makes on a machine, simulated as often as asked.

    Raises:
        PlanError, UnknownFigure: the plan cannot be predicted; CapacityError: the run could never end.
    """
    prediction = predict(request.model, machine, plan, stack=request.stack, profile_dirs=request.profile_dirs)
    interval = attach_interval(prediction)
    ramp = _ramp(request, machine, plan)
    made = assemble(machine, _figures(prediction), request.steps, request.operation, ramp)
    spread = StepInterval(interval.low_s / prediction.step_time_s, interval.high_s / prediction.step_time_s)
    factors, assumed = _factors(request, made.job, spread)
    drawn = [
        job_with(made.job, {name: float(values[run]) for name, values in factors.items()})
        for run in range(request.uncertainty.runs)
    ]
    outcomes = simulate_each(drawn, request.uncertainty.seed, progress)
    power = device_power(machine, busy_share(prediction.breakdown_s), request.charges)
    spares = made.job.recovery.spare_nodes
    node = machine, plan.num_devices, spares, power, request.charges
    bills = tuple(bill(one, *node) for one in outcomes.runs)
    elapsed = np.array([one.elapsed_s for one in outcomes.runs])
    unknown = [*made.unknown, *_unknown_charges(bills[0], machine, power.why_unknown)]
    return CapacityPlan(
        machine=machine,
        devices=plan.num_devices,
        plan=plan,
        step_time_s=prediction.step_time_s,
        step_low_s=interval.low_s,
        step_high_s=interval.high_s,
        mfu=prediction.mfu,
        peak_memory_bytes=prediction.peak_memory_bytes,
        power_w=power.all_w(plan.num_devices, spares * machine.node.devices),
        validated_on=f"{interval.rows:,} {interval.runs} of the regime “{interval.regime}”",
        extrapolated=interval.extrapolated,
        job=made.job,
        outcomes=outcomes,
        bills=bills,
        chance=None if request.deadline_s is None else outcomes.chance_within(request.deadline_s),
        matters=tuple(importance(factors, elapsed)),
        assumptions=(*made.assumptions, *assumed, *_delivered(request.uncertainty)),
        unknown=tuple(unknown),
    )


def _factors(
    request: Request, job: TrainingJob, spread: StepInterval
) -> tuple[dict[str, NDArray[np.float64]], tuple[str, ...]]:
    """Drawn factors of the inputs that act on the run, [runs] each, and words on ranges that are assumed."""
    given = request.uncertainty
    assumed = assumed_ranges(request.operation, job, given)
    drawn = draw_factors(spread, replace(given, ranges={**assumed.ranges, **given.ranges}))
    return {name: values for name, values in drawn.items() if acts(job, name)}, assumed.words


def _ramp(request: Request, machine: Machine, plan: Plan) -> tuple[Stretch, ...]:
    """Stretches of smaller batches on the same degrees, each with the largest micro-batch that divides it.

    Raises:
        CapacityError: a batch is too small for the replicas.
    """
    stretches = []
    for batch, tokens in request.ramp:
        share, rest = divmod(batch, plan.data * plan.tensor_z)
        if rest or not share:
            raise CapacityError(
                [
                    f"a ramp-up batch of {batch:,} sequences does not divide among {plan.data * plan.tensor_z:,} "
                    f"replicas; give a multiple, or fewer devices"
                ]
            )
        micro_batch = max(size for size in range(1, plan.micro_batch + 1) if share % size == 0)
        small = replace(plan, global_batch=batch, micro_batch=micro_batch)
        found = predict(request.model, machine, small, stack=request.stack, profile_dirs=request.profile_dirs)
        steps = -int(-tokens // (batch * (request.sequence or request.model.sequence)))
        stretches.append(Stretch(steps, found.step_time_s))
    return tuple(stretches)


def _figures(prediction: Prediction) -> StepFigures:
    optimizer = sum(prediction.breakdown_s.get(row, 0.0) for row in ("optimizer", "gradient norm"))
    return StepFigures(
        step_time_s=prediction.step_time_s,
        devices=prediction.plan.num_devices,
        parameters=float(parameters(prediction.model).total),
        forward_backward_s=prediction.step_time_s - optimizer,
    )


def _delivered(uncertainty: Uncertainty) -> tuple[str, ...]:
    """What is assumed of a whole run beyond its steps; nothing where the user gave a range."""
    if "delivery" in uncertainty.ranges:
        return ()
    found = delivery()
    low, high = found.factors(np.array([0.05, 0.95]))
    return (
        f"all steps of a run take {low:.2f} to {high:.2f} times as long as predicted in 90 % of the runs, beyond the "
        f"interval of a step, and some far longer: fitted to {found.runs} published runs of {found.groups} groups "
        f"(docs/totals.md; "
        f"--range delivery=1..1 leaves it out)",
    )


def _unknown_charges(one: Bill, machine: Machine, why_power: str) -> list[str]:
    missing = []
    if one.energy_kwh is None:
        missing.append(
            f"energy: unknown {why_power}; write it into a private profile (--profiles) or give --pue"
        )
    elif one.carbon_t is None:
        missing.append(
            f"carbon: the intensity of electricity {_at(machine)} is unknown; give --carbon-intensity"
        )
    if one.cost_usd is None:
        missing.append(f"money: the price of {machine.name} is unknown; give --price-per-device-hour")
    if one.unit is None:
        missing.append(
            f"allocation units: what is charged {_at(machine)} has not been looked up; node-hours are given"
        )
    return missing


def _at(machine: Machine) -> str:
    """Where a machine stands, as far as its profile says."""
    return f"for {machine.name}" if machine.site in ("", "generic") else f"at {machine.site}"
