"""What a page is made of, before it is HTML, Markdown or CSV."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Cell = str | float | int


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under named columns; also the text alternative of a plot."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot as plotly reads it, with what it shows in words."""

    name: str
    """Unique on the page: letters and dashes."""
    alternative: str
    """One sentence that says what is seen, for those who do not see it."""
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    table: Table
    """The same figures as text."""


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a page."""

    title: str
    paragraphs: Sequence[str] = ()
    table: Table | None = None
    plot: Plot | None = None
    items: Sequence[str] = ()
    """A list."""
    commands: Sequence[str] = field(default_factory=tuple)
    """Lines to type."""


@dataclass(frozen=True, slots=True)
class Page:
    """A whole document."""

    title: str
    subtitle: str
    sections: Sequence[Section]
