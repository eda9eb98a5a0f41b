"""`towtank why`: what is wrong with a plan, what limits it, and what would be better."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towtank.cli.compare import predicted
from towtank.cli.failure import Inputs
from towtank.cli.memory_margin import AUTO, MemoryMarginOption, margin_share
from towtank.cli.options import Json, Machine, Model, Profiles, Stack

if TYPE_CHECKING:
    from towtank.autotune.reasons.survey import Survey
    from towtank.cli.job import Job
    from towtank.cli.why_text import Assessment
    from towtank.simulator.predict import Prediction

EXAMPLES = """\
\b
Examples:
  towtank why plan.yaml
  towtank why plan.yaml --set tensor_x=16,data=4
  towtank why plan.yaml --against best.yaml
  towtank why plan.yaml --model gpt3-175b --machine selene --stack megatron-2021 --devices 1024 --json

\b
A plan file that `towtank tune` wrote names model, machine and stack; for others give them as options.
"""

_PlanFile = Annotated[Path, typer.Argument(metavar="PLAN.yaml", help="Plan file.", show_default=False)]
_Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE,...",
        help="Fields of the plan; they override those of the file. Repeatable.",
        show_default=False,
    ),
]
_Devices = Annotated[
    int | None,
    typer.Option(
        "--devices", metavar="N", min=1, help="Devices that the plan must occupy; default: those it does."
    ),
]
_Against = Annotated[
    Path | None,
    typer.Option(
        "--against",
        metavar="BEST.yaml",
        help="Compare with this plan instead of the neighbours.",
        show_default=False,
    ),
]
_Top = Annotated[int, typer.Option("--top", metavar="N", min=1, help="Neighbours that are shown.")]


def why(
    plan: _PlanFile,
    model: Model = None,
    machine: Machine = None,
    stack: Stack = None,
    settings: _Settings = None,
    devices: _Devices = None,
    against: _Against = None,
    top: _Top = 5,
    memory_margin: MemoryMarginOption = AUTO,
    json: Json = False,
    profiles: Profiles = None,
) -> None:
    """Say why a plan is not the best: rules it breaks, memory it lacks, time it loses and on what.

    The plan is compared with its neighbours: plans on the same devices with one degree moved or one switch flipped,
    the legal ones judged and the fastest simulated. With --against it is compared with another plan.
    """
    from towtank.cli.job import load_job

    folders = tuple(profiles or ())
    inputs = Inputs()
    job = inputs.take(lambda: load_job(plan, model, machine, stack, folders, settings or ()))
    margin = inputs.take(lambda: margin_share(memory_margin, None if job is None else job.stack.name))
    best = None if against is None else inputs.take(lambda: _best(against, (model, machine, stack), folders))
    inputs.check()
    assert job is not None and margin is not None  # else check has raised
    found = _assess(job, best, devices, top, folders, margin)
    if json:
        from towtank.cli.text import emit_json

        emit_json(assessment_to_mapping(found))
        return
    from towtank.cli.text import emit
    from towtank.cli.why_text import why_text

    emit(why_text(found))


def _best(
    path: Path, named: tuple[str | None, str | None, str | None], folders: Sequence[Path]
) -> "Prediction":
    from towtank.cli.job import load_job

    return predicted(load_job(path, *named, folders), folders, path)


def _assess(
    job: "Job",
    best: "Prediction | None",
    devices: int | None,
    top: int,
    folders: Sequence[Path],
    margin: float,
) -> "Assessment":
    from towtank.autotune.reasons import explain, reason_between
    from towtank.autotune.reasons.survey import survey
    from towtank.autotune.task import TuningTask
    from towtank.cli.progress import progress_bar
    from towtank.cli.why_text import Assessment
    from towtank.simulator.plan_rules import faults_of

    plan = job.plan
    task = TuningTask(
        model=job.model,
        machine=job.machine,
        stack=job.stack,
        devices=plan.num_devices if devices is None else devices,
        global_batch=plan.global_batch,
        sequence=plan.sequence,
        profile_dirs=tuple(folders),
        memory_margin=margin,
    )
    rules = tuple(faults_of(job.model, job.machine, plan, job.stack, devices))
    prediction = None if rules else predicted(job, folders)
    if best is not None:
        reason = explain(task, plan, best) if prediction is None else reason_between(prediction, best)
        return Assessment(job, task, rules, prediction, None, best, reason)

    def tell(done: int, total: int) -> None:
        progress_bar("neighbours", done=done, total=total)

    around = survey(task, plan, prediction, top=top, progress=tell)
    return Assessment(job, task, rules, prediction, around, None, None)


def assessment_to_mapping(found: "Assessment") -> dict[str, Any]:
    """An assessment as plain data, in SI units."""
    from dataclasses import asdict

    from towtank import __version__
    from towtank.autotune.reasons import reason_to_mapping
    from towtank.autotune.reasons.limits import limits
    from towtank.simulator.plan_file import plan_to_mapping
    from towtank.simulator.report.mapping import prediction_to_mapping

    document: dict[str, Any] = {
        "schema": 1,
        "towtank": __version__,
        "model": found.job.model.name,
        "machine": found.job.machine.name,
        "stack": found.job.stack.name,
        "memory_margin": found.task.memory_margin,
        "plan": plan_to_mapping(found.job.plan),
        "legal": not found.rules,
        "rules": list(found.rules),
    }
    if found.prediction is not None:
        document["prediction"] = prediction_to_mapping(found.prediction, __version__)
        document["limits"] = [asdict(limit) for limit in limits(found.prediction)]
    if found.survey is not None:
        document["neighbours"] = _survey_to_mapping(found.survey, found.prediction)
    if found.against is not None and found.reason is not None:
        document["against"] = {
            "model": found.against.model.name,
            "machine": found.against.machine.name,
            "stack": found.against.stack.name,
            "plan": plan_to_mapping(found.against.plan),
            "step_time_s": found.against.step_time_s,
            "reason": reason_to_mapping(found.reason),
        }
    return document


def _survey_to_mapping(survey: "Survey", prediction: "Prediction | None") -> dict[str, Any]:
    from towtank.autotune.reasons import reason_between, reason_to_mapping
    from towtank.simulator.plan_file import plan_to_mapping

    rows = []
    for each in (*survey.best, *([] if survey.out_of_reach is None else [survey.out_of_reach])):
        row: dict[str, Any] = {
            "change": each.change,
            "plan": plan_to_mapping(each.prediction.plan),
            "step_time_s": each.prediction.step_time_s,
            "peak_memory_bytes": each.prediction.peak_memory_bytes,
            "fits": each.prediction.fits,
        }
        if prediction is not None:
            row["reason"] = reason_to_mapping(reason_between(prediction, each.prediction))
        rows.append(row)
    return {
        "counts": {
            "neighbours": survey.neighbours,
            "legal": survey.legal,
            "fit": survey.fit,
            "simulated": survey.simulated,
        },
        "best": rows[: len(survey.best)],
        "out_of_reach": rows[len(survey.best)] if survey.out_of_reach is not None else None,
    }
