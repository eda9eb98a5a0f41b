"""Plans as columns: a million of them fit into some tens of megabytes and are judged by numpy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from towtank.simulator.plan import Plan


@dataclass(frozen=True, slots=True, eq=False)
class PlanTable:
    """Plans of one search: what all share in `base`, what differs in columns.

    Every column holds codes, places in the tuple of values that its field can have. So a field of any type is a
    small integer, and rows that agree in some fields are found by sorting.
    """

    base: Plan
    choices: Mapping[str, tuple[Any, ...]]
    """Values of each field of Plan that differs between rows."""
    codes: Mapping[str, NDArray[np.int16]]
    """Place of each row's value in `choices`, by field; shape [rows]."""

    @property
    def num_rows(self) -> int:
        """Number of plans."""
        return len(next(iter(self.codes.values())))

    def plan(self, row: int) -> Plan:
        """One row as a plan."""
        return replace(
            self.base, **{name: self.choices[name][int(self.codes[name][row])] for name in self.codes}
        )

    def column(self, name: str) -> NDArray[Any]:
        """Values of one field, shape [rows]; numbers as int64, None among them as -1, anything else as objects.

        A field that all rows share is a column too.
        """
        values = self.choices.get(name, (getattr(self.base, name),))
        numbers = all(value is None or isinstance(value, int) for value in values)
        array: NDArray[Any]
        if numbers:
            array = np.array([-1 if value is None else int(value) for value in values], np.int64)
        else:
            array = np.empty(len(values), object)
            array[:] = values
        if name not in self.codes:
            return np.repeat(array, self.num_rows)
        return array[self.codes[name]]

    def take(self, rows: NDArray[Any]) -> "PlanTable":
        """The rows of a mask or of an index array."""
        return PlanTable(self.base, self.choices, {name: codes[rows] for name, codes in self.codes.items()})

    def groups(self, fields: Sequence[str]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows that agree in `fields`: (one row of each group, group of every row)."""
        key = np.zeros(self.num_rows, np.int64)
        for name in fields:
            if name in self.codes:
                key = key * len(self.choices[name]) + self.codes[name]
        _, first, group = np.unique(key, return_index=True, return_inverse=True)
        return first, group

    def by_key(
        self, fields: Sequence[str], function: Callable[[Plan], float | Sequence[float]]
    ) -> NDArray[np.float64]:
        """Figures that depend on some fields only, worked out once for each combination of these.

        Shape [rows], or [rows, n] where `function` gives n figures.
        """
        first, group = self.groups(fields)
        return np.array([function(self.plan(int(row))) for row in first], np.float64)[group]
