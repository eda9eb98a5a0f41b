"""Fit the rates of stacks and devices inside training steps: one factor a stack, one a device, nothing per row.

The rate of a run is its predicted compute time over the compute time that its measured step leaves after the
predicted communication. log(rate) = log(stack) + log(device) is fitted by least absolute deviations (robust
against the runs that something else slowed down), one row for each source, model and mapping, weighted so that
a source with many rows does not decide alone. The anchor is a device whose factor is 1 by definition.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

from towtank.hardware_profiles.calibration import training_rate
from towtank.simulator.predict import predict
from towtank.validation.express import Expressed, express
from towtank.validation.rows import Run

ANCHOR = "a100-80gb-sxm"
COMPUTE_PARTS = ("matmul", "attention", "elementwise", "recompute")
PLAUSIBLE_RATE = (0.25, 1.6)
"""Runs outside of it waited for something that is not in the model; they tell nothing about compute."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Rate that one run implies, over the rate of the profile alone (no fitted factor)."""

    run: str
    source: str
    stack: str
    device: str
    rate: float


@dataclass(frozen=True, slots=True)
class Factor:
    """One fitted factor with the spread of the rows behind it."""

    value: float
    rows: int
    quartiles: tuple[float, float]
    """Quartiles of the rates of its rows, the other factor divided out."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Factors of stacks and devices."""

    stacks: dict[str, Factor]
    devices: dict[str, Factor]

    @property
    def num_parameters(self) -> int:
        """Free parameters; the anchor's is not free."""
        return len(self.stacks) + len(self.devices) - 1


def observe(runs: Sequence[Run]) -> list[Observation]:
    """Rates of the runs that can be expressed, one for each source, model and mapping."""
    seen: set[tuple[object, ...]] = set()
    found = []
    for run in runs:
        key = (
            run.source,
            run.model,
            run.tp,
            run.pp,
            run.dp,
            run.cp,
            run.micro_batch,
            run.recompute,
            run.precision,
        )
        if key in seen or not run.step_time_s:
            continue
        seen.add(key)
        expressed = express(run)
        if isinstance(expressed, Expressed):
            rate = implied_rate(expressed, run.step_time_s / expressed.step_share)
            if PLAUSIBLE_RATE[0] < rate < PLAUSIBLE_RATE[1]:
                device, stack = expressed.machine.device.name, expressed.stack.name
                found.append(Observation(run.id, run.source, stack, device, rate))
    return found


def implied_rate(expressed: Expressed, measured_s: float) -> float:
    """Rate that makes the predicted step as long as the measured one; 0 where no rate does."""
    prediction = predict(expressed.model, expressed.machine, expressed.plan, stack=expressed.stack)
    parts = prediction.breakdown_s
    compute = sum(parts.get(name, 0.0) for name in COMPUTE_PARTS)
    # a bubble is compute of other stages: it scales with compute
    bubble = parts.get("bubble", 0.0)
    compute *= 1 + bubble / max(prediction.step_time_s - bubble, 1e-12)
    left = measured_s - (prediction.step_time_s - compute)
    now = expressed.stack.fitted.compute_efficiency * training_rate(expressed.machine.device.name).rate
    return now * compute / left if left > 0 else 0.0


def fit(observations: Sequence[Observation]) -> Fit:
    """Least absolute deviations by linear programming (scipy, HiGHS)."""
    import numpy as np
    from scipy.optimize import linprog

    stacks = sorted({each.stack for each in observations})
    devices = sorted({each.device for each in observations})
    columns = {name: number for number, name in enumerate([*stacks, *devices])}
    rows = Counter((each.source, each.stack, each.device) for each in observations)
    design = np.zeros((len(observations), len(columns)))
    for number, each in enumerate(observations):
        design[number, [columns[each.stack], columns[each.device]]] = 1.0
    target = np.log([each.rate for each in observations])
    weight = np.array([rows[each.source, each.stack, each.device] ** -0.5 for each in observations])
    size, free = len(observations), len(columns)
    anchor = np.zeros((1, free + 2 * size))
    anchor[0, columns[ANCHOR]] = 1.0
    solved = linprog(
        np.r_[np.zeros(free), weight, weight],
        A_eq=np.r_[np.c_[design, np.eye(size), -np.eye(size)], anchor],
        b_eq=np.r_[target, 0.0],
        bounds=[(log(0.2), log(2.0))] * free + [(0, None)] * (2 * size),
    )
    logs = {name: float(solved.x[number]) for name, number in columns.items()}
    return Fit(
        {name: _factor(name, logs, observations, "stack") for name in stacks},
        {name: _factor(name, logs, observations, "device") for name in devices},
    )


def _factor(name: str, logs: dict[str, float], observations: Sequence[Observation], kind: str) -> Factor:
    import numpy as np

    other = "device" if kind == "stack" else "stack"
    of_name = [each for each in observations if getattr(each, kind) == name]
    rates = [each.rate / exp(logs[getattr(each, other)]) for each in of_name]
    low, high = np.percentile(rates, [25, 75])
    return Factor(exp(logs[name]), len(of_name), (float(low), float(high)))


def dense_gate_runs(runs: Sequence[Run]) -> list[Run]:
    """Runs that factors are fitted to: complete and dense; AxoNN's are kept apart as a test, and of the erratic
    Nanotron sweep only rows above 30 % of peak tell something about compute."""
    return [
        run
        for run in runs
        if run.gate is not False
        and not run.moe_experts
        and "AxoNN" not in run.source
        and not ("Nanotron" in run.source and "sweep" in run.source and (run.mfu_pct or 0) < 30)
    ]


def main() -> int:
    """Print the factors that the shipped runs give, beside which those in the stacks and calibrations can be held."""
    from towtank.validation.rows import RUNS, read_runs

    observations = observe(dense_gate_runs(read_runs(RUNS)))
    fitted = fit(observations)
    print(f"{len(observations)} runs, {fitted.num_parameters} free parameters")
    for title, factors in (("stack", fitted.stacks), ("device", fitted.devices)):
        print(f"\n{title:22} factor  runs  quartiles of its runs")
        for name, one in factors.items():
            print(f"{name:22} {one.value:6.3f} {one.rows:5}  {one.quartiles[0]:.3f} {one.quartiles[1]:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
