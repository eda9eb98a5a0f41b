"""`towtank compare`: two steps side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towtank.cli.options import Json, Machine, Model, Profiles, Stack

if TYPE_CHECKING:
    from towtank.cli.job import Job
    from towtank.simulator.predict import Prediction

EXAMPLES = """\
\b
Examples:
  towtank compare a.yaml b.yaml
  towtank compare plan.yaml plan.yaml --set-b tensor_x=4,data=16
  towtank compare a.yaml b.yaml --model llama3-70b --machine alps --json

\b
The files may name different models, machines and stacks; options hold for both.
"""


def _argument(metavar: str, text: str) -> Any:
    return typer.Argument(metavar=metavar, help=text, show_default=False)


def _settings(name: str, which: str) -> Any:
    return typer.Option(
        name, metavar="KEY=VALUE,...", help=f"Fields of the {which} plan. Repeatable.", show_default=False
    )


def compare(
    a: Annotated[Path, _argument("A.yaml", "Plan file.")],
    b: Annotated[Path, _argument("B.yaml", "Plan file.")],
    model: Model = None,
    machine: Machine = None,
    stack: Stack = None,
    set_a: Annotated[list[str] | None, _settings("--set-a", "first")] = None,
    set_b: Annotated[list[str] | None, _settings("--set-b", "second")] = None,
    json: Json = False,
    profiles: Profiles = None,
) -> None:
    """Show two predicted steps side by side: totals, seconds by operation kind, memory by part."""
    from towtank.cli.failure import Inputs
    from towtank.cli.job import load_job

    folders = tuple(profiles or ())
    inputs = Inputs()
    first = inputs.take(lambda: load_job(a, model, machine, stack, folders, set_a or ()))
    second = inputs.take(lambda: load_job(b, model, machine, stack, folders, set_b or ()))
    inputs.check()
    assert first and second  # else check has raised
    one = inputs.take(lambda: predicted(first, folders, a))
    other = inputs.take(lambda: predicted(second, folders, b))
    inputs.check()
    assert one and other
    if json:
        from towtank.autotune.reasons.compare import comparison_to_mapping
        from towtank.cli.text import emit_json

        emit_json(comparison_to_mapping(one, other))
        return
    from towtank.cli.compare_text import compare_text
    from towtank.cli.text import emit

    emit(compare_text(one, other, (str(a), str(b))))


def predicted(job: "Job", folders: Sequence[Path], path: Path | None = None) -> "Prediction":
    """The predicted step of a job; `path` is the plan file that a message names.

    Raises:
        PlanError: the plan breaks rules.
    """
    from towtank.simulator.errors import PlanError
    from towtank.simulator.plan_rules import faults_of
    from towtank.simulator.predict import predict

    faults = faults_of(job.model, job.machine, job.plan, job.stack)
    if faults:
        raise PlanError(faults, "plan" if path is None else str(path))
    return predict(job.model, job.machine, job.plan, stack=job.stack, profile_dirs=folders)
