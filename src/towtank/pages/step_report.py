"""The report of one step: what is on it, section by section."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from towtank.autotune.explanation.sensitivities import Sensitivity, sensitivities
from towtank.autotune.reasons.difference import AS_FAST
from towtank.autotune.reasons.survey import Survey, survey
from towtank.autotune.task import TuningTask
from towtank.pages import plots
from towtank.pages.records import Page, Section, Table
from towtank.simulator.critical_path import PathPart, critical_path
from towtank.simulator.errors import PlanError
from towtank.simulator.plan_file import plan_to_mapping
from towtank.simulator.predict import Prediction, predict
from towtank.simulator.report.caveats import caveats
from towtank.validation.intervals import Interval, attach_interval

GIB = 2.0**30
REPLICAS = (1, 2, 4, 8)
"""Multiples of the plan's data-parallel degree in the scaling plot; the batch grows with it."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """Everything that the report of one step shows."""

    prediction: Prediction
    interval: Interval
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
        path=critical_path(prediction.step, prediction.machine.device),
        sensitivities=sensitivities(prediction, profile_dirs),
        survey=survey(task, plan, prediction, top=top, progress=progress),
        scaling=_scaled(prediction, profile_dirs),
        commands=tuple(commands),
    )


def _scaled(prediction: Prediction, profile_dirs: Sequence[Path]) -> tuple[tuple[int, Prediction], ...]:
    """Predictions with more replicas, as far as the machine has devices."""
    found = [(prediction.plan.num_devices, prediction)]
    for factor in REPLICAS[1:]:
        plan = replace(
            prediction.plan,
            data=prediction.plan.data * factor,
            global_batch=prediction.plan.global_batch * factor,
        )
        try:
            other = predict(
                prediction.model, prediction.machine, plan, stack=prediction.stack, profile_dirs=profile_dirs
            )
        except PlanError:
            break  # the machine is smaller, or the plan's shards do not divide
        found.append((plan.num_devices, other))
    return tuple(found)


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
        Section("Pipeline", plot=plots.timeline_plot(prediction)),
        Section("Memory over the step", plot=plots.memory_plot(prediction)),
        Section("Roofline of the operations", plot=plots.roofline_plot(prediction)),
        Section("What matters of the machine", plot=plots.sensitivity_plot(report.sensitivities)),
        Section(
            "Plans one step away", items=_better(report), plot=plots.front_plot(prediction, report.survey)
        ),
    ]
    if len(report.scaling) > 1:
        sections.append(Section("Scaling of this plan", plot=plots.scaling_plot(report.scaling)))
    sections += [_validation(report), _grounds(report), _reproduce(report)]
    title = f"{prediction.model.name} on {prediction.plan.num_devices:,} devices of {prediction.machine.name}"
    return Page(title, f"A training step under {prediction.stack.name}, predicted by towtank", sections)


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
        *((name, str(value)) for name, value in plan_to_mapping(prediction.plan).items() if name != "schema"),
    ]  # fmt: skip


def _summary(report: StepReport) -> Section:
    rows = summary_rows(report.prediction, report.interval)
    rows.insert(5, ("limited by", report.path[0].resource))
    return Section("Summary", table=Table(("what", "figure"), rows))


def _better(report: StepReport) -> list[str]:
    own = report.prediction.step_time_s
    better = [each for each in report.survey.best if each.prediction.step_time_s < own * (1 - AS_FAST)]
    if not better:
        return [f"None of {report.survey.legal:,} legal plans one step away is faster."]
    return [f"{each.change}: {(1 - each.prediction.step_time_s / own) * 100:.1f} % faster" for each in better]


def _validation(report: StepReport) -> Section:
    interval = report.interval
    paragraphs = [
        f"The interval of {interval.nominal * 100:.0f} % stands on {interval.rows:,} published runs of the regime "
        f"“{interval.regime}”; `towtank validate` shows each of them beside its prediction.",
    ]
    items = [f"Beyond what was validated: {reason}" for reason in interval.extrapolated]
    return Section("How far to trust it", paragraphs, items=items or ["Within what was validated."])


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
