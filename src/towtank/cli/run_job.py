"""What `towtank run` is asked for, checked as a whole."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from towtank.cli.failure import InputError, Inputs
from towtank.cli.words import one_of

if TYPE_CHECKING:
    from towtank.cli.job import References
    from towtank.cli.run_options import Checkpoints, Devices, Measuring, Training
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
    training: "Training"
    devices: "Devices"
    measuring: "Measuring"
    checkpoints: "Checkpoints"


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
    names = references(asked.plan, document or {}, asked.references)
    inputs.take(lambda: one_of("--dtype", asked.training.dtype, (None, *_DTYPES)))
    inputs.take(lambda: one_of("--device", asked.devices.device, (None, *_DEVICES)))
    _check_numbers(asked, inputs)
    _check_files(asked, inputs)
    goldfish = inputs.take(lambda: _goldfish(asked.training))
    if names.model is None and document is not None:  # else the file that may name it could not be read
        inputs.faults.append(
            "no model is given; give --model NAME, or write `model: NAME` into the plan file; tiny-llama is small"
        )
    job = _load(names, plan, asked, inputs)
    inputs.check()
    assert job is not None  # else check has raised
    return _request(asked, job, names.model or "", goldfish), job


def _plan(asked: Asked, inputs: Inputs) -> "tuple[dict[str, Any] | None, PlanFile | None]":
    """The mapping in the plan file, and the plan; None where the file cannot be read."""
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
        return None, None

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
    steps = asked.training.steps
    least = {
        "--steps": (steps, 1),
        "--seed": (asked.training.seed, 0),
        "--threads": (asked.devices.threads, 1),
        "--warm-up": (asked.measuring.warm_up, 0),
        "--save-every": (asked.checkpoints.save_every, 1),
    }
    for name, (value, lowest) in least.items():
        if value is not None and value < lowest:
            inputs.faults.append(f"{name} {value} must be {lowest} or more")
    if asked.measuring.warm_up is not None and asked.measuring.warm_up >= steps:
        inputs.faults.append(
            f"--warm-up {asked.measuring.warm_up} leaves none of --steps {steps} to measure; give more steps"
        )


def _check_files(asked: Asked, inputs: Inputs) -> None:
    """What is to be written can be, and options that need a folder of checkpoints have one."""
    from towtank.executor.checkpoint.folder import latest
    from towtank.executor.data import files_of

    if asked.training.data is not None:
        data = asked.training.data
        inputs.take(lambda: files_of(data))
    for name, path in (("--record", asked.measuring.record), ("--trace", asked.measuring.trace)):
        if path is not None and not path.parent.is_dir():
            inputs.faults.append(f"{name} {path}: the folder {path.parent} does not exist; make it first")
        elif path is not None and path.is_dir():
            inputs.faults.append(f"{name} {path} is a folder; give the name of a file")
    folder = asked.checkpoints.checkpoint
    if folder is None and asked.checkpoints.save_every is not None:
        inputs.faults.append("--save-every needs a folder for checkpoints; give --checkpoint DIR")
    if folder is None and asked.checkpoints.resume:
        inputs.faults.append("--resume needs the folder of checkpoints; give --checkpoint DIR")
    if folder is not None and folder.exists() and not folder.is_dir():
        inputs.faults.append(f"--checkpoint {folder} is a file; give a folder")
    found = None if folder is None or asked.checkpoints.resume else inputs.take(lambda: latest(folder))
    if found is not None:
        inputs.faults.append(
            f"--checkpoint {folder} holds {found.name} of an earlier run; give --resume to go on, or another folder"
        )


def _goldfish(training: "Training") -> "Goldfish | None":
    from towtank.executor.goldfish import Goldfish

    if training.goldfish is None and training.goldfish_context != type(training)().goldfish_context:
        raise InputError("--goldfish-context is of the goldfish loss; give --goldfish K too")
    return None if training.goldfish is None else Goldfish(training.goldfish, training.goldfish_context)


def _device(asked: Asked, devices: int) -> Any:
    """cpu or cuda: GPUs where there is one for each process of this node, whoever has started it.

    Raises:
        LaunchError: another launcher started another number of processes than the plan has devices.
    """
    import os

    import torch

    from towtank.executor.launching.environment import ALONE, gpu_of, joined

    place = joined(os.environ, devices) or replace(ALONE, local_world_size=devices)
    if asked.devices.device is not None:
        return asked.devices.device
    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return "cpu" if gpu_of(place, here) is None else "cuda"


def _settings(asked: Asked, job: Loaded) -> Any:
    from towtank.executor.settings import RunSettings, default_dtype

    training = asked.training
    try:
        dtype = asked.training.dtype or default_dtype(job.plan)
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
        seed=training.seed,
        steps=training.steps,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        gradient_clip=training.gradient_clip or None,
        dropout=training.dropout,
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
        data=_absolute(asked.training.data),
        goldfish=goldfish,
        records=asked.measuring.record is not None,
        trace=_absolute(asked.measuring.trace),
        warm_up=asked.measuring.warm_up,
        checkpoint=_absolute(asked.checkpoints.checkpoint),
        save_every=asked.checkpoints.save_every,
        resume=asked.checkpoints.resume,
        threads=asked.devices.threads,
        peak_flop_per_s=None if job.machine is None else peak(job.machine.device, job.plan.precision),
    )


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()
