"""The job that a command is about: model, machine, stack and plan, from options and the plan file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from towtank.cli.failure import InputError, Inputs

if TYPE_CHECKING:
    from towtank.hardware_profiles.records import Machine
    from towtank.simulator.models.records import ModelSpec
    from towtank.simulator.plan import Plan
    from towtank.simulator.plan_file import PlanFile
    from towtank.simulator.stacks.records import Stack

DEFAULT_STACK = "megatron-core"


@dataclass(frozen=True, slots=True)
class References:
    """Model, machine and stack as the user names them; None: nowhere."""

    model: str | None
    machine: str | None
    stack: str
    stack_named: bool
    """Whether somebody named the stack; it is the usual one otherwise."""


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that a prediction needs, loaded; and the words that named it, to write into another file."""

    model: "ModelSpec"
    machine: "Machine"
    stack: "Stack"
    plan: "Plan"
    references: References


def load_job(
    plan_path: Path | None,
    model: str | None,
    machine: str | None,
    stack: str | None,
    profiles: Sequence[Path] = (),
    settings: Sequence[str] = (),
    *,
    ignore_keys: Sequence[str] = (),
    inputs: Inputs | None = None,
) -> Job:
    """Load a job. Options come before what the plan file names; the stack is megatron-core where neither says.

    `settings` are texts of KEY=VALUE,... that override fields of the plan, or make the plan where there is no file;
    `ignore_keys` are keys of a config.json that do not change the shape; `inputs` may hold faults found before.

    Raises:
        InputError: everything that is wrong with any of these.
    """
    from towtank.hardware_profiles.load import load_machine
    from towtank.simulator.stacks.load import load_stack

    inputs = inputs or Inputs()
    document = _document(plan_path, inputs)
    plan = inputs.take(lambda: _plan(plan_path, document, settings))
    named = references(plan_path, document or {}, (model, machine, stack))
    the_model = the_machine = None
    if _told(named.model, "model", document, inputs):
        the_model = inputs.take(lambda: _model(str(named.model), ignore_keys))
    if _told(named.machine, "machine", document, inputs):
        the_machine = inputs.take(lambda: load_machine(str(named.machine), profiles))
    the_stack = inputs.take(lambda: load_stack(named.stack))
    inputs.check()
    assert the_model and the_machine and the_stack and plan  # else check has raised
    return Job(the_model, the_machine, the_stack, plan.plan, named)


def _document(path: Path | None, inputs: Inputs) -> dict[str, Any] | None:
    """The mapping in the plan file, empty without one; None where it cannot be read."""
    from towtank.simulator.plan_file import read_plan_mapping

    return {} if path is None else inputs.take(lambda: read_plan_mapping(path))


def references(
    path: Path | None, document: Mapping[str, Any], options: tuple[str | None, str | None, str | None]
) -> References:
    """What a job is called: options before what the plan file at `path`, the mapping `document`, says."""
    in_file = [document.get(key) for key in ("model", "machine", "stack")]
    model, machine, stack = (
        option if option is not None else named if isinstance(named, str) and named.strip() else None
        for option, named in zip(options, in_file, strict=True)
    )
    if path is not None:  # options are relative to the working directory, the file perhaps to itself
        model = model if options[0] is not None else _beside(path, model)
        stack = stack if options[2] is not None else _beside(path, stack)
    return References(model, machine, stack or DEFAULT_STACK, stack is not None)


def _beside(plan_path: Path, reference: str | None) -> str | None:
    """A file that a plan file names: from the working directory if it is there, else from the plan's folder."""
    if reference is None or not ("/" in reference or reference.endswith((".yaml", ".yml", ".json"))):
        return reference
    beside = plan_path.parent / reference
    return str(beside) if not Path(reference).exists() and beside.exists() else reference


def _told(reference: str | None, key: str, document: Mapping[str, Any] | None, inputs: Inputs) -> bool:
    """Whether somebody said it; a fault unless the plan file is at fault already."""
    if reference is None and document is not None and document.get(key) is None:
        inputs.faults.append(
            f"no {key} is given; give --{key} NAME, or write `{key}: NAME` into the plan file (--plan FILE)"
        )
    return reference is not None


def _model(reference: str, ignore_keys: Sequence[str]) -> "ModelSpec":
    from towtank.simulator.models.load import load_model

    if ignore_keys and not (reference.endswith(".json") or Path(reference).is_dir()):
        raise InputError(
            f"--ignore-config-key {' '.join(ignore_keys)} concerns a config.json, but the model is {reference!r}; "
            "leave it out"
        )
    return load_model(reference, ignore_keys=ignore_keys)


def _plan(path: Path | None, document: dict[str, Any] | None, settings: Sequence[str]) -> "PlanFile | None":
    from towtank.simulator.plan_file import (
        PlanFile,
        parse_settings,
        plan_file_from_mapping,
        plan_from_mapping,
    )

    changes: Mapping[str, Any] = parse_settings(",".join(settings))
    if path is not None:
        return None if document is None else plan_file_from_mapping(document, changes, str(path))
    if not changes:
        raise InputError(
            "no plan is given; give --plan FILE, or fields such as --set tensor_x=8,data=2,global_batch=64"
        )
    return PlanFile(plan_from_mapping(changes, "--set"))
