"""StepRecord: one training step, predicted or measured. The same type and the same operation names for both."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class OperationTime:
    """One operation of the Program over a whole step on an average device."""

    name: str
    kind: str
    phase: str
    seconds: float
    """Time that it runs, hidden or not."""
    exposed_s: float
    """Part of it that the compute stream spends in it or waits for it."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one step took. A published table fills only the totals."""

    origin: Literal["predicted", "measured"]
    step_time_s: float
    breakdown_s: Mapping[str, float]
    """Mean over devices, by kind; sums to the step time."""
    operations: tuple[OperationTime, ...] = ()
    peak_memory_bytes: float | None = None
