"""`towtank verify --trials N`: a study of Optuna whose trials are real runs on this machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from towtank.cli.failure import INTERRUPTED, InputError, complain
from towtank.cli.tune_worker import KEPT, check_name

if TYPE_CHECKING:
    from towtank.autotune.study.plan_objective import References
    from towtank.autotune.study.records import StudyResult
    from towtank.autotune.study.session import OpenStudy
    from towtank.autotune.task import TuningTask
    from towtank.executor.trials import RunObjective
    from towtank.simulator.plan import Plan

_MOST_ROWS = 10


@dataclass(frozen=True)
class TrialsWish:
    """Options of `towtank verify` that speak of a study, as given; None: not given."""

    trials: int | None
    sampler: str | None
    seed: int | None
    study: str | None
    storage: str | None

    @property
    def is_asked(self) -> bool:
        """Whether plans run as trials of a study.

        Raises:
            InputError: options of a study are given and --trials is not.
        """
        given = {"sampler": self.sampler, "seed": self.seed, "study": self.study, "storage": self.storage}
        unread = [f"--{name}" for name, value in given.items() if value is not None]
        if self.trials is None and unread:
            raise InputError(f"{', '.join(unread)}: not read without --trials N; leave out, or give it too")
        return self.trials is not None

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.study or "verify"


def place_of(wish: TrialsWish) -> str:
    """Where the study is kept.

    Raises:
        InputError, StudyError: the name or the place of the study, or its sampler, cannot be used.
    """
    from towtank.autotune.study.samplers import check_sampler
    from towtank.autotune.study.storage import check_place, storage_of

    check_name(wish.name)
    check_sampler(wish.sampler or "tpe")
    place = storage_of(wish.storage, wish.name)
    check_place(place)
    return place


def run_trials(
    task: "TuningTask",
    best_plans: "Callable[[], Sequence[Plan]]",
    references: "References",
    steps: int,
    wish: TrialsWish,
    *,
    json: bool,
) -> None:
    """Make or continue the study and run plans until there are as many as asked; print the fastest.

    Args:
        best_plans: gives the plans to start from, best first; asked if there is no such study yet.
        steps: measured steps of a trial.

    Raises:
        StudyError: the study cannot be made or continued.
        typer.Exit: the user stopped it.
    """
    from towtank.autotune.study.records import Settings
    from towtank.autotune.study.session import create_or_continue, plans_of
    from towtank.autotune.study.work import result_of, work
    from towtank.cli.tune_study_progress import study_bar
    from towtank.executor.trials import RunObjective

    place, stopped = place_of(wish), False
    settings = Settings(wish.trials or 1, wish.sampler or "tpe", wish.seed or 0)
    with RunObjective(task, plans_of(place, wish.name) or best_plans(), steps, references) as objective:
        opened = create_or_continue(place, wish.name, objective, settings)
        try:
            with study_bar(settings.trials, objective.measures) as show:
                result = work(opened, objective, show)
        except KeyboardInterrupt:
            stopped, result = True, result_of(opened, objective)
        finally:
            opened.close()
        _print(result, opened, objective, json=json)
    if stopped:
        complain(KEPT)
        raise typer.Exit(INTERRUPTED)


def _print(result: "StudyResult", opened: "OpenStudy", objective: "RunObjective", *, json: bool) -> None:
    from towtank.autotune.study.storage import shown
    from towtank.cli.text import count, emit, emit_json, percent, seconds, table
    from towtank.cli.tune_study_text import plan_words
    from towtank.simulator.plan_file import plan_to_mapping

    counts, rows = result.counts, _rows(result, objective)
    if json:
        emit_json(
            {
                "schema": 1,
                "method": "optuna",
                "study": result.name,
                "storage": shown(opened.place),
                "sampler": opened.settings.sampler,
                "seed": opened.settings.seed,
                "counts": {"measured": counts.complete, "failed": counts.failed, "retried": counts.retried},
                "exhausted": result.exhausted,
                "plans": [{**row, "plan": plan_to_mapping(row["plan"])} for row in rows],
            }
        )
        return
    said = [f"{count(counts.complete)} plans ran"]
    said += [f"{count(counts.failed)} failed"] if counts.failed else []
    said += ["the sampler finds no other plan"] if result.exhausted else []
    lines = [
        (
            str(row["rank"]),
            seconds(row["measured_s"]),
            seconds(row["predicted_s"]),
            percent(row["error"]),
            plan_words(row["plan"]),
        )
        for row in rows
    ]
    emit(f"study {result.name}: {', '.join(said)}")
    if lines:
        emit("\n" + table(lines, ("", "measured", "predicted", "error", "plan"), right=range(4)))
    emit(f"\nkept in {shown(opened.place)}; the same command with more --trials goes on")


def _rows(result: "StudyResult", objective: "RunObjective") -> list[dict[str, Any]]:
    """The fastest plans, measured beside predicted."""
    found = []
    for rank, trial in enumerate(result.best[:_MOST_ROWS], start=1):
        measured_s, predicted_s = trial.outcome.values[0], objective.predicted_s(trial.parameters)
        found.append(
            {
                "rank": rank,
                "trial": trial.number,
                "plan": objective.plan(trial.parameters),
                "measured_s": measured_s,
                "predicted_s": predicted_s,
                "error": predicted_s / measured_s - 1,
            }
        )
    return found
