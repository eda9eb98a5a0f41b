"""A trace of the PyTorch profiler as a record of a measured step."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from towtank.cli.failure import InputError, Inputs

if TYPE_CHECKING:
    from towtank.executor.measured.run_record import RunRecord

KINETO = "kineto"
_SHOWN = 15


def is_trace(file: Path, source: str | None) -> bool:
    """Whether a file is meant as a trace: because the user says so, or by its content."""
    from towtank.executor.measured.kineto_events import looks_like_trace

    return source == KINETO or (source is None and looks_like_trace(file))


def import_trace(
    file: Path,
    output: Path | None,
    model: str | None,
    stack: str | None,
    json: bool,
    plan_options: Sequence[str],
) -> None:
    """Read a trace, write its record and print what it holds."""
    from towtank import __version__
    from towtank.executor.measured import kineto
    from towtank.simulator.models.load import load_model
    from towtank.simulator.stacks.load import load_stack

    inputs = Inputs()
    inputs.take(lambda: _check_options(plan_options))
    if model is not None:
        inputs.take(lambda: load_model(model))
    if stack is not None:
        inputs.take(lambda: load_stack(stack))
    record = inputs.take(lambda: kineto.import_trace(file, __version__, model=model, stack=stack))
    inputs.check()
    assert record is not None  # else check has raised
    if output is not None:
        _write(record, output)
    if json:
        from dataclasses import asdict

        from towtank.cli.text import emit_json

        emit_json(asdict(record))
        return
    from towtank.cli.text import emit

    emit(_text(record, file, output))


def _check_options(given: Sequence[str]) -> None:
    if given:
        raise InputError(f"{', '.join(given)}: a trace says nothing of a plan; leave it out")


def _write(record: "RunRecord", output: Path) -> None:
    from towtank.executor.measured.run_record import write_run_record

    try:
        write_run_record(record, output)
    except OSError as error:
        raise InputError(f"--output {output}: cannot be written: {error.strerror or error}") from error


def _text(record: "RunRecord", file: Path, output: Path | None) -> str:
    from towtank.cli.text import gibibytes, paragraph, percent, seconds, table

    step = record.step
    rows = [
        (row, seconds(value), percent(value / step.step_time_s)) for row, value in step.breakdown_s.items()
    ]
    longest = sorted(step.operations, key=lambda one: -one.exposed_s)[:_SHOWN]
    operations = [
        (one.name, one.kind, one.phase, seconds(one.seconds), seconds(one.exposed_s)) for one in longest
    ]
    heads = ("", "", "", "in all", "exposed")
    parts = [
        f"{file}: a step of {seconds(step.step_time_s)}",
        "Where the step goes\n" + table(rows, right=(1, 2)),
        f"The {len(longest)} longest of {len(step.operations)} operations\n"
        + table(operations, heads, right=(3, 4)),
    ]
    if step.peak_memory_bytes is not None:
        parts.append(f"memory at the peak: {gibibytes(step.peak_memory_bytes)}")
    parts += [paragraph(f"note: {note}", indent=0) for note in record.notes]
    if output is not None:
        parts.append(f"record: {output}")
    return "\n\n".join(parts)
