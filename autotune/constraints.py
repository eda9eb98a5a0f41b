"""Constraints on plans, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Constraints:
    """What the user fixes, limits or widens, by field of the plan (`overlap.tensor` for a switch)."""

    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Values that a field may have; `--fix tensor_x=8` is one value, `--fix tensor_x=4|8` are two."""
    least: Mapping[str, int] = field(default_factory=dict)
    """Smallest value of a count."""
    most: Mapping[str, int] = field(default_factory=dict)
    """Largest value of a count."""
    free: frozenset[str] = frozenset()
    """Fields with all legal values instead of the usual ones (`--free rank_order`)."""

    def lifts(self, name: str) -> bool:
        """Whether the usual values of a field give way: a field that is fixed or limited has its own."""
        return name in self.fixed or name in self.least or name in self.most or name in self.free

    def within(self, name: str, value: int) -> bool:
        """Whether a count lies between its limits."""
        return self.least.get(name, value) <= value <= self.most.get(name, value)
