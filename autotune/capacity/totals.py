"""Predicted device-hours of whole training runs beside the published ones.

`python -m towtank.autotune.capacity.totals` predicts each of `published/totals.yaml`, and writes docs/totals.md and
the scale of whole runs about their predictions (`published/delivery.yaml`), all that is fitted to these rows.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from towtank.autotune.capacity import fine_tunes
from towtank.autotune.capacity.delivery import (
    FILE,
    NORMAL,
    STUDENT_2,
    Residuals,
    Shape,
    factors,
    fit_scale,
    log_score_left_out,
    scales_left_out,
)
from towtank.autotune.capacity.errors import CapacityError
from towtank.autotune.capacity.published import PublishedTotal, published_totals
from towtank.autotune.capacity.request import Operation, Uncertainty
from towtank.autotune.capacity.study import CapacityPlan, Quantiles, Request, plan_run, quantiles
from towtank.autotune.scaling.series import ScalePoint
from towtank.autotune.scaling.study import Study, tune_point
from towtank.autotune.space.constraints import Constraints
from towtank.hardware_profiles.load import load_machine
from towtank.hardware_profiles.records import Machine
from towtank.hardware_profiles.units import parse_quantity
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Plan
from towtank.simulator.plan_file import plan_from_mapping
from towtank.simulator.stacks.load import load_stack

SEARCH_S = 15.0
RUNS = 100
DOCUMENT = Path("docs/totals.md")


@dataclass(frozen=True, slots=True)
class PredictedTotal:
    """A published total and what is predicted for it."""

    name: str
    published: PublishedTotal
    hours: tuple[float, ...]
    """Device-hours of the simulated runs, all of whose steps are as fast as steps are measured to be."""
    plan: Plan

    @property
    def median(self) -> float:
        """Predicted device-hours."""
        return float(np.median(self.hours))

    @property
    def ratio(self) -> float:
        """Predicted over published device-hours."""
        return self.median / self.published.device_hours

    @property
    def error(self) -> float:
        """Absolute relative error."""
        return abs(self.ratio - 1)

    @property
    def residuals(self) -> Residuals:
        """How much longer the run took than each of the simulated ones."""
        return Residuals(
            self.published.group, np.log(self.published.device_hours) - np.log(np.array(self.hours))
        )

    def interval(self, scale: float, shape: Shape = STUDENT_2) -> Quantiles:
        """Quantiles of the hours times a factor of delivery of that scale."""
        spread = factors(scale, (np.arange(999) + 0.5) / 999, shape)
        return quantiles(np.outer(self.hours, spread).ravel().tolist())

    def held(self, scale: float, shape: Shape = STUDENT_2) -> bool:
        """Whether the interval of 90 % with that scale holds the published figure."""
        found = self.interval(scale, shape)
        return found.low <= self.published.device_hours <= found.high


def median_error(totals: Sequence[PredictedTotal]) -> float:
    """Median of the absolute relative errors."""
    return float(np.median([one.error for one in totals]))


@dataclass(frozen=True, slots=True)
class Judged:
    """A shape of delivery, each group judged with the scale of all other groups."""

    scales: Mapping[str, float]
    """By group."""
    held: float
    """Share of the published figures that lie in their interval of 90 %."""
    width: float
    """Median of the upper over the lower ends."""
    log_score: float
    """Of groups that were left out; the higher the better."""


def judge(totals: Sequence[PredictedTotal], shape: Shape = STUDENT_2) -> Judged:
    """Leave each group out in turn, and judge its intervals by the scale of the others."""
    residuals = [one.residuals for one in totals]
    scales = scales_left_out(residuals, shape)
    intervals = [one.interval(scales[one.published.group], shape) for one in totals]
    return Judged(
        scales,
        share_held(totals, scales, shape),
        float(np.median([found.high / found.low for found in intervals])),
        log_score_left_out(residuals, scales, shape),
    )


def share_held(
    totals: Sequence[PredictedTotal], scales: Mapping[str, float], shape: Shape = STUDENT_2
) -> float:
    """Share of the published figures that lie in their interval, with the scale that each group has."""
    return float(np.mean([one.held(scales[one.published.group], shape) for one in totals]))


def predict_total(name: str, published: PublishedTotal, runs: int = RUNS) -> PredictedTotal:
    """Predict the device-hours of one published run.

    Raises:
        CapacityError, PlanError, TuningError: its facts contradict each other.
    """
    model, machine = load_model(published.model), load_machine(published.machine)
    storage = published.storage_write
    operation = Operation(
        # None would take the rates of the device, which the hours of steps alone do not hold
        failures_per_node_day=None if published.failures else 0.0,
        reliability=published.failures,
        storage_bytes_per_s=None if storage is None else parse_quantity(storage, "bytes_per_s"),
        spare_nodes=published.spare_nodes,
    )
    request = Request(
        model, published.tokens, published.global_batch, load_stack(published.stack), operation=operation,
        uncertainty=Uncertainty(runs=runs, ranges={"delivery": (1.0, 1.0)}), search_budget_s=SEARCH_S,
    )  # fmt: skip
    plan = _plan(request, machine, published)
    return PredictedTotal(name, published, _hours(plan_run(request, machine, plan), published), plan)


def _plan(request: Request, machine: Machine, published: PublishedTotal) -> Plan:
    if published.plan is not None:
        return plan_from_mapping({**published.plan, "global_batch": published.global_batch})
    constraints = Constraints(fixed={field: (value,) for field, value in published.known.items()})
    study = Study(machine, request.stack, constraints=constraints, budget_s=request.search_budget_s)
    point = tune_point(study, ScalePoint(published.devices, request.model, published.global_batch))
    if point.found is None:
        raise CapacityError([f"no plan: {point.why_not}"])
    return point.found.plan


def _hours(made: CapacityPlan, published: PublishedTotal) -> tuple[float, ...]:
    if published.counted == "steps":
        return tuple(run.parts_s["training"] / 3600.0 * made.devices for run in made.outcomes.runs)
    return tuple(one.device_hours for one in made.bills)


def document(totals: Sequence[PredictedTotal], fine_tuned: Sequence[str] = ()) -> str:
    """The page that shows every total beside its prediction, and the lines on fine-tunes."""
    judged = judge(totals)
    rows = [_row(one, judged.scales[one.published.group]) for one in totals]
    grounds = [
        f"- **{one.name}**: {one.published.source}. Stack: {one.published.why_stack}. "
        f"Failures: {one.published.failures or 'none'}{', by analogy' if one.published.failures else ''}. "
        f"Assumed: {'; '.join(one.published.assumed) or 'nothing'}."
        for one in totals
    ]
    missing = [f"- {name}: {why}" for name, why in published_totals().not_predicted.items()]
    return "\n".join(
        [
            "# Device-hours of whole training runs", "",
            "Written by `python -m towtank.autotune.capacity.totals`. No prediction is fitted to these totals, but "
            "this is no blind test: which stack stands for the software of a run, and what is assumed of it, was "
            "chosen by people who knew the totals. Where a plan was published it is predicted, else the one "
            "that is tuned with those fields fixed that are known (column plan). Hours are those of held "
            "devices, spares too; those of Pythia are of logged steps alone.", "",
            f"{len(totals)} runs, median error {median_error(totals) * 100:.1f} %, the interval holds "
            f"{judged.held * 100:.0f} %.", "",
            *_delivery_words(totals, judged), "",
            "| run | devices | stack | plan | published | predicted | interval | ratio | held |",
            "|---|---|---|---|--:|--:|--:|--:|---|", *rows, "",
            *_WHY, "", "## Fine-tunes: does it fit", "", *fine_tuned, "", "## Grounds", "", *grounds, "",
            "## Published, but not predicted", "", *missing, "",
        ]
    )  # fmt: skip


def _row(one: PredictedTotal, scale: float) -> str:
    found = one.interval(scale)
    cells = (
        one.name, f"{one.published.devices:,} {load_machine(one.published.machine).device.name}", one.published.stack,
        _plan_words(one.published), f"{one.published.device_hours:,.0f}", f"{one.median:,.0f}",
        f"{found.low:,.0f} to {found.high:,.0f}", f"{one.ratio:.2f}", "yes" if one.held(scale) else "no",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _delivery_words(totals: Sequence[PredictedTotal], judged: Judged) -> tuple[str, ...]:
    alone = share_held(totals, dict.fromkeys(judged.scales, 1e-9))
    normal, scale = judge(totals, NORMAL), fit_scale([one.residuals for one in totals])
    low, high = factors(scale, np.array([0.05, 0.95]))
    return (
        "The interval is that of 5 to 95 % of the simulated runs, times a factor of delivery. Intervals of steps and "
        f"the luck of failures alone hold {alone * 100:.0f} %: a step is published where it runs well, and a run is "
        "all that happened to it. The logarithm of the factor is a scale times Student's t with two degrees of "
        f"freedom about 0, cut where 1 % lies beyond. The scale, {scale:.3f}, is the one figure that is fitted here, "
        f"by maximum likelihood, each of {len(judged.scales)} groups weighing the same: in 90 % of the runs the "
        f"factor lies between {low:.2f} and {high:.2f}. The interval of a run in the table has the scale of all "
        f"other groups ({min(judged.scales.values()):.3f} to {max(judged.scales.values()):.3f}), so that none is "
        f"judged by itself. Its upper end is {judged.width:.1f} times the lower one at the median. `towtank "
        "capacity` draws the factor as its input `delivery`.",
        "",
        "The shape was chosen with these rows in view, by the log score of groups that were left out: "
        f"{judged.log_score:.2f} a run. A normal distribution of the logarithm scores {normal.log_score:.2f} and "
        f"holds {normal.held * 100:.0f} % with {normal.width:.1f} times: one run far off widens the intervals of all "
        "others, and is still held to be impossible itself.",
    )


def _plan_words(published: PublishedTotal) -> str:
    if published.plan:
        return "published"
    fixed = ", ".join(f"{field} {value}" for field, value in published.known.items())
    return f"tuned; {fixed}" if fixed else "tuned"


_WHY = (
    "A ratio below 1 says that the run took longer than predicted. Published hours hold what no plan knows: "
    "restarts by hand, phases on fewer devices, tests. A tuned plan is faster than what people ran, and the "
    "software of the stack may be newer than theirs. Open-Qwen2VL shows what a language model alone leaves "
    "out: its image encoder and its reading of images; the second version of its paper says half of the hours of "
    "the first. GPT-NeoX ran with partitioned activations and a synchronisation after each layer, which no stack "
    "here has.",
)


def main(arguments: Sequence[str]) -> int:
    """Predict the named totals, or all; write the page when all are asked."""
    known = published_totals().runs
    unknown = [name for name in arguments if name not in known]
    if unknown:
        sys.stderr.write(f"unknown: {', '.join(unknown)} (known: {', '.join(known)})\n")
        return 2
    if not arguments and not DOCUMENT.parent.is_dir():
        sys.stderr.write(f"there is no folder {DOCUMENT.parent}: run it where the repository begins\n")
        return 2
    found = []
    for name in arguments or known:
        found.append(predict_total(name, known[name]))
        sys.stdout.write(f"{name:18s} {found[-1].ratio:5.2f}\n")
        sys.stdout.flush()
    sys.stdout.write(f"median error {median_error(found):.3f} of {len(found)}\n")
    if not arguments:
        fine_tuned = fine_tunes.lines(
            {name: fine_tunes.planned(one) for name, one in fine_tunes.fine_tunes().items()}
        )
        DOCUMENT.write_text(document(found, fine_tuned), encoding="utf-8")
        FILE.write_text(_delivery_file(found), encoding="utf-8")
        judged = judge(found)
        sys.stdout.write(
            f"interval holds {judged.held:.2f}, upper over lower end {judged.width:.2f}, log score "
            f"{judged.log_score:.2f}, scales {judged.scales}\n"
        )
    return 0


def _delivery_file(totals: Sequence[PredictedTotal]) -> str:
    groups = {one.published.group for one in totals}
    return (
        "# Written by `python -m towtank.autotune.capacity.totals`; docs/totals.md says how.\n"
        f"shape: {STUDENT_2.name}, of the logarithm\n"
        f"scale: {fit_scale([one.residuals for one in totals]):.3f}\n"
        f"runs: {len(totals)}\ngroups: {len(groups)}\n"
        "source: totals.yaml beside the predictions of their device-hours, by maximum likelihood over groups of "
        "equal weight\n"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
