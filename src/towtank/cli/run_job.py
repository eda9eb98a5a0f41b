"""What `towtank run` is asked for, checked as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from towtank.cli.failure import InputError, Inputs
from towtank.cli.words import one_of

if TYPE_CHECKING:
    from towtank.cli.job import References
    from towtank.executor.goldfish import Goldfish
    from towtank.executor.launching.request import RunRequest
    from towtank.hardware_profiles.records import Machine
    from towtank.simulator.models.records import ModelSpec
    from towtank.simulator.plan import Plan
    from towtank.simulator.plan_file import PlanFile
    from towtank.simulator.stacks.records import Stack

EXECUTOR_STACK = "towtank-executor"
"""What the executor itself is."""
_DTYPES = ("float64", "fp32", "bf16", "fp16")
_DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Asked:
    """What the user asks for, as given."""

    plan: Path | None
    references: tuple[str | None, str | None, str | None]
    """Model, machine and stack."""
    settings: tuple[str, ...]
    profiles: tuple[Path, ...]
    training: Mapping[str, Any]
    """Fields of RunSettings."""
    dtype: str | None
    device: str | None
    threads: int | None
    data: Path | None
    goldfish: tuple[int, int] | None
    record: Path | None
    trace: Path | None
    warm_up: int | None
    checkpoint: Path | None
    save_every: int | None
    resume: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """The job as loaded; `machine` only where somebody names one."""

    model: "ModelSpec"
    machine: "Machine | None"
    stack: "Stack"
    plan: "Plan"


def prepare(asked: Asked) -> "tuple[RunRequest, Loaded]":
    """Load and check everything, so that all faults are told at once, before a process starts.

    Raises:
        InputError: everything that is wrong.
    """
    from towtank.cli.job import references

    inputs = Inputs()
    document, plan = _plan(asked, inputs)
    names = references(asked.plan, document, asked.references)
    inputs.take(lambda: one_of("--dtype", asked.dtype, (None, *_DTYPES)))
    inputs.take(lambda: one_of("--device", asked.device, (None, *_DEVICES)))
    _check_numbers(asked, inputs)
    _check_files(asked, inputs)
    goldfish = inputs.take(lambda: _goldfish(asked.goldfish))
    job = _load(names, plan, asked, inputs)
    inputs.check()
    assert job is not None  # else check has raised
    return _request(asked, job, names.model or "", goldfish), job


def _plan(asked: Asked, inputs: Inputs) -> "tuple[dict[str, Any], PlanFile | None]":
    """The mapping in the plan file, and the plan."""
    from towtank.simulator.plan_file import (
        PlanFile,
        parse_settings,
        plan_file_from_mapping,
        plan_from_mapping,
        read_plan_mapping,
    )

    path = asked.plan
    document = {} if path is None else inputs.take(lambda: read_plan_mapping(path))
    if document is None:
        return {}, None

    def load() -> PlanFile:
        changes = parse_settings(",".join(asked.settings))
        if path is not None:
            return plan_file_from_mapping(document, changes, str(path))
        return PlanFile(plan_from_mapping(changes, "--set"))

    return document, inputs.take(load)


def _load(names: "References", plan: "PlanFile | None", asked: Asked, inputs: Inputs) -> Loaded | None:
    from towtank.hardware_profiles.load import load_machine
    from towtank.simulator.models.load import load_model
    from towtank.simulator.stacks.load import load_stack

    if names.model is None:
        inputs.faults.append(
            "no model is given; give --model NAME, or write `model: NAME` into the plan file; tiny-llama is small"
        )
    name = names.model
    model = inputs.take(lambda: load_model(name)) if name is not None else None
    # options name what to measure against; a plan file may name another machine than this one
    machine_name = asked.references[1]
    machine = inputs.take(lambda: load_machine(machine_name, asked.profiles)) if machine_name else None
    stack = inputs.take(lambda: load_stack(asked.references[2] or EXECUTOR_STACK))
    if model is None or stack is None or plan is None:
        return None
    job = Loaded(model, machine, stack, plan.plan)
    _check_rules(job, asked, inputs)
    return job


def _check_rules(job: Loaded, asked: Asked, inputs: Inputs) -> None:
    """Rules of the plan, then what the executor can run."""
    from towtank.executor.supported import faults
    from towtank.simulator.errors import PlanError
    from towtank.simulator.plan_rules import faults_of

    def check() -> None:
        found = faults_of(job.model, None, job.plan, job.stack)
        if found:
            raise PlanError(found, str(asked.plan or "--set"))
        found = faults(_settings(asked, job))
        if found:
            raise InputError("towtank run cannot do this: " + "; ".join(found))

    if not inputs.faults:
        inputs.take(check)


def _check_numbers(asked: Asked, inputs: Inputs) -> None:
    steps = asked.training["steps"]
    least = {
        "--steps": (steps, 1),
        "--seed": (asked.training["seed"], 0),
        "--threads": (asked.threads, 1),
        "--warm-up": (asked.warm_up, 0),
        "--save-every": (asked.save_every, 1),
    }
    for name, (value, lowest) in least.items():
        if value is not None and value < lowest:
            inputs.faults.append(f"{name} {value} must be {lowest} or more")
    if asked.warm_up is not None and asked.warm_up >= steps:
        inputs.faults.append(
            f"--warm-up {asked.warm_up} leaves none of --steps {steps} to measure; give more steps"
        )


def _check_files(asked: Asked, inputs: Inputs) -> None:
    """What is to be written can be, and options that need a folder of checkpoints have one."""
    from towtank.executor.data import files_of

    if asked.data is not None:
        data = asked.data
        inputs.take(lambda: files_of(data))
    for name, path in (("--record", asked.record), ("--trace", asked.trace)):
        if path is not None and not path.parent.is_dir():
            inputs.faults.append(f"{name} {path}: the folder {path.parent} does not exist; make it first")
        elif path is not None and path.is_dir():
            inputs.faults.append(f"{name} {path} is a folder; give the name of a file")
    if asked.checkpoint is None and asked.save_every is not None:
        inputs.faults.append("--save-every needs a folder for checkpoints; give --checkpoint DIR")
    if asked.checkpoint is None and asked.resume:
        inputs.faults.append("--resume needs the folder of checkpoints; give --checkpoint DIR")
    if asked.checkpoint is not None and asked.checkpoint.exists() and not asked.checkpoint.is_dir():
        inputs.faults.append(f"--checkpoint {asked.checkpoint} is a file; give a folder")


def _goldfish(given: tuple[int, int] | None) -> "Goldfish | None":
    from towtank.executor.goldfish import Goldfish

    return None if given is None else Goldfish(*given)


def _device(asked: Asked, devices: int) -> Any:
    """cpu or cuda: GPUs where the machine has enough of them, or another launcher has started the ranks."""
    import os

    import torch

    if asked.device is not None:
        return asked.device
    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    needed = int(os.environ.get("LOCAL_WORLD_SIZE", devices))
    return "cuda" if here and here >= needed else "cpu"


def _settings(asked: Asked, job: Loaded) -> Any:
    from towtank.executor.settings import RunSettings, default_dtype

    try:
        dtype = asked.dtype or default_dtype(job.plan)
    except KeyError:
        raise InputError(
            f"precision = {job.plan.precision} is not run; set precision to bf16, fp16 or fp32, or give --dtype"
        ) from None
    return RunSettings(
        job.model,
        job.plan,
        job.stack,
        dtype,  # type: ignore[arg-type]  # checked by one_of
        device=_device(asked, job.plan.num_devices),
        **asked.training,
    )


def _request(asked: Asked, job: Loaded, model: str, goldfish: "Goldfish | None") -> "RunRequest":
    from towtank.executor.launching.request import RunRequest
    from towtank.simulator.cost.compute import peak
    from towtank.simulator.plan_file import plan_to_mapping

    return RunRequest(
        settings=_settings(asked, job),
        model=model,
        stack=asked.references[2] or EXECUTOR_STACK,
        plan=plan_to_mapping(job.plan),
        data=_absolute(asked.data),
        goldfish=goldfish,
        records=asked.record is not None,
        trace=_absolute(asked.trace),
        warm_up=asked.warm_up,
        checkpoint=_absolute(asked.checkpoint),
        save_every=asked.save_every,
        resume=asked.resume,
        threads=asked.threads,
        peak_flop_per_s=None if job.machine is None else peak(job.machine.device, job.plan.precision),
    )


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()
