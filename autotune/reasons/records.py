"""What is said of a plan that was not chosen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["illegal", "does not fit", "slower", "as fast", "faster"]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a plan lost, in words and in figures; those that do not apply are empty."""

    verdict: Verdict
    text: str
    """One sentence without a full stop."""
    rules: tuple[str, ...] = ()
    """Rules that an illegal plan breaks, each with what to do."""
    missing_bytes: float = 0.0
    """Bytes per device by which the fullest stage exceeds the device's memory."""
    stage: int | None = None
    """That stage."""
    parts_bytes: Mapping[str, float] = field(default_factory=dict)
    """Its memory in bytes per device by what holds it, the largest first."""
    step_time_s: float | None = None
    """Predicted step of the plan, where it was predicted."""
    difference_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds a step more (or, below 0, less) than the winner by row of the breakdown, the largest first; their sum
    is the difference of the steps."""
