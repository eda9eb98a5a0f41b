"""Rows of a space under construction: columns of codes that grow option by option."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """Combinations of the values of some fields, one a row; each column holds places in the tuple of its values."""

    num_rows: int = 1
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    codes: Mapping[str, NDArray[np.int16]] = field(default_factory=dict)

    def numbers(self, name: str) -> Numbers:
        """Values of a count or a switch, shape [rows]; None is -1."""
        values = np.array([-1 if value is None else int(value) for value in self.choices[name]], np.int64)
        found: Numbers = values[self.codes[name]]
        return found

    def equals(self, name: str, value: Any) -> Mask:
        """Rows whose field has this value, shape [rows]."""
        same = np.array([each == value for each in self.choices[name]], np.bool_)
        found: Mask = same[self.codes[name]]
        return found

    def product(self, *names: str) -> Numbers:
        """Product of counts, shape [rows]."""
        total = np.ones(self.num_rows, np.int64)
        for name in names:
            total *= self.numbers(name)
        return total

    def fixed(self, name: str, value: Any) -> "Draft":
        """The rows with one field that is the same in all of them."""
        return Draft(self.num_rows, {**self.choices, name: (value,)}, self.codes)

    def value(self, name: str, row: int) -> Any:
        """Value of one field of a row."""
        return self.choices[name][int(self.codes[name][row]) if name in self.codes else 0]

    def take(self, rows: NDArray[Any]) -> "Draft":
        """The rows of a mask or of an index array."""
        codes = {name: codes[rows] for name, codes in self.codes.items()}
        return Draft(len(next(iter(codes.values()))), self.choices, codes)

    def expand(self, names: Sequence[str], options: Sequence[Sequence[Any]], keep: Mask) -> "Draft":
        """Each row with each option that `keep` [rows, options] allows; an option gives a value to each name."""
        rows, chosen = np.nonzero(keep)
        codes = {name: codes[rows] for name, codes in self.codes.items()}
        choices = dict(self.choices)
        for position, name in enumerate(names):
            given = [option[position] for option in options]
            values = tuple(dict.fromkeys(given))
            choices[name] = values
            codes[name] = np.array([values.index(value) for value in given], np.int16)[chosen]
        return Draft(len(rows), choices, codes)
