"""Making, finding and continuing a study."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from towtank.autotune.study.leases import Watch, Worker
from towtank.autotune.study.ledger import Ledger
from towtank.autotune.study.proposals import distribution_of
from towtank.autotune.study.records import (
    Objective,
    Real,
    Settings,
    StudyError,
)
from towtank.autotune.study.samplers import check_sampler
from towtank.autotune.study.storage import exists, open_storage, reason_of, shown
from towtank.simulator.plan import Plan
from towtank.simulator.plan_file import plan_from_mapping

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.study import Study

SCHEMA = 1
IDENTITY, SETTINGS = "towtank", "settings"
"""Attributes of a study: what is searched, and how."""


@dataclass(frozen=True, slots=True)
class OpenStudy:
    """A study and where it lives."""

    study: "Study"
    storage: "BaseStorage"
    place: str
    settings: Settings

    def close(self) -> None:
        """Give connections to a database back; the study cannot be used any more."""
        close_storage(self.storage)


def close_storage(storage: "BaseStorage") -> None:
    """Give connections to a database back."""
    storage.remove_session()
    engine = getattr(storage, "engine", None)
    if engine is not None:
        engine.dispose()


def create_or_continue(place: str, name: str, objective: Objective, settings: Settings) -> OpenStudy:
    """Make the study with its seeds queued, or continue the one of that name.

    Args:
        place: what `storage_of` returned.
        name: name of the study in its storage.
        objective: what is searched; of an existing study it must be the same.
        settings: of an existing study sampler and seed must be the same; `trials` replaces the number before.

    Raises:
        StudyError: the storage cannot be used, or the study there is another one.
    """
    check_sampler(
        settings.sampler,
        len(objective.measures),
        finite=not any(isinstance(parameter, Real) for parameter in objective.space.values()),
    )
    with _closed_on_failure(place) as storage:
        study = _study(storage, place, name, objective)
        _claim(study, place, objective, settings)
        opened = OpenStudy(study, storage, place, settings)
        _queue_seeds(opened, objective)
    return opened


@contextmanager
def _closed_on_failure(place: str) -> "Iterator[BaseStorage]":
    """The opened storage; closed where the block ends by an error.

    Raises:
        StudyError: the storage cannot be opened, or was lost in the block.
    """
    from optuna.exceptions import StorageInternalError

    storage = open_storage(place)
    try:
        yield storage
    except BaseException as error:
        close_storage(storage)
        if isinstance(error, StorageInternalError):
            raise StudyError(f"storage {shown(place)}: {reason_of(error)}") from error
        raise


def _claim(study: "Study", place: str, objective: Objective, settings: Settings) -> None:
    """Note in a study what it searches and how, or check that it is the same that it searches already.

    Raises:
        StudyError: it is not, or the study is of another program.
    """
    name = study.study_name
    identity = _plain({"schema": SCHEMA, **objective.identity()})
    has_trials = bool(
        study.get_trials(deepcopy=False)
    )  # looked at first: another process may make it just now
    attributes = study.user_attrs
    if IDENTITY in attributes:
        _check_same(name, place, attributes[IDENTITY], identity)
        _check_sampler_is(name, attributes.get(SETTINGS), settings)
    elif has_trials:
        raise StudyError(
            f"study {name} in {shown(place)} was not made by towtank tune; choose another --study"
        )
    else:
        study.set_user_attr(IDENTITY, identity)
    study.set_user_attr(SETTINGS, _settings_record(settings))


def find(place: str, name: str) -> tuple[OpenStudy, Mapping[str, Any]]:
    """The study of that name, and the identity of its objective.

    Raises:
        StudyError: there is none, or another program or version made it.
    """
    if not exists(place):
        raise StudyError(
            f"there is no {shown(place)}; make it with `towtank tune --study {name} --storage {shown(place)}` and "
            "the model, or name the storage of a study that is there"
        )
    with _closed_on_failure(place) as storage:
        found = _found(storage, place, name)
    return found


def _found(storage: "BaseStorage", place: str, name: str) -> tuple[OpenStudy, Mapping[str, Any]]:
    import optuna

    try:
        study = optuna.load_study(study_name=name, storage=storage, sampler=_no_sampler())
    except KeyError:
        names = ", ".join(sorted(optuna.get_all_study_names(storage))) or "none"
        raise StudyError(
            f"{shown(place)} has no study {name} (there: {names}); make it with `towtank tune --study {name} "
            f"--storage {shown(place)}` and the model, or give the name of one that is there"
        ) from None
    identity, record = study.user_attrs.get(IDENTITY), study.user_attrs.get(SETTINGS)
    if identity is None or record is None:
        raise StudyError(f"study {name} in {shown(place)} was not made by towtank tune")
    _check_schema(name, place, identity)
    settings = Settings(record["trials"], record["sampler"], record["seed"], record["lease_s"])
    return OpenStudy(study, storage, place, settings), identity


def plans_of(place: str, name: str) -> list[Plan]:
    """Plans that a study was made around; none where there is no such study yet, or none of plans.

    Raises:
        StudyError: the storage cannot be used.
    """
    import optuna

    if not exists(place):
        return []
    storage = open_storage(place)
    try:
        study = optuna.load_study(study_name=name, storage=storage, sampler=_no_sampler())
        identity = study.user_attrs.get(IDENTITY, {})
    except KeyError:
        return []
    finally:
        close_storage(storage)
    return [plan_from_mapping(plan, f"study {name}") for plan in identity.get("plans", [])]


def _study(storage: "BaseStorage", place: str, name: str, objective: Objective) -> "Study":
    """The study of that name, made if it is not there."""
    import optuna

    directions = [measure.direction for measure in objective.measures]
    attempts = 5
    for attempt in range(attempts):
        try:
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=directions,
                load_if_exists=True,
                sampler=_no_sampler(),
            )
        except optuna.exceptions.StorageInternalError as error:  # two workers make it at once
            if attempt == attempts - 1:
                raise StudyError(f"storage {shown(place)}: {reason_of(error)}") from error
            time.sleep(0.2 * (attempt + 1))
        else:
            return study
    raise AssertionError("the loop returns or raises")


def _no_sampler() -> Any:
    """The sampler of the shared study, which is never asked: proposals come from a copy of it in memory."""
    import optuna

    return optuna.samplers.RandomSampler(seed=0)


def _settings_record(settings: Settings) -> dict[str, Any]:
    import optuna

    return {
        "trials": settings.trials,
        "sampler": settings.sampler,
        "seed": settings.seed,
        "lease_s": settings.lease_s,
        "optuna": optuna.__version__,
    }


def _plain(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document as it comes out of JSON, so that tuples and lists compare."""
    plain: dict[str, Any] = json.loads(json.dumps(document, allow_nan=False))
    return plain


def _check_schema(name: str, place: str, identity: Mapping[str, Any]) -> None:
    if identity.get("schema") != SCHEMA:
        raise StudyError(
            f"study {name} in {shown(place)} has schema {identity.get('schema')}, and this towtank reads schema "
            f"{SCHEMA}; choose another --study"
        )


def _check_same(name: str, place: str, there: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    _check_schema(name, place, there)
    differing = [key for key in {**there, **asked} if there.get(key) != asked.get(key)]
    if differing:
        lines = [f"{key} {_short(there.get(key))} there, {_short(asked.get(key))} asked" for key in differing]
        raise StudyError(
            f"study {name} in {shown(place)} is of another task: {'; '.join(lines)}; "
            "ask for the same, or choose another --study"
        )


def _short(value: Any) -> str:
    text = "nothing" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _check_sampler_is(name: str, record: Mapping[str, Any] | None, settings: Settings) -> None:
    if record is not None and (record["sampler"], record["seed"]) != (settings.sampler, settings.seed):
        raise StudyError(
            f"study {name} uses sampler {record['sampler']} with seed {record['seed']}, but sampler "
            f"{settings.sampler} with seed {settings.seed} is asked; leave --sampler and --seed as they were, or "
            "choose another --study"
        )


def distributions_of(objective: Objective) -> dict[str, "BaseDistribution"]:
    """The space of the objective in Optuna's terms."""
    return {name: distribution_of(parameter) for name, parameter in objective.space.items()}


def ledger_of(opened: OpenStudy, objective: Objective, worker: Worker) -> Ledger:
    """The trials of the study as this worker reads and writes them."""
    watch = Watch(worker, opened.settings.lease_s)
    return Ledger(opened.study, opened.storage, distributions_of(objective), worker, watch)


def _queue_seeds(opened: OpenStudy, objective: Objective) -> None:
    """Queue what is to be tried first and is not there; who does it twice at once is sorted out when it is taken."""
    ledger = ledger_of(opened, objective, Worker.this_process())
    for parameters in objective.seeds:
        name = objective.name_of(parameters)
        if ledger.look().first_with(name) is None:
            ledger.put(parameters, name)
