"""`towtank export`: a plan in the words of the software that runs it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towtank.cli.failure import InputError, Inputs
from towtank.cli.options import Json, Machine, Model, Profiles, Stack

if TYPE_CHECKING:
    from towtank.autotune.export.records import Export, Job

EXAMPLES = """\
\b
Examples:
  towtank export plan.yaml --to megatron -o train.sh
  towtank export plan.yaml --to torchtitan -o recipe.py
  towtank export plan.yaml --to deepspeed -o ds.json --set zero_stage=2
  towtank export plan.yaml --to slurm --framework megatron-axonn -o job.sbatch
  towtank export plan.yaml --to megatron-bridge --model llama3-8b --machine dgx-h100:nodes=4 --json

\b
A target that would run something else than the plan says is an error with every reason (exit code 2). What it
cannot be told, but does not change the meaning, is a comment in the file and a note on standard error.
"""


def _option(*names: str, metavar: str, text: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=text, show_default=False)


_PlanFile = Annotated[
    Path, typer.Argument(metavar="PLAN", help="Plan file; it may name model, machine and stack.")
]
_Target = Annotated[
    str,
    _option(
        "--to",
        metavar="T",
        text="megatron, megatron-axonn, torchtitan, deepspeed, megatron-bridge or slurm.",
    ),
]
_Framework = Annotated[
    str | None,
    _option("--framework", metavar="F", text="What a Slurm script starts; default: megatron."),
]
_Output = Annotated[
    Path | None,
    _option(
        "--output",
        "-o",
        metavar="FILE",
        text="Write here, and files that belong to it beside it; default: print.",
    ),
]
_Settings = Annotated[
    list[str] | None,
    _option(
        "--set", metavar="KEY=VALUE,...", text="Fields that override those of the plan file. Repeatable."
    ),
]
_IgnoredKeys = Annotated[
    list[str] | None,
    _option(
        "--ignore-config-key",
        metavar="KEY",
        text="Key of a config.json that does not change the shape. Repeatable.",
    ),
]


def export(
    plan: _PlanFile,
    to: _Target,
    framework: _Framework = None,
    output: _Output = None,
    settings: _Settings = None,
    model: Model = None,
    machine: Machine = None,
    stack: Stack = None,
    json: Json = False,
    profiles: Profiles = None,
    ignore_config_key: _IgnoredKeys = None,
) -> None:
    """Write a plan as the configuration and launch line of the software that runs it."""
    from towtank.autotune.export import targets
    from towtank.autotune.export.records import Job
    from towtank.cli.job import load_job

    inputs = Inputs()
    inputs.take(lambda: _known("--to", to, targets.TARGETS))
    inputs.take(lambda: _framework(to, framework, targets.FRAMEWORKS))
    inputs.take(lambda: _elsewhere(output, plan))
    loaded = load_job(
        plan,
        model,
        machine,
        stack,
        tuple(profiles or ()),
        settings or (),
        ignore_keys=ignore_config_key or (),
        inputs=inputs,
    )
    job = Job(loaded.model, loaded.machine, loaded.plan, loaded.stack, str(loaded.references.machine))
    if not loaded.references.stack_named:
        job = targets.with_usual_stack(job, to, framework)
    result = _exported(job, to, framework, output)
    written = [] if output is None else _write(result, output)
    if json:
        _print_json(result, written)
    else:
        _print(result, written)


def _exported(job: "Job", to: str, framework: str | None, output: Path | None) -> "Export":
    """The export; an error says how a search finds what the target can run."""
    from towtank.autotune.export import targets
    from towtank.autotune.export.records import ExportError

    try:
        return targets.export(job, to, framework, None if output is None else output.stem)
    except ExportError as error:
        own = targets.usual_stack(to, framework).name
        hint = (
            "give `towtank tune` what is asked here as --fix FIELD=VALUE, and it leaves such plans out"
            if job.stack.name == own
            else f"the plan is for the stack {job.stack.name}; `towtank tune --stack {own}` searches what the "
            "target's software can run"
        )
        raise InputError(f"{error}\n{hint}") from error


def _known(option: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        from towtank.hardware_profiles.nearest import did_you_mean

        raise InputError(f"{option} {word} is unknown{did_you_mean(word, known)} (known: {', '.join(known)})")


def _framework(target: str, framework: str | None, known: tuple[str, ...]) -> None:
    if framework is None:
        return
    if target != "slurm":
        raise InputError(
            f"--framework {framework} says what a Slurm script starts; leave it out, or --to slurm"
        )
    _known("--framework", framework, known)


def _elsewhere(output: Path | None, plan: Path) -> None:
    if output is not None and output.resolve() == plan.resolve():
        raise InputError(f"--output {output} is the plan itself; write somewhere else")


def _write(result: "Export", output: Path) -> list[Path]:
    """Write the first file as the user named it, the others beside it; the paths."""
    paths = [output, *(output.parent / file.name for file in result.files[1:])]
    if len(set(paths)) < len(paths):
        raise InputError(
            f"--output {output}: a second file of this export would have the same name; give it another ending than "
            f"{output.suffix}"
        )
    first = Path(result.files[0].name)
    if len(paths) > 1 and first.suffix in (".json", ".py") and output.name != first.name:
        raise InputError(
            f"--output {output}: the script beside it calls it {first.name}; end the name with {first.suffix}"
        )
    for path, file in zip(paths, result.files, strict=True):
        try:
            path.write_text(file.text, encoding="utf-8")
            if path.suffix in (".sh", ".sbatch"):
                path.chmod(path.stat().st_mode | 0o111)
        except OSError as error:
            raise InputError(f"--output {path}: cannot be written: {error.strerror or error}") from error
    return paths


def _print_json(result: "Export", written: list[Path]) -> None:
    from towtank.cli.text import emit_json

    names = [str(path) for path in written] or [file.name for file in result.files]
    files = [{"name": name, "text": file.text} for name, file in zip(names, result.files, strict=True)]
    emit_json({"target": result.target, "files": files, "warnings": list(result.warnings)})


def _print(result: "Export", written: list[Path]) -> None:
    import sys

    from towtank.cli.text import emit

    if written:
        emit("\n".join(f"wrote {path}" for path in written))
    else:
        emit(result.files[0].text.rstrip("\n"))
        for file in result.files[1:]:
            print(f"\n{file.name}:\n{file.text}", file=sys.stderr, end="")
    for warning in result.warnings:
        print(f"note: {warning}", file=sys.stderr)
