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
        if name not in self.codes:
            return np.repeat(values, self.num_rows)
        found: Numbers = values[self.codes[name]]
        return found

    def product(self, *names: str) -> Numbers:
        """Product of counts, shape [rows]."""
        total = np.ones(self.num_rows, np.int64)
        for name in names:
            total *= self.numbers(name)
        return total

    def value(self, name: str, row: int) -> Any:
        """Value of one field of a row."""
        return self.choices[name][int(self.codes[name][row]) if name in self.codes else 0]

    def take(self, rows: NDArray[Any] | slice) -> "Draft":
        """The rows of a mask or of an index array."""
        codes = {name: codes[rows] for name, codes in self.codes.items()}
        return Draft(len(next(iter(codes.values()))), self.choices, codes)

    def expand(self, names: Sequence[str], options: Sequence[Sequence[Any]], keep: Mask) -> "Draft":
        """Each row with each option that `keep` [rows, options] allows; an option gives a value to each name."""
        choices = dict(self.choices)
        whole = len(options) == 1 and bool(keep.all())
        rows, chosen = (slice(None), np.zeros(self.num_rows, np.intp)) if whole else np.nonzero(keep)
        codes = {name: codes[rows] for name, codes in self.codes.items()}
        for position, name in enumerate(names):
            given = [option[position] for option in options]
            place = {value: code for code, value in enumerate(dict.fromkeys(given))}
            choices[name] = tuple(place)
            codes[name] = np.array([place[value] for value in given], np.int16)[chosen]
        return Draft(len(chosen), choices, codes)


def concatenated(parts: Sequence[Draft]) -> Draft:
    """Rows of drafts with the same choices, one after the other."""
    if len(parts) == 1:
        return parts[0]
    codes = {name: np.concatenate([part.codes[name] for part in parts]) for name in parts[0].codes}
    return Draft(sum(part.num_rows for part in parts), parts[0].choices, codes)
