"""The report of one step: what is on it, section by section."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from towtank.autotune.explanation.actions import actions, nothing_next
from towtank.autotune.explanation.sensitivities import Sensitivity, sensitivities
from towtank.autotune.reasons.survey import Survey, survey
from towtank.autotune.task import TuningTask
from towtank.hardware_profiles.errors import UnknownFigure
from towtank.hardware_profiles.load import load_machine
from towtank.hardware_profiles.records import Machine, chosen
from towtank.pages import plots
from towtank.pages.plan_rows import plan_rows
from towtank.pages.plots_over_time import memory_plot, timeline_plot
from towtank.pages.records import Page, Section, Table
from towtank.pages.roofline import roofline_plot
from towtank.simulator.critical_path import PathPart, by_resource, critical_path
from towtank.simulator.errors import PlanError
from towtank.simulator.plan import Plan
from towtank.simulator.predict import Prediction, predict
from towtank.simulator.report.caveats import caveats
from towtank.validation.intervals import Interval, Regime, attach_interval, regimes_of

GIB = 2.0**30
REPLICAS = (2, 4, 8)
"""Multiples and parts of the plan's data-parallel degree in the scaling plot; the batch goes with it."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """Everything that the report of one step shows."""

    prediction: Prediction
    interval: Interval
    regimes: tuple[Regime, ...]
    """Validated regimes of the step, the widest first."""
    path: tuple[PathPart, ...]
    sensitivities: tuple[Sensitivity, ...]
    survey: Survey
    scaling: tuple[tuple[int, Prediction], ...]
    commands: tuple[str, ...]
    """Lines that reproduce the page."""


def step_report(
    prediction: Prediction,
    commands: Sequence[str],
    *,
    profile_dirs: Sequence[Path] = (),
    top: int = 12,
    progress: Callable[[int, int], None] | None = None,
) -> StepReport:
    """Work out everything that the report of a step shows; `progress` is told of the plans one step away.

    Raises:
        UnknownFigure: the machine's profile lacks a figure that a prediction needs.
    """
    plan = prediction.plan
    task = TuningTask(
        model=prediction.model, machine=prediction.machine, stack=prediction.stack, devices=plan.num_devices,
        global_batch=plan.global_batch, sequence=plan.sequence, profile_dirs=tuple(profile_dirs),
    )  # fmt: skip
    return StepReport(
        prediction=prediction,
        interval=attach_interval(prediction),
        regimes=regimes_of(prediction),
        path=critical_path(prediction.step, prediction.machine.device),
        sensitivities=sensitivities(prediction, profile_dirs),
        survey=survey(task, plan, prediction, top=top, progress=progress),
        scaling=_scaled(prediction, profile_dirs),
        commands=tuple(commands),
    )


def _scaled(prediction: Prediction, profile_dirs: Sequence[Path]) -> tuple[tuple[int, Prediction], ...]:
    """Predictions with fewer and with more replicas, as far as the plan divides and the machine has nodes."""
    machine = _whole(prediction.machine, profile_dirs)

    def replicas(plan: Plan) -> Prediction | None:
        try:
            return predict(prediction.model, machine, plan, stack=prediction.stack, profile_dirs=profile_dirs)
        except (PlanError, UnknownFigure):
            return None  # the machine is smaller, shards do not divide, or nobody knows links between groups

    plan = prediction.plan
    fewer = [
        replace(plan, data=plan.data // part, global_batch=plan.global_batch // part)
        for part in REPLICAS
        if plan.data % part == 0 and plan.global_batch % part == 0
    ]
    more = [replace(plan, data=plan.data * part, global_batch=plan.global_batch * part) for part in REPLICAS]
    found = [prediction, *(other for each in (*fewer, *more) if (other := replicas(each)) is not None)]
    return tuple(sorted(((one.plan.num_devices, one) for one in found), key=lambda point: point[0]))


def _whole(machine: Machine, profile_dirs: Sequence[Path]) -> Machine:
    """The machine with all its nodes where somebody has sized it; a generic one has as many as are asked for."""
    if not chosen(machine, "num_nodes"):
        return machine
    return replace(machine, num_nodes=load_machine(machine.name, profile_dirs).num_nodes)


def page_of(report: StepReport) -> Page:
    """The page of a report."""
    prediction = report.prediction
    sections = [
        _summary(report),
        Section("Where the time goes", plot=plots.breakdown_plot(prediction)),
        Section(
            "What limits the step",
            ["The chain of operations without a gap that makes the step as long as it is."],
            plot=plots.path_plot(prediction, report.path),
        ),
        Section("Pipeline", plot=timeline_plot(prediction)),
        Section("Memory over the step", plot=memory_plot(prediction)),
        Section("Roofline of the operations", plot=roofline_plot(prediction)),
        Section("What matters of the machine", plot=plots.sensitivity_plot(report.sensitivities)),
        Section(
            "Plans one step away", items=_better(report), plot=plots.front_plot(prediction, report.survey)
        ),
    ]
    sections += [_scaling(report), _validation(report), _grounds(report), _reproduce(report)]
    title = f"{prediction.model.name} on {prediction.plan.num_devices:,} devices of {prediction.machine.name}"
    return Page(title, f"A training step under stack {prediction.stack.name}, predicted by towtank", sections)


def summary_rows(prediction: Prediction, interval: Interval) -> list[tuple[str, str]]:
    """Figures of a step and the fields of its plan, each with its name."""
    fits = "fits" if prediction.fits else "does NOT fit"
    return [
        ("step time", f"{prediction.step_time_s:.4g} s ({interval.low_s:.4g} to {interval.high_s:.4g} s at "
         f"{interval.nominal * 100:.0f} %)"),
        ("tokens a second", f"{prediction.tokens_per_s:,.0f}"),
        ("model FLOP/s of a device", f"{prediction.flop_per_s_per_device / 1e12:,.1f} TFLOP/s"),
        ("MFU, HFU", f"{prediction.mfu * 100:.1f} %, {prediction.hfu * 100:.1f} %"),
        ("memory at the peak", f"{prediction.peak_memory_bytes / GIB:.1f} of "
         f"{prediction.memory_capacity_bytes / GIB:.1f} GiB a device: {fits}"),
        *plan_rows(prediction.plan),
    ]  # fmt: skip


def _summary(report: StepReport) -> Section:
    rows = summary_rows(report.prediction, report.interval)
    rows.insert(5, ("limited by", by_resource(report.path)[0][0]))
    return Section("Summary", table=Table(("what", "figure"), rows))


def _better(report: StepReport) -> list[str]:
    found = actions(report.prediction, report.survey)
    return found or [f"Of these, {nothing_next(report.prediction, report.survey)}."]


def _scaling(report: StepReport) -> Section:
    own = report.prediction.plan.num_devices
    if len(report.scaling) == 1:
        text = "Neither half nor twice as many replicas of this plan are possible on this machine."
    else:
        text = "The same plan with fewer and more replicas, each with as many sequences as one has now."
    if chosen(report.prediction.machine, "num_nodes"):
        text += (
            " The machine is taken with all nodes that it has; a generic one with as many as are asked for."
        )
    return Section("Scaling of this plan", [text], plot=plots.scaling_plot(report.scaling, own))


def _validation(report: StepReport) -> Section:
    interval = report.interval
    paragraphs = [
        f"The interval of {interval.nominal * 100:.0f} % stands on {interval.rows:,} {interval.runs} of the regime "
        f"“{interval.regime}”, the narrowest that has enough; it runs from "
        f"{(interval.low_s / report.prediction.step_time_s - 1) * 100:+.0f} to "
        f"{(interval.high_s / report.prediction.step_time_s - 1) * 100:+.0f} % of the predicted step.",
    ]
    if report.regimes:
        paragraphs.append("`towtank validate` shows each published run beside its prediction.")
    items = [f"Beyond what was validated: {reason}" for reason in interval.extrapolated]
    rows = [
        (one.name, one.rows, f"{one.error * 100:.1f} %", f"{one.bias * 100:+.1f} %") for one in report.regimes
    ]
    heads = ("runs of the regime", "runs", "mean error", "measured step over the predicted")
    return Section(
        "How far to trust it",
        paragraphs,
        items=items or ["Within what was validated."],
        table=Table(heads, rows) if rows else None,
    )


def _grounds(report: StepReport) -> Section:
    prediction = report.prediction
    sources = sorted(
        {(field, source.text, source.provenance) for record in (
            prediction.machine, prediction.machine.device, prediction.machine.node, prediction.machine.network
        ) for field, source in getattr(record, "sources", {}).items()}
    )  # fmt: skip
    return Section(
        "Assumptions and sources",
        items=[*prediction.provenance, *caveats(prediction)],
        table=Table(("figure of the machine", "source", "kind"), sources),
    )


def _reproduce(report: StepReport) -> Section:
    return Section("Commands that reproduce this page", commands=report.commands)
