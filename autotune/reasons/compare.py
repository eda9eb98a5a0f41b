"""Two predicted steps side by side."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from towtank.autotune.reasons.neighbours import change
from towtank.simulator.plan_file import plan_to_mapping
from towtank.simulator.predict import Prediction


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity of both steps."""

    name: str
    a: float
    b: float

    @property
    def difference(self) -> float:
        """b - a."""
        return self.b - self.a


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows of two steps, those first of which either has most."""

    changes: str
    """Fields of the plan in which they differ, such as `tensor_x 8 -> 4, data 8 -> 16`."""
    seconds: tuple[Row, ...]
    """By operation kind (rows of the breakdowns); the columns sum to the steps."""
    memory_bytes: tuple[Row, ...]
    """Of the fullest stage of each by what holds it; the columns sum to the peaks."""
    totals: tuple[Row, ...]
    """Figures of the whole step, named as in the JSON of a prediction."""


def compare(a: Prediction, b: Prediction) -> Comparison:
    """Put two steps side by side, whatever their models, machines and stacks."""
    totals = (
        "step_time_s", "bound_s", "tokens_per_step", "tokens_per_s", "mfu", "hfu", "flop_per_s_per_device",
        "executed_flop_per_s_per_device", "peak_memory_bytes", "memory_capacity_bytes",
    )  # fmt: skip
    return Comparison(
        changes=change(a.plan, b.plan, a.stack, b.stack),
        seconds=_rows(a.breakdown_s, b.breakdown_s),
        memory_bytes=_rows(a.peak_stage.parts, b.peak_stage.parts),
        totals=(
            Row("devices", a.plan.num_devices, b.plan.num_devices),
            *(Row(name, getattr(a, name), getattr(b, name)) for name in totals),
        ),
    )


def _rows(a: Mapping[str, float], b: Mapping[str, float]) -> tuple[Row, ...]:
    rows = [Row(name, a.get(name, 0.0), b.get(name, 0.0)) for name in dict.fromkeys((*a, *b))]
    return tuple(sorted(rows, key=lambda row: -max(row.a, row.b)))


def comparison_to_mapping(a: Prediction, b: Prediction) -> dict[str, Any]:
    """Both steps and their differences as plain data, in SI units; `difference` is b - a."""
    found = compare(a, b)
    return {
        "schema": 1,
        "a": _subject(a),
        "b": _subject(b),
        "changes": found.changes,
        "totals": {row.name: _triple(row) for row in found.totals},
        "breakdown_s": {
            row.name: _triple(row) | {"share_a": row.a / a.step_time_s, "share_b": row.b / b.step_time_s}
            for row in found.seconds
        },
        "memory_bytes": {row.name: _triple(row) for row in found.memory_bytes},
    }


def _triple(row: Row) -> dict[str, float]:
    return {"a": row.a, "b": row.b, "difference": row.difference}


def _subject(prediction: Prediction) -> dict[str, Any]:
    return {
        "model": prediction.model.name,
        "machine": prediction.machine.name,
        "stack": prediction.stack.name,
        "plan": plan_to_mapping(prediction.plan),
        "fits": prediction.fits,
        "peak_memory_stage": prediction.peak_stage.stage,
    }
