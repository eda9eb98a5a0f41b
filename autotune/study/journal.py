"""Journal files that survive workers which die while they write."""

import json
import os
from contextlib import suppress
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock


class MendedJournal(JournalFileBackend):
    """Optuna's journal file, less the half line that a killed worker may have left at its end.

    Optuna appends to such a half line, and the journal can never be read again. Here whoever writes next cuts it off
    first, under the lock that every writer takes.
    """

    def __init__(self, path: str, lock: JournalFileOpenLock) -> None:
        super().__init__(path, lock)
        self._path, self._own_lock = path, lock

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append records, each as one line, after the last whole line.

        Raises:
            StorageInternalError: the file cannot be written any more.
        """
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        try:
            self._own_lock.acquire()
            try:
                self._append(text.encode("utf-8"))
            finally:
                with suppress(RuntimeError):  # whoever waited too long for this writer has broken its lock
                    self._own_lock.release()
        except OSError as error:
            raise StorageInternalError(f"{self._path} cannot be written") from error

    def _append(self, text: bytes) -> None:
        with open(self._path, "r+b") as file:
            file.truncate(_end_of_last_line(file))
            file.seek(0, os.SEEK_END)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


def _end_of_last_line(file: Any) -> int:
    """Bytes up to and with the last newline of a binary file."""
    end: int = file.seek(0, os.SEEK_END)
    size = 4096
    while end:
        start = max(0, end - size)
        file.seek(start)
        place: int = file.read(end - start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        end = start
    return 0


def journal_backend(path: str, grace_s: int) -> MendedJournal:
    """The journal of that absolute path.

    The lock is a file made with O_EXCL, which also holds on NFS from version 3 on. Optuna's other lock, a symbolic
    link, looks at the age of what it points to, and waits for ever where that is a relative path.
    """
    return MendedJournal(path, JournalFileOpenLock(path, grace_period=grace_s))
