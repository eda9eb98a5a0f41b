"""Small JSON files that several processes write: read, changed and replaced as a whole, or not at all."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from towtank.kernels.errors import KernelError

VERSION = 1
"""Of the files; a file of another version is started again."""

Entries = dict[str, Any]


def cache_folder() -> Path:
    """Where towtank keeps what it has found out about this machine: TOWTANK_CACHE, or towtank/ of the user's cache.

    The latter is XDG_CACHE_HOME or ~/.cache (XDG Base Directory Specification).

    Raises:
        KernelError: none is named and this user has no home, as in some containers.
    """
    if own := os.environ.get("TOWTANK_CACHE"):
        return Path(own)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "towtank"
    try:
        return Path.home() / ".cache" / "towtank"
    except RuntimeError as error:
        raise KernelError(
            "this user has no home in which validated kernels and tiles could be kept; name a folder by TOWTANK_CACHE"
        ) from error


def read(path: Path) -> Entries:
    """Entries of a file; none where it is missing, of another version, or not JSON (a crash, a full disk)."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(document, dict) or document.get("version") != VERSION:
        return {}
    entries = document.get("entries")
    return entries if isinstance(entries, dict) else {}


def update(path: Path, change: Callable[[Entries], None]) -> None:
    """Apply `change` to the entries of a file, alone among all processes.

    The new file is written beside the old one and takes its place in one step: a reader sees either, and a crash
    leaves the old one.

    Raises:
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        entries = read(path)
        change(entries)
        _sweep(path)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({"version": VERSION, "entries": entries}, file, indent=1, sort_keys=True)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except OSError as error:  # of a full disk it does not say whose
            Path(name).unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(path)) from error
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _sweep(path: Path) -> None:
    """Remove what writers left that were killed: nobody else writes while we hold the lock."""
    for each in path.parent.glob(f".{path.name}.*"):
        if not each.name.endswith(".lock"):
            each.unlink(missing_ok=True)


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Wait until no other process of this user is within the block of this name; not where nothing can be written."""
    path = cache_folder() / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f".{path.name}.lock").open("w").close()
    except OSError:
        yield
        return
    with _locked(path):
        yield


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    import fcntl

    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go when the file is closed, also by a crash
        yield
