"""`towtank import`: a plan from the configuration of other software, or a record from a trace of its run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towtank.cli.failure import InputError, Inputs
from towtank.cli.options import Json

if TYPE_CHECKING:
    from towtank.autotune.reading.records import Imported
    from towtank.simulator.plan import Plan

EXAMPLES = """\
\b
Examples:
  towtank import train.sh -o plan.yaml --machine dgx-h100:nodes=64
  towtank import args.json --from megatron --devices 512
  towtank import ds.json --from deepspeed --devices 64 --set sequence=4096,recompute=full
  towtank import trace.json.gz --model llama3-8b -o record.json    (then: towtank diff PLAN --record record.json)

\b
Arguments of Megatron-LM and Megatron-AxoNN: a launch script, a list, or a dump of them (JSON, YAML, the list at
the head of a log). Options that are no part of a plan are listed on standard error.
Traces of the PyTorch profiler (export_chrome_trace), of any framework, become a record of a measured step.
"""


_SHOWN = 60


def _option(*names: str, metavar: str, text: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=text, show_default=False)


_File = Annotated[Path, typer.Argument(metavar="FILE", help="Script, list of arguments, dump or JSON.")]
_Source = Annotated[
    str | None,
    _option(
        "--from",
        metavar="S",
        text="megatron, megatron-axonn, deepspeed or kineto; default: found from the content.",
    ),
]
_Devices = Annotated[
    int | None, _option("--devices", metavar="N", text="Devices of the job, where the file does not say.")
]
_Output = Annotated[
    Path | None,
    _option("--output", "-o", metavar="FILE", text="Write the plan or record here; default: print."),
]
_Model = Annotated[
    str | None,
    _option("--model", metavar="M", text="Model of the job; default: the one of the zoo with this shape."),
]
_Machine = Annotated[str | None, _option("--machine", metavar="X", text="Machine to name in the plan file.")]
_Stack = Annotated[
    str | None,
    _option("--stack", metavar="S", text="Stack to name in the plan file; default: that of the source."),
]
_Settings = Annotated[
    list[str] | None,
    _option(
        "--set", metavar="KEY=VALUE,...", text="Fields of the plan that the file does not say. Repeatable."
    ),
]
_Defined = Annotated[
    list[str] | None,
    _option("--define", metavar="NAME=VALUE", text="Variable of the script's environment. Repeatable."),
]


@dataclass(frozen=True)
class _Asked:
    """What the user asks for, as given."""

    file: Path
    source: str | None
    devices: int | None
    model: str | None
    machine: str | None
    stack: str | None
    settings: Sequence[str]
    define: Sequence[str]


def import_plan(
    file: _File,
    source: _Source = None,
    devices: _Devices = None,
    output: _Output = None,
    model: _Model = None,
    machine: _Machine = None,
    stack: _Stack = None,
    settings: _Settings = None,
    define: _Defined = None,
    json: Json = False,
) -> None:
    """Read a plan from Megatron-LM, Megatron-AxoNN or DeepSpeed, or a record from a PyTorch trace."""
    from towtank.cli.import_trace import import_trace, is_trace
    from towtank.simulator.plan_file import dump_plan

    asked = _Asked(file, source, devices, model, machine, stack, settings or (), define or ())
    if is_trace(file, source):
        given = {"--devices": devices, "--machine": machine, "--set": settings, "--define": define}
        import_trace(file, output, model, stack, json, [name for name, value in given.items() if value])
        return
    found, plan = _read(asked)
    named = {
        "model": model or found.model,
        "machine": machine,
        "stack": stack or _usual_stack(found.source),
    }
    text = dump_plan(plan, model=named["model"], machine=named["machine"], stack=named["stack"])
    if output is not None:
        _write(output, text)
    if json:
        _print_json(found, plan, named)
    else:
        _print(found, text, output)


def _read(asked: _Asked) -> "tuple[Imported, Plan]":
    """Load everything, so that all faults are told at once, then read the file and change what was asked."""
    from towtank.autotune.reading import sources
    from towtank.cli.import_trace import KINETO
    from towtank.hardware_profiles.load import load_machine
    from towtank.simulator.models.load import load_model
    from towtank.simulator.plan_file import parse_settings, plan_file_from_mapping, plan_to_mapping
    from towtank.simulator.stacks.load import load_stack

    inputs = Inputs()
    inputs.take(lambda: _source(asked.source, (*sources.SOURCES, KINETO)))
    inputs.take(lambda: _devices(asked.devices))
    changes = inputs.take(lambda: parse_settings(",".join(asked.settings)))
    defined = inputs.take(lambda: _definitions(asked.define))
    model = inputs.take(lambda: load_model(str(asked.model))) if asked.model else None
    stack = inputs.take(lambda: load_stack(str(asked.stack))) if asked.stack else None
    if asked.machine:
        inputs.take(lambda: load_machine(str(asked.machine)))
    inputs.check()
    found = sources.import_plan(
        asked.file,
        asked.source,
        devices=asked.devices,
        model=model,
        stack=stack,
        defined=defined,
    )
    plan = plan_file_from_mapping(plan_to_mapping(found.plan), changes, "--set").plan
    return found, plan


def _usual_stack(source: str) -> str:
    from towtank.autotune.export.names import names_of

    return names_of(source).stack


def _source(word: str | None, known: tuple[str, ...]) -> None:
    if word is not None and word not in known:
        from towtank.hardware_profiles.nearest import did_you_mean

        raise InputError(f"--from {word} is unknown{did_you_mean(word, known)} (known: {', '.join(known)})")


def _devices(devices: int | None) -> None:
    if devices is not None and devices < 1:
        raise InputError(f"--devices {devices} must be 1 or more")


def _definitions(texts: Sequence[str]) -> dict[str, str]:
    parts = [text.partition("=") for text in texts]
    wrong = [name + sign + value for name, sign, value in parts if not sign or not name.isidentifier()]
    if wrong:
        raise InputError(f"--define {', '.join(wrong)} is not NAME=VALUE")
    return {name: value for name, _, value in parts}


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--output {path}: cannot be written: {error.strerror or error}") from error


def _print_json(found: "Imported", plan: "Plan", named: dict[str, str | None]) -> None:
    from towtank.cli.text import emit_json
    from towtank.simulator.plan_file import plan_to_mapping

    emit_json(
        {
            "source": found.source,
            **named,
            "devices": plan.num_devices,
            "plan": plan_to_mapping(plan),
            "ignored": list(found.ignored),
            "notes": list(found.notes),
        }
    )


def _print(found: "Imported", text: str, output: Path | None) -> None:
    import sys

    from towtank.cli.text import emit

    emit(text if output is None else f"wrote {output}")
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    if found.ignored:
        print("no part of a plan, ignored:", file=sys.stderr)
        for option in found.ignored[:_SHOWN]:
            print(f"  {option}", file=sys.stderr)
        if len(found.ignored) > _SHOWN:
            print(f"  and {len(found.ignored) - _SHOWN} more, each in --json", file=sys.stderr)
