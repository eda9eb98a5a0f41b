"""Plans as columns: a million of them fit into some tens of megabytes and are judged by numpy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
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

    def take(self, rows: NDArray[Any] | slice) -> "PlanTable":
        """The rows of a mask, of an index array or of a slice."""
        return PlanTable(self.base, self.choices, {name: codes[rows] for name, codes in self.codes.items()})

    def row_of(self, plan: Plan) -> int | None:
        """The row of a plan that is written as the rows of this table are; None where it is not among them."""
        shared = [f.name for f in fields(plan) if f.name not in self.codes]
        if any(getattr(plan, name) != getattr(self.base, name) for name in shared):
            return None
        rows: NDArray[np.intp] | None = None
        for name, codes in self.codes.items():
            value = getattr(plan, name)
            if value not in self.choices[name]:
                return None
            code = self.choices[name].index(value)
            rows = np.flatnonzero(codes == code) if rows is None else rows[codes[rows] == code]
        return int(rows[0]) if rows is not None and len(rows) else None


def united(tables: Sequence[PlanTable]) -> PlanTable:
    """The rows of tables of one task, one after the other."""
    first = tables[0]
    differ = [
        each.name
        for each in fields(first.base)
        if any(getattr(table.base, each.name) != getattr(first.base, each.name) for table in tables)
    ]
    names = list(dict.fromkeys([*(name for table in tables for name in table.codes), *differ]))
    choices: dict[str, tuple[Any, ...]] = {}
    codes: dict[str, NDArray[np.int16]] = {}
    for name in names:
        own = [table.choices.get(name, (getattr(table.base, name),)) for table in tables]
        place = {
            value: code for code, value in enumerate(dict.fromkeys(each for part in own for each in part))
        }
        choices[name] = tuple(place)
        codes[name] = np.concatenate(
            [
                np.array([place[value] for value in part], np.int16)[
                    table.codes[name] if name in table.codes else np.zeros(table.num_rows, np.int16)
                ]
                for table, part in zip(tables, own, strict=True)
            ]
        )
    return PlanTable(first.base, choices, codes)
