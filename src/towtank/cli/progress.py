"""A bar on the standard error stream while a command works."""

import os
import sys

_WIDTH = 40
_LEAST = 10
_COLUMNS = 80
"""Of a terminal that does not say how wide it is."""


def progress_bar(noun: str, *, done: int, total: int) -> None:
    """Draw `done` of `total` so many nouns, if a person watches; the line is wiped when all are done."""
    if not sys.stderr.isatty() or not total:
        return
    if done >= total:
        wipe()
        return
    columns = _columns()
    sys.stderr.write("\r" + bar_line(noun, done, total, columns).ljust(columns - 1))
    sys.stderr.flush()


def bar_line(noun: str, done: int, total: int, columns: int) -> str:
    """The bar and its words in less than `columns`: a line that wraps cannot be written over."""
    words = f" {done} of {total} {noun}"
    width = max(_LEAST, min(_WIDTH, columns - len(words) - 5))
    filled = width * done // total
    return f"  [{'#' * filled}{'.' * (width - filled)}]{words}"[: columns - 1]


def wipe() -> None:
    """Take away a bar that is there, for what is printed next."""
    if sys.stderr.isatty():
        sys.stderr.write("\r" + " " * (_columns() - 1) + "\r")
        sys.stderr.flush()


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _COLUMNS
    except OSError:
        return _COLUMNS
