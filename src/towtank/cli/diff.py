"""`towtank diff`: a measured step beside the predicted one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towtank.cli.failure import InputError, Inputs
from towtank.cli.options import Json, Machine, Model, Profiles, Stack

if TYPE_CHECKING:
    from towtank.cli.job import Job
    from towtank.executor.measured.run_record import RunRecord

EXAMPLES = """\
\b
Examples:
  towtank run plan.yaml --model tiny-llama --steps 20 --record run.json
  towtank diff plan.yaml --record run.json --machine my-machine
  towtank diff plan.yaml --record imported.json --model llama3-8b --machine dgx-h100 --top 40 --each-layer

\b
Model and stack are those of the record where neither an option nor the plan file names them.
"""


def _option(*names: str, metavar: str | None = None, text: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=text, show_default=metavar == "N")


_RecordFile = Annotated[
    Path,
    _option("--record", metavar="FILE", text="Record of the run (towtank run --record, towtank import)."),
]
_Settings = Annotated[
    list[str] | None,
    _option("--set", metavar="KEY=VALUE,...", text="Fields of the plan; they override the file. Repeatable."),
]
_Top = Annotated[int, _option("--top", metavar="N", text="Operations to list.")]
_EachLayer = Annotated[
    bool, _option("--each-layer", text="List the operations of each layer, not all layers together.")
]


def diff(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.yaml", help="Plan file.", show_default=False)],
    record: _RecordFile,
    model: Model = None,
    machine: Machine = None,
    stack: Stack = None,
    settings: _Settings = None,
    top: _Top = 20,
    each_layer: _EachLayer = False,
    json: Json = False,
    profiles: Profiles = None,
) -> None:
    """Lay a measured step beside the predicted one: totals, by kind, operation by operation."""
    from towtank.cli.compare import predicted
    from towtank.executor.measured.difference import differences, differences_to_mapping

    folders = tuple(profiles or ())
    inputs = Inputs()
    inputs.take(lambda: _at_least_one(top))
    measured = inputs.take(lambda: _read(record))
    job = inputs.take(lambda: _job(plan, measured, (model, machine, stack), folders, settings or [], inputs))
    inputs.check()
    assert job and measured  # else check has raised
    _check_devices(job, measured, record)
    found = differences(predicted(job, folders, plan), measured, each_layer=each_layer)
    others = _other_job(job, measured)
    if json:
        from towtank.cli.text import emit_json

        names = {"model": job.model.name, "machine": job.machine.name, "stack": job.stack.name}
        emit_json(names | {"record": str(record), "other_job": others} | differences_to_mapping(found, top))
        return
    from towtank.cli.diff_text import diff_text
    from towtank.cli.text import emit

    emit(diff_text(found, job, measured, top, others))


def _at_least_one(top: int) -> None:
    if top < 1:
        raise InputError(f"--top {top} must be 1 or more")


def _read(path: Path) -> "RunRecord":
    from towtank.executor.measured.run_record import read_run_record

    return read_run_record(path)


def _job(
    plan: Path,
    record: "RunRecord | None",
    options: tuple[str | None, str | None, str | None],
    folders: tuple[Path, ...],
    settings: list[str],
    inputs: Inputs,
) -> "Job | None":
    """The job of the plan file; what nobody names is taken from the record."""
    from towtank.cli.job import load_job
    from towtank.simulator.plan_file import read_plan_mapping

    model, machine, stack = options
    document = inputs.take(lambda: read_plan_mapping(plan))
    if document is None:
        return None
    if record is not None:
        model = model or (None if document.get("model") else record.model)
        stack = stack or (None if document.get("stack") else record.stack)
    return load_job(plan, model, machine, stack, folders, settings)


def _other_job(job: "Job", record: "RunRecord") -> list[str]:
    """In what the run was another job than the predicted one, as far as the record tells."""
    from towtank.simulator.plan import Plan
    from towtank.simulator.plan_file import plan_to_mapping

    found = []
    for what, here, there in (
        ("model", job.references.model, record.model),
        ("stack", job.references.stack, record.stack),
    ):
        # a file may be named from another folder
        if there is not None and Path(there).name != Path(str(here)).name:
            found.append(f"{what} {there} (predicted: {here})")
    if record.plan is not None:
        own, measured, usual = plan_to_mapping(job.plan), record.plan, Plan()
        for key in (
            key for key in {**own, **measured} if key != "schema" and own.get(key) != measured.get(key)
        ):
            here, there = (each.get(key, getattr(usual, key, None)) for each in (own, measured))
            found.append(f"{key} = {there} (predicted: {here})")
    if record.run is not None and record.run.dtype != {"tf32": "fp32"}.get(
        job.plan.precision, job.plan.precision
    ):
        found.append(f"dtype {record.run.dtype} (predicted: {job.plan.precision})")
    return found


def _check_devices(job: "Job", record: "RunRecord", path: Path) -> None:
    """A record of another number of devices is of another plan."""
    devices = None if record.run is None else record.run.devices
    if devices is not None and devices != job.plan.num_devices:
        raise InputError(
            f"{path} is of a run on {devices} devices, but the plan has {job.plan.num_devices}; "
            "give the plan that was run, or change it with --set"
        )
