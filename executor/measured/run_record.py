"""The record of a run: one measured step, and where it comes from. A versioned JSON file with a strict reader."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from towtank.executor.errors import RecordError
from towtank.simulator.record import OperationTime, StepRecord

SCHEMA: Final = 1
_FAULTS_SHOWN: Final = 12


@dataclass(frozen=True, slots=True)
class RunFacts:
    """How a run was made, beyond its plan."""

    devices: int
    device_type: str
    """cpu or cuda."""
    dtype: str
    threads: int | None
    """CPU threads of each process; None where nobody set them."""
    seed: int
    steps: int
    """Steps that were measured."""
    warm_up: int
    """Steps before these, left out."""
    tokens_per_step: int


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """The machine that was measured, without its name: parts that decide how fast it is, and a hash of them."""

    fingerprint: str
    processor: str
    cores: int
    memory_bytes: int
    devices: tuple[str, ...] = ()
    """Names of the accelerators of one node."""
    nodes: int = 1


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """One step of the run."""

    number: int
    seconds: float
    """Mean over devices."""
    loss: float
    gradient_norm: float | None = None


@dataclass(frozen=True, slots=True)
class RankRecord:
    """One device's share of the step: how devices differ."""

    rank: int
    step_time_s: float
    breakdown_s: Mapping[str, float]
    peak_memory_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What was measured, and all that is known of how."""

    schema: int
    towtank: str
    """Version that wrote the file."""
    source: Literal["towtank", "kineto"]
    """Who took the times: our recorder, or the PyTorch profiler in somebody's run."""
    step: StepRecord
    model: str | None = None
    """Name or file, as the run was given it."""
    stack: str | None = None
    plan: Mapping[str, Any] | None = None
    """As in a plan file."""
    run: RunFacts | None = None
    machine: MachineFacts | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[MeasuredStep, ...] = ()
    ranks: tuple[RankRecord, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader must know of these times."""


_PARTS: Final = (OperationTime, StepRecord, RunFacts, MachineFacts, MeasuredStep, RankRecord, RunRecord)


@cache
def _adapter() -> TypeAdapter[RunRecord]:
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    for part in _PARTS:
        # records stay free of validation; pydantic reads this attribute of a plain dataclass
        setattr(part, "__pydantic_config__", config)  # noqa: B010 (no attribute that a type checker knows)
    return TypeAdapter(RunRecord)


def write_run_record(record: RunRecord, path: Path) -> None:
    """Write a record as JSON; raises OSError where it cannot."""
    path.write_text(json.dumps(asdict(record), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_run_record(path: Path) -> RunRecord:
    """Read a record.

    Raises:
        RecordError: the file cannot be read, is of another schema, or something in it is wrong; all faults at once.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        document = json.loads(text)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: is no JSON: {error}; give the file that `--record` wrote") from error
    _check_schema(path, document)
    try:
        record = _adapter().validate_json(text)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        more = [f"and {len(faults) - _FAULTS_SHOWN} more"] if len(faults) > _FAULTS_SHOWN else []
        listed = "; ".join([*faults[:_FAULTS_SHOWN], *more])
        raise RecordError(f"{path}: is no record of a run: {listed}") from error
    if record.step.step_time_s <= 0:
        raise RecordError(
            f"{path}: step.step_time_s is {record.step.step_time_s}; a measured step takes more than 0 seconds"
        )
    return record


def _check_schema(path: Path, document: Any) -> None:
    if not isinstance(document, dict) or "schema" not in document:
        raise RecordError(f"{path}: is no record of a run (no `schema`); give the file that `--record` wrote")
    if document["schema"] != SCHEMA:
        raise RecordError(
            f"{path}: schema {document['schema']!r} is not known; this towtank reads schema {SCHEMA}"
        )
