"""Signs of life of the ranks that we have started ourselves, for the process that watches them.

A rank that is stopped, not dead, ends no process and breaks no connection: the others would wait for it in their next
collective. So each rank touches a file once a second, and whoever started them looks at these files.
"""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from towtank.executor.launching.silence import Silence

_INTERVAL_S: Final = 1.0
_LOOKS_S: Final = 0.5
PATIENCE_S: Final = 40.0
"""Silence after which a rank counts as lost; with what ends the others, less than a minute."""


def alive_file(folder: Path, rank: int) -> Path:
    """What a rank touches."""
    return folder / f"alive-{rank}"


def show_life(path: Path) -> None:
    """Touch a file from now on until this process ends.

    Begin when libraries are loaded and all ranks have met: loading one may keep a thread waiting for long.
    """
    path.touch()
    threading.Thread(target=_touch, args=(path,), name="alive", daemon=True).start()


def _touch(path: Path) -> None:
    while True:
        time.sleep(_INTERVAL_S)
        try:
            path.touch(exist_ok=True)
        except OSError:  # the folder is gone: so is whoever looks
            return


class Watch:
    """Looks after the ranks of a run."""

    def __init__(self, files: Sequence[Path], patience_s: float) -> None:
        """`files` of all ranks, which need not be there yet."""
        self._files, self._patience_s = files, patience_s
        self._silences = [Silence(2 * _LOOKS_S, time.monotonic) for _ in files]
        self._next_s = time.monotonic()

    def lost(self) -> list[int]:
        """Ranks that have been silent for too long; looks twice a second at most."""
        if time.monotonic() < self._next_s:
            return []
        self._next_s = time.monotonic() + _LOOKS_S
        silent = [one.look(_touched(path)) for one, path in zip(self._silences, self._files, strict=True)]
        return [rank for rank, seconds in enumerate(silent) if seconds > self._patience_s]


def _touched(path: Path) -> int | None:
    """When a file was touched last, in nanoseconds; None if never."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
