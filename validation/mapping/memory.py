"""What a source means by peak memory."""

from collections.abc import Sequence

from towtank.simulator.memory import StageMemory
from towtank.validation.mapping.rules import first, table
from towtank.validation.rows import Run

_LEFT_OUT = {
    "device": (),
    "reserved": ("device context",),
    "allocated": ("device context", "fragmentation"),
}
"""Parts of a predicted peak that each kind of figure does not hold."""


def comparable_bytes(run: Run, stages: Sequence[StageMemory]) -> float:
    """Predicted peak in bytes of what the row's source counts: of the fullest stage, or the one that it watched."""
    rule = first(run, table("plans")["memory"])
    assert rule is not None, "the last rule fits everything"
    left_out = _LEFT_OUT[rule["holds"]]
    seen = stages[:1] if rule.get("stage") == "first" else stages
    return max(stage.peak_bytes - sum(stage.parts.get(part, 0.0) for part in left_out) for stage in seen)
