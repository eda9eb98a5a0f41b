"""Where a study lives: in memory, in a journal file, in SQLite or in PostgreSQL."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from towtank.autotune.study.records import StudyError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

MEMORY = "memory"
_KNOWN = (
    "memory, a journal file such as NAME.journal, sqlite:///FILE, or postgresql+psycopg://USER@HOST/DATABASE"
)
_SQLITE_PATIENCE_S = 60
_LOCK_GRACE_S = 20
"""A lock on a journal whose holder has been silent for so long is broken: nobody writes a line for so long."""


def storage_of(spec: str | None, study: str) -> str:
    """The storage that is meant: without one, the journal file of the study in the working directory.

    Paths come out absolute, so that workers started in other directories find the same file.

    Raises:
        StudyError: the form is not known.
    """
    text = (f"{study}.journal" if spec is None else spec).strip()
    if text == MEMORY:
        return text
    scheme, sign, rest = text.partition("://")
    if not sign:
        return str(Path(text).absolute())
    if scheme == "sqlite":
        path = rest.removeprefix("/")
        if not rest.startswith("/") or not path:
            raise StudyError(f"storage {text}: a SQLite file is given as sqlite:///FILE")
        return f"sqlite:///{Path(path).absolute()}"
    if scheme in ("postgresql", "postgres", "postgresql+psycopg"):
        return f"postgresql+psycopg://{rest}"
    raise StudyError(f"storage {_without_password(text)} is of a kind that is not known (known: {_KNOWN})")


def shown(storage: str) -> str:
    """The storage as it may be printed: without a password."""
    return _without_password(storage)


def has_password(storage: str) -> bool:
    """Whether the URL contains a password."""
    return _without_password(storage) != storage


def _without_password(text: str) -> str:
    scheme, sign, rest = text.partition("://")
    account, at, host = rest.rpartition("@")
    user, colon, _ = account.partition(":")
    return f"{scheme}{sign}{user}:***{at}{host}" if at and colon else text


def exists(storage: str) -> bool:
    """Whether there can be a study already: files are looked for, databases are not asked."""
    if storage == MEMORY:
        return False
    return storage.startswith("postgresql") or Path(storage.removeprefix("sqlite:///")).exists()


def check_place(storage: str) -> None:
    """Check that the file of a storage can be made or written; databases are not asked.

    Raises:
        StudyError: it cannot, with the reason.
    """
    if storage != MEMORY and not storage.startswith("postgresql"):
        _check_file(Path(storage.removeprefix("sqlite:///")))


def open_storage(storage: str) -> "BaseStorage":
    """Open what `storage_of` has named; a file or tables that are not there yet are made.

    Raises:
        StudyError: it cannot be opened, with the reason and what to do.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if storage == MEMORY:
        return optuna.storages.InMemoryStorage()
    if storage.startswith("sqlite:"):
        return _open_sqlite(storage)
    if storage.startswith("postgresql"):
        return _relational(storage, {"pool_pre_ping": True})
    return _open_journal(Path(storage))


def _open_journal(path: Path) -> "BaseStorage":
    import optuna

    from towtank.autotune.study.journal import journal_backend

    _check_file(path)
    try:
        return optuna.storages.JournalStorage(journal_backend(str(path), _LOCK_GRACE_S))
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise StudyError(
            f"storage {path} is not a journal of a study ({error or type(error).__name__}); name another file"
        ) from error
    except (OSError, optuna.exceptions.StorageInternalError) as error:
        raise StudyError(f"storage {path}: {reason_of(error)}") from error


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise StudyError(f"storage {path} is a folder; name a file in it, such as {path / 'study.journal'}")
    if not path.parent.is_dir():
        raise StudyError(f"storage {path}: the folder {path.parent} does not exist; make it first")
    needed = path if path.exists() else path.parent
    if not os.access(needed, os.R_OK | os.W_OK) or not os.access(path.parent, os.W_OK):
        raise StudyError(f"storage {path} cannot be written; choose a folder that you may write")


def _open_sqlite(storage: str) -> "BaseStorage":
    path = Path(storage.removeprefix("sqlite:///"))
    _check_file(path)
    if path.exists() and path.stat().st_size and not _is_sqlite(path):
        raise StudyError(f"storage {path} is not a SQLite file; name another one")
    return _relational(storage, {"connect_args": {"timeout": _SQLITE_PATIENCE_S}}, _one_writer_at_a_time)


def _is_sqlite(path: Path) -> bool:
    first = b"SQLite format 3"
    with open(path, "rb") as file:
        return file.read(len(first)) == first


def _one_writer_at_a_time(engine: Any) -> None:
    """Let every transaction of SQLite take the write lock when it begins.

    Optuna reads the state of a trial and then sets it, and locks the row in between where the database has row locks.
    SQLite has none: two workers could take the same trial. (The recipe is SQLAlchemy's, "Enabling Non-Legacy SQLite
    Transactional Modes".)
    """
    from sqlalchemy import event

    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    def begun(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)


def _relational(
    storage: str, options: dict[str, Any], prepare: Callable[[Any], None] | None = None
) -> "BaseStorage":
    """A database, with its tables; several workers may make these at the same time."""
    import optuna
    import sqlalchemy.exc

    attempts = 5
    for attempt in range(1, attempts + 1):
        try:
            opened = optuna.storages.RDBStorage(storage, engine_kwargs=dict(options))
        except ImportError as error:
            raise StudyError(
                f"storage {shown(storage)} needs the driver psycopg; install it with "
                "`pip install 'towtank[postgres]'`"
            ) from error
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            if attempt == attempts or not _made_by_another(error):
                raise StudyError(f"storage {shown(storage)} cannot be opened: {reason_of(error)}") from error
            time.sleep(0.2 * attempt)
        except RuntimeError as error:  # tables of another version of Optuna
            raise StudyError(f"storage {shown(storage)}: {error}") from error
        else:
            if prepare is not None:
                opened.engine.dispose()
                prepare(opened.engine)
            return opened
    raise AssertionError("the loop returns or raises")


def _made_by_another(error: Exception) -> bool:
    """Whether tables appeared between the look and the making."""
    text = reason_of(error).lower()
    return any(word in text for word in ("already exists", "unique", "duplicate", "locked"))


def reason_of(error: BaseException) -> str:
    """The first line of what the driver of a database said."""
    while error.__cause__ is not None:
        error = error.__cause__
    original = getattr(error, "orig", None) or error
    lines = [line.strip() for line in str(original).splitlines() if line.strip()]
    return lines[0] if lines else type(original).__name__
