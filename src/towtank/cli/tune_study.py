"""What `towtank tune` does with a study: Optuna's samplers, workers, a Slurm array, a Pareto front."""

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towtank.cli.failure import INTERRUPTED, InputError, Inputs, complain

if TYPE_CHECKING:
    from towtank.autotune.study.plan_objective import PlanObjective, References
    from towtank.autotune.study.records import Finished, StudyCounts
    from towtank.autotune.study.session import OpenStudy
    from towtank.autotune.task import TuningTask
    from towtank.simulator.plan import Plan

STUDY_EXAMPLES = """\
\b
  towtank tune --model llama3-8b --machine dgx-h100:nodes=4 --devices 32 --global-batch 64 \\
      --method optuna --trials 300 --sampler tpe --seed 1 --study llama
  towtank tune --model llama3-8b --machine aws-p5-h100:nodes=4 --devices 32 --global-batch 64 \\
      --measure throughput --measure headroom --measure cost
  towtank tune --worker --storage /shared/llama.journal --study llama
"""

METHODS = ("exact", "optuna")
_SEEDS = 16
"""Plans of the exact search that a study starts from."""


def _option(name: str, metavar: str, text: str, **more: Any) -> Any:
    return typer.Option(name, metavar=metavar, help=text, show_default=False, **more)


Measures = Annotated[
    list[str] | None,
    _option(
        "--measure",
        "NAME",
        "What counts: step_time, throughput, headroom, energy, cost or devices. Repeated: the Pareto front.",
    ),
]
Trials = Annotated[
    int,
    typer.Option("--trials", metavar="N", min=1, help="Plans that a study tries in all, over all workers."),
]
Sampler = Annotated[
    str, typer.Option("--sampler", metavar="NAME", help="Sampler of a study: tpe, random, nsgaii, qmc, ...")
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of the sampler.")]
Storage = Annotated[
    str | None,
    _option(
        "--storage",
        "WHERE",
        "Where the study is kept: memory, a journal file (default: STUDY.journal here), sqlite:///FILE, or "
        "postgresql+psycopg://USER@HOST/DATABASE.",
        envvar="TOWTANK_STORAGE",
    ),
]
Study = Annotated[
    str, typer.Option("--study", metavar="NAME", help="Name of the study; the same name continues it.")
]
Price = Annotated[
    float | None,
    _option("--price-per-device-hour", "USD", "Price for the measure cost; default: the machine's.", min=0.0),
]
IsWorker = Annotated[
    bool,
    _option(
        "--worker", "", "Work on the study in --storage, beside any number of other workers.", is_flag=True
    ),
]
Lease = Annotated[
    float,
    typer.Option(
        "--lease", metavar="SECONDS", min=1.0, help="Silence after which a worker elsewhere counts as dead."
    ),
]
SlurmFile = Annotated[
    Path | None, _option("--slurm", "FILE", "Make the study and write a Slurm array of workers for it.")
]
SlurmNodes = Annotated[int, typer.Option("--slurm-nodes", metavar="N", help="Nodes of the array.")]
SlurmWorkers = Annotated[int, typer.Option("--slurm-workers", metavar="N", help="Workers on each node.")]
SlurmTime = Annotated[str, typer.Option("--slurm-time", metavar="TIME", help="Time limit of the array.")]
SlurmOptions = Annotated[
    list[str] | None,
    _option("--slurm-option", "OPTION", "Option of sbatch such as --account=abc. Repeatable."),
]


@dataclass(frozen=True)
class SlurmWish:
    """The array that the user asks for, as given."""

    file: Path
    nodes: int = 1
    workers: int = 1
    time: str = "01:00:00"
    options: Sequence[str] = ()


@dataclass(frozen=True)
class StudyOptions:
    """How a study is to run, as given."""

    measures: Sequence[str] = ("step_time",)
    trials: int = 200
    sampler: str = "tpe"
    seed: int = 0
    storage: str | None = None
    study: str = "tune"
    price: float | None = None
    lease_s: float = 60.0
    slurm: SlurmWish | None = None
    json: bool = False
    devices: Sequence[int] = field(default=())
    """Numbers of devices to choose from; those of the task if empty."""


def run_study(task: "TuningTask", references: "References", options: StudyOptions) -> "Plan | None":
    """Make or continue a study of the task and work on it; the best plan, or None where none fits.

    With `options.slurm` the study is made, the script written, and nothing tried.

    Raises:
        TuningError, UnknownFigure: something that was asked cannot be had.
        typer.Exit: the user stopped it; what is done is printed and kept.
    """
    from towtank.autotune.study.session import create_or_continue
    from towtank.autotune.study.storage import storage_of

    _check_name(options.study)
    _check_options(options)
    place = storage_of(options.storage, options.study)
    objective = _objective(task, references, options, place)
    opened = create_or_continue(place, options.study, objective, _settings(options))
    try:
        if options.slurm is not None:
            _write_slurm(options.slurm, place, options.study)
            return None
        return _work(opened, objective, options.json)
    finally:
        opened.close()


def run_worker(storage: str | None, study: str, profiles: Sequence[Path], json: bool) -> None:
    """Work on a study that is there until it is done.

    Raises:
        TuningError: there is no such study, or this installation knows another model, machine or stack by its names.
        typer.Exit: the user or the time limit stopped it.
    """
    from towtank.autotune.study.session import find
    from towtank.autotune.study.storage import MEMORY, storage_of

    _check_name(study)
    place = storage_of(storage, study)
    if place == MEMORY:
        raise InputError("--worker needs a --storage that others can reach, and memory is this process's own")
    opened, identity = find(place, study)
    try:
        _work(opened, _objective_of(identity, tuple(profiles)), json)
    finally:
        opened.close()


def _check_name(study: str) -> None:
    if not study or not all(letter.isalnum() or letter in "._-" for letter in study) or study[0] in ".-":
        raise InputError(
            f"--study {study!r} must be of letters, digits, '.', '_' and '-', such as llama-405b"
        )


def _check_options(options: StudyOptions) -> None:
    """Everything that is wrong with measures, sampler and storage, before the exact search takes its time."""
    from towtank.autotune.errors import TuningError
    from towtank.autotune.study.measures import measures_named
    from towtank.autotune.study.samplers import check_sampler
    from towtank.autotune.study.slurm import slurm_script
    from towtank.autotune.study.storage import storage_of

    checks: list[Callable[[], object]] = [
        lambda: measures_named(options.measures),
        lambda: check_sampler(options.sampler, len(options.measures)),
        lambda: storage_of(options.storage, options.study),
    ]
    if options.slurm is not None:
        job = _job(options.slurm)
        checks.append(lambda: slurm_script(storage_of(options.storage, options.study), options.study, job))
    faults = []
    for check in checks:
        try:
            check()
        except TuningError as error:
            faults += [fault for fault in error.faults if fault not in faults]
    if faults:
        raise TuningError(faults)


def _settings(options: StudyOptions) -> Any:
    from towtank.autotune.study.records import Settings

    return Settings(options.trials, options.sampler, options.seed, options.lease_s)


def _objective(
    task: "TuningTask", references: "References", options: StudyOptions, place: str
) -> "PlanObjective":
    """Plans as trials, around those of the study if it exists, else around the best of the exact search."""
    from towtank.autotune.study.measures import Prices, check_known, measures_named
    from towtank.autotune.study.plan_objective import PlanObjective
    from towtank.autotune.study.session import plans_of

    prices = Prices(options.price)
    check_known(measures_named(options.measures), task.machine, prices)
    plans = plans_of(place, options.study) or _best_plans(task, options)
    return PlanObjective(
        task, plans, options.measures, references=references, prices=prices, devices=options.devices
    )


def _best_plans(task: "TuningTask", options: StudyOptions) -> list["Plan"]:
    """Plans to start from: the best of the exact search; where none fits, the one that lacks the least."""
    from towtank.autotune.search.exact import tune

    found, closest = [], []
    for number in options.devices or (task.devices,):
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
    from towtank.cli.tune_study_text import print_study

    previous = signal.signal(signal.SIGTERM, _interrupt)  # Slurm says so before it kills
    stopped = False
    try:
        result = work(opened, objective, _bar(opened.settings.trials))
    except KeyboardInterrupt:
        stopped = True
        result = result_of(opened, objective)
    finally:
        signal.signal(signal.SIGTERM, previous)
    plan = print_study(result, opened, json)
    if stopped:
        complain("interrupted; what is done is kept, and the same command goes on with it")
        raise typer.Exit(INTERRUPTED)
    return plan


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _bar(total: int) -> Callable[["StudyCounts", "Finished | None"], None]:
    """A line on the standard error stream with counts and the best so far."""
    width = 24

    def show(counts: "StudyCounts", best: "Finished | None") -> None:
        if not sys.stderr.isatty():
            return
        done = min(counts.finished, total)
        filled = width * done // total
        parts = [f"{done} of {total} plans", f"{counts.infeasible} do not fit"]
        if counts.running:
            parts.append(f"{counts.running} running")
        if best is not None:
            parts.append(f"best {best.outcome.values[0]:.4g}")
        end = "\n" if done >= total else ""
        line = f"\r  [{'#' * filled}{'.' * (width - filled)}] {', '.join(parts)}"
        sys.stderr.write(f"{line:<96}{end}")
        sys.stderr.flush()

    return show


def _job(wish: SlurmWish) -> Any:
    from towtank.autotune.study.slurm import Job

    return Job(wish.nodes, wish.workers, wish.time, tuple(wish.options))


def _write_slurm(wish: SlurmWish, place: str, study: str) -> None:
    from towtank.autotune.study.slurm import slurm_script
    from towtank.cli.text import emit

    text = slurm_script(place, study, _job(wish), (sys.executable, "-m", "towtank.cli"))
    try:
        wish.file.write_text(text)
        wish.file.chmod(0o755)
    except OSError as error:
        raise InputError(f"--slurm {wish.file}: cannot be written: {error.strerror or error}") from error
    emit(
        f"{wish.file}: {wish.nodes} x {wish.workers} workers on study {study}; start them with `sbatch {wish.file}`"
    )
