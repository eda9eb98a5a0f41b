"""Rules as data: which rows one concerns, and what follows for them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from towtank.validation.rows import Run

_FOLDER = Path(__file__).parent
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Rule = Mapping[str, Any]


class InexpressibleError(Exception):
    """The row cannot be written as model, machine, plan and stack; the message is the reason."""


@cache
def table(name: str) -> Any:
    """Content of one YAML file of this folder."""
    return yaml.load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), Loader=_Loader)


def matches(run: Run, when: Mapping[str, Any]) -> re.Match[str] | bool:
    """Whether every condition holds.

    The key is a column. Text is a pattern that is searched in the cell, case ignored; true and false are
    compared; null asks for a blank cell; a number is compared. The match of the last pattern is returned, so
    that what follows can use its groups.
    """
    found: re.Match[str] | bool = True
    for column, wanted in when.items():
        cell = getattr(run, column)
        if isinstance(wanted, str):
            match = _pattern(wanted).search(str(cell if cell is not None else ""))
            if match is None:
                return False
            found = match
        elif cell != wanted:
            return False
    return found


@cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)


def first(run: Run, rules: Sequence[Rule]) -> Rule | None:
    """The first rule whose `when` holds for the row."""
    return next((rule for rule in rules if matches(run, rule.get("when", {}))), None)


def every(run: Run, rules: Sequence[Rule]) -> Iterator[tuple[Rule, re.Match[str] | bool]]:
    """Every rule whose `when` holds, with the match of its pattern."""
    for rule in rules:
        found = matches(run, rule.get("when", {}))
        if found:
            yield rule, found
