"""Files that a command writes: whether it can, asked before the work; and the writing, after it."""

import os
from pathlib import Path

from towtank.cli.failure import InputError


def check_writable(option: str, path: Path) -> None:
    """Check that a file can be written, before the work whose answer goes there.

    Raises:
        InputError: its folder is not there, it is a folder itself, or nobody may write there.
    """
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder; name a file in it")
    place = path if path.exists() else path.parent
    if not os.access(place, os.W_OK):
        raise InputError(f"{option} {path}: cannot be written: no permission for {place}")


def fault_of_writing(option: str, path: Path, text: str) -> InputError | None:
    """Write a file that `option` has named; what is wrong where that fails.

    It is for the caller to raise, once the answer, which took its time, is printed.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        return InputError(f"{option} {path}: cannot be written: {error.strerror or error}")
    return None
