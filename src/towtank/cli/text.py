"""Words and columns: how numbers, tables and bars are printed. Plain text, at most 100 columns."""

import math
import os
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer

from towtank.cli.failure import InputError

WIDTH = 100
BROKEN_PIPE = 141
"""Exit code that a shell reports for a process that SIGPIPE has ended."""


def emit(text: str) -> None:
    """Print `text` on the standard output; leave quietly if its reader has gone.

    Raises:
        typer.Exit: the reader has gone.
        InputError: it cannot be written, as on a full disk.
    """
    try:
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _give_up_output()
        raise typer.Exit(BROKEN_PIPE) from None
    except OSError as error:
        _give_up_output()
        raise InputError(f"standard output: cannot be written: {error.strerror or error}") from error


def _give_up_output() -> None:
    """Write no more: the interpreter flushes once more when it ends, and would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def emit_json(document: Mapping[str, Any]) -> None:
    """Print a JSON document on the standard output; one that does not say its schema has the first one."""
    import json

    emit(json.dumps({"schema": 1, **document}, indent=2, allow_nan=False))


def seconds(value_s: float) -> str:
    """A time with four digits, such as `92.14 s`; never minutes or hours, so that times compare."""
    if value_s == 0:
        return "0 s"
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value_s >= 0.9999 * size or unit == "us":
            return f"{significant(value_s / size)} {unit}"
    raise AssertionError("the loop returns")


def significant(value: float, digits: int = 4) -> str:
    """A number with at least so many digits, commas between thousands: `92.14`, `0.5000`, `12,345`."""
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(float(f"{value:.{digits}g}"))))
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def gibibytes(value_bytes: float) -> str:
    """A memory size in GiB, such as `53.9 GiB`."""
    return f"{value_bytes / 2**30:,.1f} GiB"


def percent(fraction: float) -> str:
    """A fraction as `43.7 %`."""
    return f"{100 * fraction:.1f} %"


def count(value: float) -> str:
    """A whole number with commas between thousands."""
    return f"{value:,.0f}"


def plural(number: int, noun: str) -> str:
    """A whole number with its noun, such as `1 node` or `1,024 nodes`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def parameters(number: float) -> str:
    """A number of parameters as `405.9B`."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.4g}{letter}"
    return f"{number:.0f}"


def bar(fraction: float, width: int) -> str:
    """A bar that fills `fraction` of `width` columns, rounded; a blank where it rounds to nothing."""
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower()
    mark = "█" if encoding.startswith("utf") else "#"
    return mark * round(min(max(fraction, 0.0), 1.0) * width)


def table(
    rows: Iterable[Sequence[str]], heads: Sequence[str] = (), right: Iterable[int] = (), indent: int = 2
) -> str:
    """Rows in columns two blanks apart; columns in `right` are flush right. The last column is wrapped."""
    body = [list(row) for row in rows]
    lines = [list(heads), *body] if heads else body
    if not lines:
        return ""
    widths = [max(len(row[column]) for row in lines) for column in range(len(lines[0]))]
    flush_right = set(right)
    printed = [_line(row, widths, flush_right, indent) for row in lines]
    return "\n".join(printed)


def _line(row: Sequence[str], widths: Sequence[int], flush_right: set[int], indent: int) -> str:
    cells = [
        cell.rjust(width) if column in flush_right else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    start = " " * indent + "  ".join(cells[:-1]) + ("  " if len(cells) > 1 else "")
    room = max(WIDTH - len(start), 12)
    last = textwrap.wrap(cells[-1].rstrip(), room) if len(cells[-1].rstrip()) > room else [cells[-1]]
    return ("\n" + " " * len(start)).join([start + last[0], *last[1:]]).rstrip()


def paragraph(text: str, indent: int = 2) -> str:
    """Text wrapped to the width, the lines after the first indented by two more."""
    blank = " " * indent
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=blank,
        subsequent_indent=f"{blank}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def flattened(record: dict[str, Any], skip: tuple[str, ...] = (), place: str = "") -> list[tuple[str, str]]:
    """Fields of a record and of the records inside it, under dotted names."""
    rows: list[tuple[str, str]] = []
    for key, value in record.items():
        if key in skip:
            continue
        if isinstance(value, dict):
            rows += flattened(value, place=f"{place}{key}.")
        else:
            rows.append((f"{place}{key}", _word(key, value)))
    return rows


def _word(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, tuple | list):
        return ", ".join(_word("", part) for part in value) or "none"
    if isinstance(value, float) and key.endswith("_s"):
        return seconds(value)
    if isinstance(value, float) and key.endswith("_bytes"):
        return gibibytes(value)
    return f"{value:,}" if isinstance(value, int) else str(value)
