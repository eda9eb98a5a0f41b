"""Comments, arrays and quoting of bash that all launch scripts share."""

import shlex
import textwrap
from collections.abc import Iterable, Sequence

_WIDTH = 110


def comment(lines: Iterable[str], mark: str = "# ") -> list[str]:
    """Lines as comments, wrapped."""
    wrapped: list[str] = []
    for line in lines:
        wrapped += textwrap.wrap(
            line,
            _WIDTH,
            initial_indent=mark,
            subsequent_indent=f"{mark}  ",
            break_long_words=False,
            break_on_hyphens=False,
        ) or [mark.rstrip()]
    return wrapped


def array(name: str, entries: Sequence[str]) -> list[str]:
    """An array of bash with one entry, an option with its value, a line."""
    return [f"{name}=(", *(f"    {entry}" for entry in entries), ")"]


def option(name: str, value: object) -> str:
    """An option with its value in bash; a value of True is the option alone."""
    if value is True:
        return name
    return f"{name} {shlex.quote(str(value))}"


def python(value: object) -> str:
    """A value as Python source, texts in double quotes."""
    return f'"{value}"' if isinstance(value, str) else repr(value)


def exports(environment: Iterable[tuple[str, str]]) -> list[str]:
    """Lines that export variables."""
    return [f"export {name}={value}" for name, value in environment]
