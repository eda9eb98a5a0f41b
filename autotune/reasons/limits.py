"""What limits a step: its seconds in few groups, and what weighs most in each."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from towtank.autotune.reasons.words import exposed, words
from towtank.simulator.plan import Plan
from towtank.simulator.predict import Prediction

COMPUTE, COMMUNICATION, BUBBLE, SLOWED, WAITING = (
    "compute", "exposed communication", "pipeline bubble", "kernels slowed beside collectives", "waiting",
)  # fmt: skip
_GROUPS: Mapping[str, str] = {"bubble": BUBBLE, "contention": SLOWED, "idle": WAITING}


@dataclass(frozen=True, slots=True)
class Limit:
    """A group of rows of the breakdown."""

    name: str
    share: float
    """Part of the step."""
    largest: str
    """Row that weighs most in it, in words."""
    largest_share: float


def limits(prediction: Prediction) -> tuple[Limit, ...]:
    """Groups of a step, the largest first; their shares sum to 1."""
    return limits_of(prediction.breakdown_s, prediction.plan)


def limits_of(breakdown_s: Mapping[str, float], plan: Plan) -> tuple[Limit, ...]:
    """Groups of a breakdown, the largest first."""
    groups: dict[str, dict[str, float]] = defaultdict(dict)
    for kind, seconds in breakdown_s.items():
        groups[_group(kind)][kind] = seconds
    whole = sum(breakdown_s.values())
    found = []
    for name, rows in groups.items():
        largest = max(rows, key=lambda kind: rows[kind])
        found.append(Limit(name, sum(rows.values()) / whole, words(largest, plan), rows[largest] / whole))
    return tuple(sorted(found, key=lambda limit: -limit.share))


def _group(kind: str) -> str:
    if exposed(kind):
        return COMMUNICATION
    return _GROUPS.get(kind, WAITING if kind.startswith("waiting") else COMPUTE)
