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
    """Combinations of the values of some fields, one a row; a column holds places in the tuple of a field's values.

    A field with one value has no column.
    """

    num_rows: int = 1
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    codes: Mapping[str, NDArray[np.int16]] = field(default_factory=dict)

    def code(self, name: str) -> NDArray[np.int16]:
        """Place of each row's value in `choices`, shape [rows]."""
        found = self.codes.get(name)
        return np.zeros(self.num_rows, np.int16) if found is None else found

    def numbers(self, name: str) -> Numbers:
        """Values of a count or a switch, shape [rows]; None is -1."""
        values = np.array([-1 if value is None else int(value) for value in self.choices[name]], np.int64)
        found: Numbers = values[self.code(name)]
        return found

    def product(self, *names: str) -> Numbers:
        """Product of counts, shape [rows]."""
        total = np.ones(self.num_rows, np.int64)
        for name in names:
            total *= self.numbers(name)
        return total

    def take(self, rows: NDArray[Any] | slice) -> "Draft":
        """The rows of a mask or of an index array."""
        count = len(np.zeros(self.num_rows, np.int8)[rows])
        return Draft(count, self.choices, {name: codes[rows] for name, codes in self.codes.items()})

    def expand(self, names: Sequence[str], options: Sequence[Sequence[Any]], keep: Mask) -> "Draft":
        """Each row with each option that `keep` [rows, options] allows; an option gives a value to each name."""
        choices = dict(self.choices)
        if len(options) == 1 and bool(keep.all()):
            return Draft(
                self.num_rows,
                choices | {name: (each,) for name, each in zip(names, options[0], strict=True)},
                self.codes,
            )
        rows, chosen = np.nonzero(keep)
        codes = {name: codes[rows] for name, codes in self.codes.items()}
        for position, name in enumerate(names):
            given = [option[position] for option in options]
            place = {value: code for code, value in enumerate(dict.fromkeys(given))}
            choices[name] = tuple(place)
            if len(place) > 1:
                codes[name] = np.array([place[value] for value in given], np.int16)[chosen]
        return Draft(len(rows), choices, codes)


def concatenated(parts: Sequence[Draft]) -> Draft:
    """Rows of drafts with the same choices, one after the other."""
    if len(parts) == 1:
        return parts[0]
    codes = {name: np.concatenate([part.codes[name] for part in parts]) for name in parts[0].codes}
    return Draft(sum(part.num_rows for part in parts), parts[0].choices, codes)
