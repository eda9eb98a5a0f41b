"""A bar on the standard error stream while a command works."""

import sys

_WIDTH = 40


def progress_bar(noun: str, *, done: int, total: int) -> None:
    """Draw `done` of `total` so many nouns, if a person watches; the line is wiped when all are done."""
    if not sys.stderr.isatty() or not total:
        return
    filled = _WIDTH * done // total
    line = f"  [{'#' * filled}{'.' * (_WIDTH - filled)}] {done} of {total} {noun}"
    sys.stderr.write("\r" + (" " * len(line) + "\r" if done >= total else line))
    sys.stderr.flush()
