"""Constraints on plans, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Constraints:
    """What the user fixes or limits, by field of the plan (`overlap.tensor` for a switch)."""

    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Values that a field may have; `--fix tensor_x=8` is one value, `--fix tensor_x=4|8` are two."""
    least: Mapping[str, int] = field(default_factory=dict)
    """Smallest value of a count."""
    most: Mapping[str, int] = field(default_factory=dict)
    """Largest value of a count."""
