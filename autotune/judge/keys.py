"""Rows that agree in what a figure depends on: the scalar code of the simulator runs once for each such group."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.space.table import PlanTable
from towtank.simulator.plan import Plan

Codes = tuple[NDArray[np.integer], int]
"""A column as codes from 0 to below a count."""

_LARGEST_KEY = 1 << 22
"""Keys below this are numbered through a look-up table, in a time that grows with the rows alone; larger ones are
sorted."""


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Groups of rows: `first` [groups] is one row of each, `group` [rows] the group of each row."""

    first: NDArray[np.intp]
    group: NDArray[np.intp]


@contextmanager
def collector_paused() -> Iterator[None]:
    """Without garbage collection, which looks at all of hundreds of thousands of new tuples again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def compressed(values: NDArray[np.integer]) -> Codes:
    """Integers of 0 or more as codes without gaps, in the order of the integers."""
    if not len(values):
        return values, 1
    largest = int(values.max())
    if largest >= _LARGEST_KEY:
        found, codes = np.unique(values, return_inverse=True)
        return codes, len(found)
    seen = np.zeros(largest + 1, np.bool_)
    seen[values] = True
    numbers = np.cumsum(seen, dtype=np.int32) - 1
    return numbers[values], int(numbers[-1]) + 1


def grouped(columns: Sequence[Codes]) -> Groups:
    """Rows that agree in all columns."""
    key: NDArray[np.integer] = np.zeros(len(columns[0][0]), np.int64)
    size = 1
    for codes, count in columns:
        if count == 1:
            continue
        if size * count >= _LARGEST_KEY:
            key, size = compressed(key)
        key, size = key.astype(np.int64) * count + codes, size * count
    group, size = compressed(key)
    first = np.zeros(size, np.intp)
    first[group[::-1]] = np.arange(len(group), dtype=np.intp)[::-1]
    return Groups(first, group.astype(np.intp))


class Columns:
    """What keys are made of: fields of the plans as codes, and integers worked out from several fields."""

    def __init__(self, table: PlanTable) -> None:
        self.table = table
        self._numbers: dict[str, NDArray[np.int64]] = {}

    def number(self, name: str) -> NDArray[np.int64]:
        """A field as integers, shape [rows]."""
        if name not in self._numbers:
            self._numbers[name] = self.table.column(name)
        return self._numbers[name]

    def column(self, name: str) -> NDArray[Any]:
        """A field of any type, shape [rows]."""
        return self.table.column(name)

    def codes(self, name: str) -> Codes:
        """A field as codes."""
        if name not in self.table.codes:
            return np.zeros(self.table.num_rows, np.int8), 1
        return self.table.codes[name], len(self.table.choices[name])

    def fields(self, *names: str) -> list[Codes]:
        """Several fields as codes."""
        return [self.codes(name) for name in names]

    def derived(self, names: Sequence[str], function: Callable[[Plan], int]) -> NDArray[np.int64]:
        """An integer that depends on a few fields, shape [rows]."""
        groups = grouped(self.fields(*names))
        values = [function(self.table.plan(int(row))) for row in groups.first]
        return np.array(values, np.int64)[groups.group]

    def evaluated(
        self, names: Sequence[str], function: Callable[[Plan], Sequence[float]], *more: Codes
    ) -> NDArray[np.float64]:
        """Figures that depend on some fields and on `more` columns, worked out once for each combination of these.

        Shape [rows, figures].
        """
        groups = grouped([*self.fields(*names), *more])
        found = [function(self.table.plan(int(row))) for row in groups.first]
        return np.array(found, np.float64).reshape(len(groups.first), -1)[groups.group]


def masked(values: NDArray[np.int64], where: NDArray[np.bool_]) -> Codes:
    """Integers as codes where they matter; all alike elsewhere."""
    return compressed(np.where(where, values + 1, 0))
