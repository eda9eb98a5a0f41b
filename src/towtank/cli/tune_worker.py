"""Working on a study: by the command that made it, or by `towtank tune --worker` on any node."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from towtank.cli.failure import INTERRUPTED, InputError, Inputs, complain
from towtank.cli.tune_study_options import StudyWish

if TYPE_CHECKING:
    from towtank.autotune.study.plan_objective import PlanObjective
    from towtank.autotune.study.session import OpenStudy
    from towtank.autotune.task import TuningTask
    from towtank.simulator.plan import Plan


KEPT = "interrupted; what is done is kept, and the same command goes on with it"


@dataclass(frozen=True)
class Answer:
    """What came out, as far as the command goes on with it."""

    plan: "Plan | None"
    """The best plan; None where none fits."""
    interrupted: bool = False


def run_worker(wish: StudyWish, profiles: tuple[Path, ...], json: bool) -> None:
    """Work on a study that is there until it is done.

    Raises:
        TuningError: there is no such study, or this installation knows another model, machine or stack by its names.
        typer.Exit: the user or the time limit stopped it.
    """
    from towtank.autotune.study.session import find
    from towtank.autotune.study.storage import MEMORY, storage_of

    check_name(wish.study)
    place = storage_of(wish.storage, wish.study)
    if place == MEMORY:
        raise InputError("--worker needs a --storage that others can reach, and memory is this process's own")
    opened, identity = find(place, wish.study)
    try:
        answer = work_on(opened, _objective_of(identity, profiles), json, worker=True)
    finally:
        opened.close()
    if answer.interrupted:
        complain(KEPT)
        raise typer.Exit(INTERRUPTED)


def check_name(study: str) -> None:
    """Check that a study may be called so.

    Raises:
        InputError: the name would make no file name.
    """
    if not study or not all(letter.isalnum() or letter in "._-" for letter in study) or study[0] in ".-":
        raise InputError(
            f"--study {study!r} must be of letters, digits, '.', '_' and '-', such as llama-405b"
        )


def _objective_of(identity: Mapping[str, Any], profiles: tuple[Path, ...]) -> "PlanObjective":
    """The objective that a study was made with, loaded on this node."""
    from towtank.autotune.study.measures import Prices
    from towtank.autotune.study.plan_objective import PlanObjective, References
    from towtank.autotune.study.records import StudyError
    from towtank.simulator.plan_file import plan_from_mapping

    if identity.get("kind") != "plans":
        raise StudyError(f"the study is of {identity.get('kind')}, which `towtank tune` does not try")
    names = References(identity["model"], identity["machine"], identity["stack"])
    objective = PlanObjective(
        _task_of(identity, profiles),
        [plan_from_mapping(plan, "study") for plan in identity["plans"]],
        identity["measures"],
        references=names,
        prices=Prices(identity["price_per_device_hour"]),
        devices=identity["devices"],
    )
    if objective.identity()["records"] != identity["records"]:
        raise StudyError(
            f"model {names.model}, machine {names.machine} or stack {names.stack} is not here what the study was "
            "made with; install the same version of towtank, and give the same --profiles"
        )
    return objective


def _task_of(identity: Mapping[str, Any], profiles: tuple[Path, ...]) -> "TuningTask":
    """The task of a study, with model, machine and stack as they are on this node."""
    from towtank.autotune.constraints import Constraints
    from towtank.autotune.task import TuningTask
    from towtank.hardware_profiles.load import load_machine
    from towtank.simulator.models.load import load_model
    from towtank.simulator.stacks.load import load_stack

    inputs = Inputs()
    model = inputs.take(lambda: load_model(identity["model"]))
    machine = inputs.take(lambda: load_machine(identity["machine"], profiles))
    stack = inputs.take(lambda: load_stack(identity["stack"]))
    inputs.check()
    assert model and machine and stack  # else check has raised
    limits = identity["constraints"]
    fixed = {name: tuple(map(_hashable, values)) for name, values in limits["fixed"].items()}
    return TuningTask(
        model,
        machine,
        stack,
        identity["devices"][0],
        identity["global_batch"],
        identity["sequence"],
        Constraints(fixed, limits["least"], limits["most"]),
        profiles,
        identity.get("memory_margin", 0.0),
    )


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def work_on(opened: "OpenStudy", objective: "PlanObjective", json: bool, *, worker: bool = False) -> Answer:
    """Work on a study until it is done or somebody stops it, and print what came out."""
    from towtank.autotune.study.work import result_of, work
    from towtank.cli.tune_study_progress import study_bar
    from towtank.cli.tune_study_text import print_study

    previous = signal.signal(signal.SIGTERM, _interrupt)  # Slurm says so before it kills
    stopped = False
    try:
        with study_bar(opened.settings.trials, objective.measures) as show:
            result = work(opened, objective, show)
    except KeyboardInterrupt:
        stopped = True
        result = result_of(opened, objective)
    finally:
        signal.signal(signal.SIGTERM, previous)
    return Answer(print_study(result, opened, objective, json, worker=worker), stopped)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
