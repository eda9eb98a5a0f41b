"""What `towtank tune` does with a study: Optuna's samplers, workers, a Slurm array, a Pareto front."""

import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towtank.cli.failure import INTERRUPTED, InputError, Inputs, complain

if TYPE_CHECKING:
    from towtank.autotune.study.plan_objective import PlanObjective, References
    from towtank.autotune.study.session import OpenStudy
    from towtank.autotune.task import TuningTask
    from towtank.simulator.plan import Plan

METHODS = ("exact", "optuna", "axonn")
_SEEDS = 16
"""Plans of the exact search that a study starts from."""


def _option(name: str, metavar: str, text: str, **more: Any) -> Any:
    return typer.Option(name, metavar=metavar, help=text, show_default=False, **more)


def _defaulted(name: str, metavar: str, text: str, **more: Any) -> Any:
    return typer.Option(name, metavar=metavar, help=text, **more)


@dataclass(frozen=True)
class StudyWish:
    """Options of `towtank tune` that speak of methods, measures, studies and their workers, as given."""

    method: Annotated[
        str,
        _defaulted(
            "--method",
            "exact|optuna|axonn",
            "exact: proven among the enumerated plans; optuna: a study around their best, which also changes splits "
            "of layers, recompute intervals, switches and rank orders; axonn: AxoNN's own ranking of grids beside "
            "the simulator's choice among them.",
        ),
    ] = "exact"
    measure: Annotated[
        list[str] | None,
        _option(
            "--measure",
            "NAME",
            "What counts: step_time, throughput, headroom, energy, cost, devices. Repeated: the Pareto front, exact "
            "under --method exact.",
        ),
    ] = None
    or_devices: Annotated[
        list[int] | None,
        _option("--or-devices", "N", "Another number of devices that a plan may occupy. Repeatable.", min=1),
    ] = None
    price: Annotated[
        float | None,
        _option(
            "--price-per-device-hour", "USD", "Price for the measure cost; default: the machine's.", min=0.0
        ),
    ] = None
    trials: Annotated[
        int,
        _defaulted(
            "--trials", "N", "Plans that a study tries in all, those of other workers counted.", min=1
        ),
    ] = 200
    sampler: Annotated[
        str,
        _defaulted("--sampler", "NAME", "Sampler of a study, such as tpe, random, nsgaii, qmc, brute-force."),
    ] = "tpe"
    seed: Annotated[int, _defaulted("--seed", "N", "Seed of the sampler.", min=0)] = 0
    study: Annotated[
        str, _defaulted("--study", "NAME", "Name of the study; the same name goes on with it.")
    ] = "tune"
    storage: Annotated[
        str | None,
        _option(
            "--storage",
            "WHERE",
            "Where a study is kept: memory, a journal file (default: STUDY.journal here), sqlite:///FILE, or "
            "postgresql+psycopg://USER@HOST/DATABASE. Also TOWTANK_STORAGE.",
            envvar="TOWTANK_STORAGE",
            show_envvar=False,
        ),
    ] = None
    worker: Annotated[
        bool,
        typer.Option("--worker", help="Work on the study in --storage, beside any number of other workers."),
    ] = False
    lease: Annotated[
        float,
        _defaulted(
            "--lease", "SECONDS", "Silence after which a worker on another node counts as dead.", min=1.0
        ),
    ] = 60.0
    slurm: Annotated[
        Path | None,
        _option("--slurm", "FILE", "Make the study and write a Slurm array of workers; try nothing."),
    ] = None
    slurm_nodes: Annotated[int, _defaulted("--slurm-nodes", "N", "Nodes of the array.")] = 1
    slurm_workers: Annotated[int, _defaulted("--slurm-workers", "N", "Workers on each node.")] = 1
    slurm_time: Annotated[str, _defaulted("--slurm-time", "TIME", "Time limit of the array.")] = "01:00:00"
    slurm_option: Annotated[
        list[str] | None,
        _option("--slurm-option", "OPTION", "Option of sbatch, such as --account=abc. Repeatable."),
    ] = None

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of what counts."""
        return tuple(self.measure or ("step_time",))

    @property
    def is_asked(self) -> bool:
        """Whether the exact search for the shortest step is not what is asked."""
        return self.method != "exact" or self.slurm is not None or bool(self.measure or self.or_devices)


NO_WISH = StudyWish()
"""Nothing asked."""


def run_asked(task: "TuningTask", references: "References", wish: StudyWish, json: bool) -> "Plan | None":
    """Do what the options ask for; the best plan, or None where none fits or only a script was written.

    Raises:
        InputError, TuningError, UnknownFigure: something that was asked cannot be had.
        typer.Exit: the user stopped it; what is done is printed and kept.
    """
    if wish.method not in METHODS:
        from towtank.hardware_profiles.nearest import did_you_mean

        raise InputError(
            f"--method {wish.method} is unknown{did_you_mean(wish.method, METHODS)} (known: {', '.join(METHODS)})"
        )
    if wish.method == "exact" and wish.slurm is None:
        return _run_front(task, wish, json)
    return _run_study(task, references, wish, json)


def _run_front(task: "TuningTask", wish: StudyWish, json: bool) -> "Plan | None":
    """The exact Pareto front of all legal plans."""
    from towtank.autotune.study.exact_front import space_front
    from towtank.autotune.study.measures import Prices, check_known, measures_named
    from towtank.cli.tune_study_progress import front_bar
    from towtank.cli.tune_study_text import print_front

    measures, prices = measures_named(wish.measures), Prices(wish.price)
    check_known(measures, task.machine, prices)
    with front_bar() as report:
        front = space_front(task, measures, devices=_devices(task, wish), prices=prices, report=report)
    return print_front(front, json)


def _devices(task: "TuningTask", wish: StudyWish) -> tuple[int, ...]:
    """Numbers of devices that plans may occupy, that of the task first."""
    return tuple(dict.fromkeys((task.devices, *(wish.or_devices or ()))))


def _run_study(task: "TuningTask", references: "References", wish: StudyWish, json: bool) -> "Plan | None":
    """Make or continue a study of the task and work on it; with --slurm make it and write the script."""
    from towtank.autotune.study.session import create_or_continue
    from towtank.autotune.study.storage import storage_of

    _check_name(wish.study)
    _check_wish(wish)
    place = storage_of(wish.storage, wish.study)
    objective = _objective(task, references, wish, place)
    opened = create_or_continue(place, wish.study, objective, _settings(wish))
    try:
        if wish.slurm is not None:
            _write_slurm(wish, wish.slurm, place)
            return None
        return _work(opened, objective, json)
    finally:
        opened.close()


def run_worker(wish: StudyWish, profiles: tuple[Path, ...], json: bool) -> None:
    """Work on a study that is there until it is done.

    Raises:
        TuningError: there is no such study, or this installation knows another model, machine or stack by its names.
        typer.Exit: the user or the time limit stopped it.
    """
    from towtank.autotune.study.session import find
    from towtank.autotune.study.storage import MEMORY, storage_of

    _check_name(wish.study)
    place = storage_of(wish.storage, wish.study)
    if place == MEMORY:
        raise InputError("--worker needs a --storage that others can reach, and memory is this process's own")
    opened, identity = find(place, wish.study)
    try:
        _work(opened, _objective_of(identity, profiles), json)
    finally:
        opened.close()


def _check_name(study: str) -> None:
    if not study or not all(letter.isalnum() or letter in "._-" for letter in study) or study[0] in ".-":
        raise InputError(
            f"--study {study!r} must be of letters, digits, '.', '_' and '-', such as llama-405b"
        )


def _check_wish(wish: StudyWish) -> None:
    """Everything that is wrong with measures, sampler and storage, before the exact search takes its time."""
    from towtank.autotune.errors import TuningError
    from towtank.autotune.study.measures import measures_named
    from towtank.autotune.study.samplers import check_sampler
    from towtank.autotune.study.slurm import check_job, check_shared
    from towtank.autotune.study.storage import storage_of

    checks: list[Callable[[], object]] = [
        lambda: measures_named(wish.measures),
        lambda: check_sampler(wish.sampler, len(wish.measures)),
        lambda: storage_of(wish.storage, wish.study),
    ]
    if wish.slurm is not None:
        job = _job(wish)
        checks.append(lambda: check_job(job))
        checks.append(lambda: check_shared(storage_of(wish.storage, wish.study), job.nodes))
    faults = []
    for check in checks:
        try:
            check()
        except TuningError as error:
            faults += [fault for fault in error.faults if fault not in faults]
    if faults:
        raise TuningError(faults)


def _settings(wish: StudyWish) -> Any:
    from towtank.autotune.study.records import Settings

    return Settings(wish.trials, wish.sampler, wish.seed, wish.lease)


def _objective(task: "TuningTask", references: "References", wish: StudyWish, place: str) -> "PlanObjective":
    """Plans as trials, around those of the study if it exists, else around the best of the exact search."""
    from towtank.autotune.study.measures import Prices, check_known, measures_named
    from towtank.autotune.study.plan_objective import PlanObjective
    from towtank.autotune.study.session import plans_of

    prices = Prices(wish.price)
    check_known(measures_named(wish.measures), task.machine, prices)
    plans = plans_of(place, wish.study) or _best_plans(task, wish)
    return PlanObjective(
        task, plans, wish.measures, references=references, prices=prices, devices=_devices(task, wish)
    )


def _best_plans(task: "TuningTask", wish: StudyWish) -> list["Plan"]:
    """Plans to start from: the best of the exact search; where none fits, the one that lacks the least."""
    from towtank.autotune.search.exact import tune

    found, closest = [], []
    for number in _devices(task, wish):
        result = tune(replace(task, devices=number), top=_SEEDS)
        found += [(ranked.step_time_s, ranked.plan) for ranked in result.plans]
        closest += [result.closest] if result.closest is not None else []
    plans = [plan for _, plan in sorted(found, key=lambda each: each[0])]
    return plans or closest


def _objective_of(identity: Mapping[str, Any], profiles: tuple[Path, ...]) -> "PlanObjective":
    """The objective that a study was made with, loaded on this node."""
    from towtank.autotune.space.constraints import Constraints
    from towtank.autotune.study.measures import Prices
    from towtank.autotune.study.plan_objective import PlanObjective, References
    from towtank.autotune.study.records import StudyError
    from towtank.autotune.task import TuningTask
    from towtank.hardware_profiles.load import load_machine
    from towtank.simulator.models.load import load_model
    from towtank.simulator.plan_file import plan_from_mapping
    from towtank.simulator.stacks.load import load_stack

    if identity.get("kind") != "plans":
        raise StudyError(f"the study is of {identity.get('kind')}, which `towtank tune` does not try")
    names, inputs = References(identity["model"], identity["machine"], identity["stack"]), Inputs()
    model = inputs.take(lambda: load_model(names.model))
    machine = inputs.take(lambda: load_machine(names.machine, profiles))
    stack = inputs.take(lambda: load_stack(names.stack))
    inputs.check()
    assert model and machine and stack  # else check has raised
    limits = identity["constraints"]
    constraints = Constraints(
        {name: tuple(map(_hashable, values)) for name, values in limits["fixed"].items()},
        limits["least"],
        limits["most"],
    )
    task = TuningTask(
        model,
        machine,
        stack,
        identity["devices"][0],
        identity["global_batch"],
        identity["sequence"],
        constraints,
        profiles,
    )
    objective = PlanObjective(
        task,
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


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _work(opened: "OpenStudy", objective: "PlanObjective", json: bool) -> "Plan | None":
    """Work, print what came out, and end with 130 if the user stopped it."""
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
    plan = print_study(result, opened, objective, json)
    if stopped:
        complain("interrupted; what is done is kept, and the same command goes on with it")
        raise typer.Exit(INTERRUPTED)
    return plan


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _job(wish: StudyWish) -> Any:
    from towtank.autotune.study.slurm import Job

    return Job(wish.slurm_nodes, wish.slurm_workers, wish.slurm_time, tuple(wish.slurm_option or ()))


def _write_slurm(wish: StudyWish, path: Path, place: str) -> None:
    from towtank.autotune.study.slurm import slurm_script
    from towtank.cli.text import emit

    text = slurm_script(place, wish.study, _job(wish), (sys.executable, "-m", "towtank.cli"))
    try:
        path.write_text(text)
        path.chmod(0o755)
    except OSError as error:
        raise InputError(f"--slurm {path}: cannot be written: {error.strerror or error}") from error
    size = f"{wish.slurm_nodes} x {wish.slurm_workers} workers"
    emit(f"{path}: {size} on study {wish.study}; start them with `sbatch {path}`")
