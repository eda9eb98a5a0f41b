"""A measured step beside the predicted one: the same operations, the same rows."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from towtank.executor.measured.combine import BUBBLE, UNNAMED, row_of
from towtank.executor.measured.run_record import RunRecord
from towtank.executor.measured.spans import Key
from towtank.simulator.operations import Phase
from towtank.simulator.predict import Prediction
from towtank.simulator.record import OperationTime, StepRecord

_LAYER: Final = re.compile(r"^(layer|prediction)\.\d+\.")
OUTSIDE: Final = "step"
"""Phase of what is outside of all passes."""
_OUTSIDE_ROWS: Final = frozenset(
    (
        "optimizer", "gradient norm", "exposed gradient reduction data", "exposed parameter all-gather data",
        "exposed send pipeline", "idle", BUBBLE, UNNAMED,
    )
)  # fmt: skip
"""Rows that a prediction has for the step as a whole, not for operations of a pass."""
SLOWED: Final = "contention and waiting for the slowest"
"""Row of what a prediction adds to its operations: they are those of an undisturbed device."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One row of both steps, in seconds on the compute stream (exposed)."""

    name: str
    kind: str
    phase: str
    predicted_s: float | None
    """None: the prediction knows no such operation."""
    measured_s: float | None
    """None: the run had no such operation."""

    @property
    def difference_s(self) -> float:
        """Measured less predicted; a side that is not there counts as nothing."""
        return (self.measured_s or 0.0) - (self.predicted_s or 0.0)


@dataclass(frozen=True, slots=True)
class Differences:
    """Two steps laid beside each other; rows with the largest differences first."""

    step_s: Difference
    peak_memory_bytes: tuple[float, float | None]
    """Predicted, measured."""
    kinds: tuple[Difference, ...]
    """Rows of the breakdown; both columns sum to the steps."""
    operations: tuple[Difference, ...]
    """Operations of passes, and rows for what is outside of them; both columns sum to the steps."""
    unmatched: tuple[int, int]
    """Operations that only the prediction has, and that only the measurement has."""


def differences(prediction: Prediction, record: RunRecord, *, each_layer: bool = False) -> Differences:
    """Lay a measured step beside a predicted one; alike operations of all layers are one row unless `each_layer`."""
    predicted, measured = prediction.record(), record.step
    kinds = _joined(
        {(row, ""): _Sum(row, seconds) for row, seconds in predicted.breakdown_s.items()},
        {(row, ""): _Sum(row, seconds) for row, seconds in measured.breakdown_s.items()},
    )
    operations = _joined(_operations(predicted, each_layer), _operations(measured, each_layer))
    in_pass = [one for one in operations if one.phase != OUTSIDE]
    return Differences(
        Difference("step", "step", "", predicted.step_time_s, measured.step_time_s),
        (prediction.peak_memory_bytes, measured.peak_memory_bytes),
        kinds,
        operations,
        (
            sum(one.measured_s is None for one in in_pass),
            sum(one.predicted_s is None for one in in_pass),
        ),
    )


_Row = tuple[str, str]
"""Name and phase."""


@dataclass(slots=True)
class _Sum:
    """Exposed seconds of a row, and the kind of its first part: a name may have smaller parts of other kinds."""

    kind: str
    seconds: float = 0.0


def _operations(record: StepRecord, each_layer: bool) -> dict[_Row, _Sum]:
    """Exposed seconds by operation. What is outside of passes is under the name of its row, as in the breakdown."""
    found: dict[_Row, _Sum] = {}
    for one in record.operations:
        if _row(one) not in _OUTSIDE_ROWS:
            name = one.name if each_layer else _LAYER.sub(r"\1.*.", one.name)
            found.setdefault((name, one.phase), _Sum(one.kind)).seconds += one.exposed_s
    for row, seconds in record.breakdown_s.items():
        if row in _OUTSIDE_ROWS:
            found[row, OUTSIDE] = _Sum(row, seconds)
    rest = record.step_time_s - sum(one.seconds for one in found.values())
    if abs(rest) > 1e-9 * record.step_time_s:
        found[SLOWED, OUTSIDE] = _Sum(SLOWED, rest)
    return found


def _row(one: OperationTime) -> str:
    return row_of(Key(one.name, one.kind, Phase(one.phase)))


def _joined(predicted: Mapping[_Row, _Sum], measured: Mapping[_Row, _Sum]) -> tuple[Difference, ...]:
    rows = []
    for name, phase in {**predicted, **measured}:
        one, other = predicted.get((name, phase)), measured.get((name, phase))
        kind = next(found.kind for found in (one, other) if found is not None)
        seconds = [None if found is None else found.seconds for found in (one, other)]
        rows.append(Difference(name, kind, phase, *seconds))
    return tuple(sorted(rows, key=lambda row: -abs(row.difference_s)))


def differences_to_mapping(found: Differences, top: int | None = None) -> dict[str, Any]:
    """Plain data in SI units; `difference` is measured less predicted, `top` the number of operations listed."""
    predicted_bytes, measured_bytes = found.peak_memory_bytes
    return {
        "schema": 1,
        "step_time_s": _mapping(found.step_s),
        "peak_memory_bytes": {"predicted": predicted_bytes, "measured": measured_bytes},
        "kinds": [{"name": one.name, **_mapping(one)} for one in found.kinds],
        "operations": [
            {"name": one.name, "kind": one.kind, "phase": one.phase, **_mapping(one)}
            for one in found.operations[:top]
        ],
        "operations_left_out": max(
            0, len(found.operations) - (len(found.operations) if top is None else top)
        ),
        "only_predicted": found.unmatched[0],
        "only_measured": found.unmatched[1],
    }


def _mapping(one: Difference) -> dict[str, Any]:
    relative = one.difference_s / one.predicted_s if one.predicted_s else None
    return {
        "predicted": one.predicted_s,
        "measured": one.measured_s,
        "difference": one.difference_s,
        "relative": relative,
    }


def total(rows: Iterable[Difference]) -> tuple[float, float]:
    """Predicted and measured seconds of several rows."""
    listed = list(rows)
    return sum(one.predicted_s or 0.0 for one in listed), sum(one.measured_s or 0.0 for one in listed)
