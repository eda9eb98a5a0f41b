"""What `towtank tune` does besides the exact search for the shortest step: studies and Pareto fronts."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from towtank.cli.failure import InputError
from towtank.cli.files import check_writable
from towtank.cli.tune_study_options import METHODS, StudyWish
from towtank.cli.tune_worker import Answer, check_name, work_on
from towtank.cli.words import one_of

if TYPE_CHECKING:
    from towtank.autotune.study.plan_objective import PlanObjective, References
    from towtank.autotune.task import TuningTask
    from towtank.simulator.plan import Plan

_SEEDS = 16
"""Plans of the exact search that a study starts from."""


def located(reference: str) -> str:
    """A file by its absolute path, so that workers started elsewhere find it; any other name as it is."""
    path = Path(reference)
    is_file = "/" in reference or path.suffix in (".yaml", ".yml", ".json")
    return str(path.absolute()) if is_file and path.exists() else reference


def run_asked(
    task: "TuningTask",
    references: "References",
    wish: StudyWish,
    *,
    json: bool,
    budget_s: float | None,
    workers: int | None,
) -> Answer | None:
    """Do what the options ask for; None where only a script was written.

    The budget and the processes are for the exact search and the exact front.

    Raises:
        InputError, TuningError, UnknownFigure: something that was asked cannot be had.
    """
    one_of("--method", wish.method, METHODS)
    if wish.method == "exact" and wish.slurm is None:
        return _run_front(task, wish, json, budget_s)
    return _run_study(task, references, wish, json, lambda: _best_plans(task, wish, budget_s, workers))


def _run_front(task: "TuningTask", wish: StudyWish, json: bool, budget_s: float | None) -> Answer:
    """The exact Pareto front of all legal plans."""
    from towtank.autotune.search.budget import Budget
    from towtank.autotune.study.exact_front import space_front
    from towtank.autotune.study.measures import Prices, check_known, measures_named
    from towtank.cli.tune_study_progress import front_bar
    from towtank.cli.tune_study_text import print_front

    measures, prices = measures_named(wish.measures), Prices(wish.price)
    check_known(measures, task.machine, prices)
    budget = Budget(budget_s)
    with front_bar() as report:
        front = space_front(
            task,
            measures,
            devices=_devices(task, wish),
            prices=prices,
            going=lambda done: done == 0 or budget.left(),
            report=report,
        )
    return Answer(print_front(front, json), interrupted=not front.exact and budget.left())


def _devices(task: "TuningTask", wish: StudyWish) -> tuple[int, ...]:
    """Numbers of devices that plans may occupy, that of the task first."""
    return tuple(dict.fromkeys((task.devices, *(wish.or_devices or ()))))


def _run_study(
    task: "TuningTask",
    references: "References",
    wish: StudyWish,
    json: bool,
    best_plans: Callable[[], list["Plan"]],
) -> Answer | None:
    """Make or continue a study of the task and work on it; with --slurm make it and write the script."""
    from towtank.autotune.study.session import create_or_continue
    from towtank.autotune.study.storage import storage_of

    check_name(wish.study)
    if wish.slurm is not None:
        check_writable("--slurm", wish.slurm)
    _check_wish(wish)
    place = storage_of(wish.storage, wish.study)
    objective = _objective(task, references, wish, place, best_plans)
    opened = create_or_continue(place, wish.study, objective, _settings(wish))
    try:
        if wish.slurm is not None:
            _write_slurm(wish, wish.slurm, place, task.profile_dirs)
            return None
        return work_on(opened, objective, json)
    finally:
        opened.close()


def _check_wish(wish: StudyWish) -> None:
    """Everything that is wrong with measures, sampler and storage, before the exact search takes its time."""
    from towtank.autotune.errors import TuningError
    from towtank.autotune.study.measures import Prices, measures_named
    from towtank.autotune.study.samplers import check_sampler
    from towtank.autotune.study.slurm import check_job, check_shared
    from towtank.autotune.study.storage import check_place, storage_of

    checks: list[Callable[[], object]] = [
        lambda: measures_named(wish.measures),
        lambda: Prices(wish.price),
        lambda: _settings(wish),
        lambda: check_sampler(wish.sampler, len(wish.measures)),
        lambda: check_place(storage_of(wish.storage, wish.study)),
    ]
    if wish.slurm is not None:
        job, script = _job(wish), wish.slurm
        checks.append(lambda: _check_script(script))
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


def _check_script(path: Path) -> None:
    from towtank.autotune.study.records import StudyError

    if path.is_dir():
        raise StudyError(f"--slurm {path}: is a folder; name a file in it")
    if not path.parent.is_dir():
        raise StudyError(f"--slurm {path}: there is no folder {path.parent}; make it first")


def _settings(wish: StudyWish) -> Any:
    from towtank.autotune.study.records import Settings

    return Settings(wish.trials, wish.sampler, wish.seed, wish.lease)


def _objective(
    task: "TuningTask",
    references: "References",
    wish: StudyWish,
    place: str,
    best_plans: Callable[[], list["Plan"]],
) -> "PlanObjective":
    """Plans as trials, around those of the study if it exists, else around the best of the exact search."""
    from towtank.autotune.study.measures import Prices, check_known, measures_named
    from towtank.autotune.study.plan_objective import PlanObjective
    from towtank.autotune.study.session import plans_of

    prices = Prices(wish.price)
    check_known(measures_named(wish.measures), task.machine, prices)
    plans = plans_of(place, wish.study) or best_plans()
    return PlanObjective(
        task, plans, wish.measures, references=references, prices=prices, devices=_devices(task, wish)
    )


def _best_plans(
    task: "TuningTask", wish: StudyWish, budget_s: float | None, workers: int | None
) -> list["Plan"]:
    """Plans to start from: the best of the exact search; where none fits, the one that lacks the least."""
    from towtank.autotune.search.exact import tune
    from towtank.cli.tune_progress import search_bar

    found, closest = [], []
    for number in _devices(task, wish):
        with search_bar() as show:
            result = tune(
                replace(task, devices=number), top=_SEEDS, budget_s=budget_s, workers=workers, progress=show
            )
        if result.stopped == "interrupt":
            raise KeyboardInterrupt
        found += [(ranked.step_time_s, ranked.plan) for ranked in result.plans]
        closest += [result.closest] if result.closest is not None else []
    plans = [plan for _, plan in sorted(found, key=lambda each: each[0])]
    return plans or closest


def _job(wish: StudyWish) -> Any:
    from towtank.autotune.study.slurm import Job

    return Job(wish.slurm_nodes, wish.slurm_workers, wish.slurm_time, tuple(wish.slurm_option or ()))


def _write_slurm(wish: StudyWish, path: Path, place: str, folders: Sequence[Path]) -> None:
    from towtank.autotune.study.slurm import slurm_script
    from towtank.cli.text import emit

    profiles = [word for folder in folders for word in ("--profiles", str(folder.absolute()))]
    text = slurm_script(place, wish.study, _job(wish), (sys.executable, "-m", "towtank.cli"), profiles)
    try:
        path.write_text(text)
        path.chmod(0o755)
    except OSError as error:
        raise InputError(f"--slurm {path}: cannot be written: {error.strerror or error}") from error
    size = f"{wish.slurm_nodes} x {wish.slurm_workers} workers"
    emit(f"{path}: {size} on study {wish.study}; start them with `sbatch {path}`")
