"""Rates inside training steps that measured runs imply, over the rate of the profile alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from towtank.hardware_profiles.calibration import training_rate
from towtank.simulator.predict import Prediction, predict
from towtank.simulator.stacks.load import fitted_as
from towtank.validation.evaluate import likeness
from towtank.validation.express import Expressed, express
from towtank.validation.features import COMPUTE
from towtank.validation.grouping import group_of, source_family
from towtank.validation.parallel import Progress, in_parallel
from towtank.validation.rows import Run

PLAUSIBLE_RATE = (0.25, 1.6)
"""Runs outside of it waited for something that is not in the model; they tell nothing about compute."""

_TOLERANCE = 1e-4
"""Of the step time; measured ones scatter by a percent or more."""
_MOST_STEPS = 12


@dataclass(frozen=True, slots=True)
class Observation:
    """Rate that one run implies. It does not depend on the factors in force, so that a fit repeats itself."""

    run: str
    source: str
    """Family of the source."""
    group: str
    """Source, model and mapping: runs of one group resemble each other and are never told apart by a fit."""
    stack: str
    """Stack whose factor counts: its own, or the one that it borrows from."""
    device: str
    rate: float


def factors_of(stack: str) -> str:
    """Stack whose fitted factor a stack takes; a stack with a number of its own is fitted for itself."""
    return fitted_as(stack) or stack


def fitted_runs(runs: Sequence[Run]) -> list[Run]:
    """Runs that factors are fitted to: the complete ones; AxoNN's are kept apart as a test, and of the erratic
    Nanotron sweep only rows above 30 % of peak tell something about compute."""
    return [
        run
        for run in runs
        if run.gate is not False
        and "AxoNN" not in run.source
        and not ("Nanotron" in run.source and "sweep" in run.source and (run.mfu_pct or 0) < 30)
    ]


def observe(
    runs: Sequence[Run], jobs: int | None = None, progress: Progress | None = None
) -> list[Observation]:
    """Rates of the runs that can be expressed and whose rate is plausible, one for each source, model and mapping."""
    single: dict[tuple[object, ...], Run] = {}
    for run in runs:
        if run.step_time_s:
            single.setdefault(_identity(run), run)
    found = in_parallel(observe_run, list(single.values()), likeness, jobs, progress)
    return [observation for observation in found if observation is not None]


def _identity(run: Run) -> tuple[object, ...]:
    """Rows that agree in all of this say the same about compute and count once."""
    mapping = (run.tp, run.pp, run.dp, run.cp, run.micro_batch, run.recompute, run.precision)
    return (run.source, run.model, *mapping)


def observe_run(run: Run) -> Observation | None:
    """The rate that one run implies; None where there is none in the plausible range."""
    expressed = express(run)
    if isinstance(expressed, Expressed) and run.step_time_s:
        rate = implied_rate(expressed, run.step_time_s / expressed.step_share)
        if rate is not None:
            stack, device = factors_of(expressed.stack.name), expressed.machine.device.name
            return Observation(run.id, source_family(run.source), group_of(run), stack, device, rate)
    return None


def predict_at(expressed: Expressed, rate: float) -> Prediction:
    """The prediction with `rate` as the product of the factors of stack and device, whatever is in force."""
    stack = expressed.stack
    efficiency = rate / training_rate(expressed.machine.device.name).rate
    stack = replace(stack, fitted=replace(stack.fitted, compute_efficiency=efficiency))
    return predict(expressed.model, expressed.machine, expressed.plan, stack=stack)


def implied_rate(expressed: Expressed, measured_s: float) -> float | None:
    """Rate at which the predicted step is as long as the measured one; None if that is not plausible.

    The step grows with 1 / rate, almost linearly: secants from the rate 1 and from the one that the breakdown leads
    to, kept between rates that are known to be too fast and too slow.
    """
    fast, slow = 1 / PLAUSIBLE_RATE[1], 1 / PLAUSIBLE_RATE[0]
    prediction = predict_at(expressed, 1.0)
    inverse, step = 1.0, prediction.step_time_s
    slope = _compute_s(prediction)
    low, high = fast, slow
    for _ in range(_MOST_STEPS):
        if abs(step / measured_s - 1) < _TOLERANCE:
            return 1 / inverse if fast < inverse < slow else None
        if step < measured_s:
            low = inverse
        else:
            high = inverse
        if low >= slow or high <= fast:
            return None
        target = inverse + (measured_s - step) / slope if slope > 0 else slow
        if not low < target < high:
            ends = (fast,) if target <= low == fast else (slow,) if target >= high == slow else ()
            target = ends[0] if ends else (low + high) / 2
        before, before_s = inverse, step
        inverse, step = target, predict_at(expressed, 1 / target).step_time_s
        slope = (step - before_s) / (inverse - before)
    return None


def _compute_s(prediction: Prediction) -> float:
    """Seconds of a step that are compute."""
    parts = prediction.breakdown_s
    compute = sum(parts.get(name, 0.0) for name in COMPUTE)
    # a bubble is compute of other stages: it scales with compute
    bubble = parts.get("bubble", 0.0)
    return compute * (1 + bubble / max(prediction.step_time_s - bubble, 1e-12))
