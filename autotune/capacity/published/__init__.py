"""Device-hours of whole training runs as published, each with its source."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from towtank.autotune.capacity.errors import CapacityError
from towtank.hardware_profiles.files import StrictLoader
from towtank.simulator.edge import read_record

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class PublishedTotal:
    """What a whole training run took."""

    group: str
    """Runs of the same people with the same software."""
    model: str
    machine: str
    devices: int
    tokens: float
    device_hours: float
    global_batch: int
    """Sequences of a step."""
    stack: str
    """Stack whose software is nearest to that of the run."""
    why_stack: str
    source: str
    plan: dict[str, Any] | None = None
    """The published plan; None: not published, so the tuned one is predicted."""
    known: dict[str, Any] = field(default_factory=dict)
    """Fields of the plan that are known where not all are; the others are tuned."""
    failures: str | None = None
    """Published failure rates that are taken by analogy."""
    storage_write: str | None = None
    """Bandwidth of storage as text with a unit."""
    spare_nodes: int | None = None
    counted: Literal["held", "steps"] = "held"
    """Whether the hours are those of held devices, or of logged steps alone."""
    assumed: list[str] = field(default_factory=list)
    """What was not published and is assumed."""


@dataclass(frozen=True, slots=True)
class Totals:
    """All published totals, and those that cannot be predicted with the reason."""

    runs: Mapping[str, PublishedTotal]
    not_predicted: Mapping[str, str]


@cache
def published_totals() -> Totals:
    """The totals by name.

    Raises:
        CapacityError: the file breaks its rules.
    """
    document = yaml.load((_FOLDER / "totals.yaml").read_text(encoding="utf-8"), Loader=StrictLoader)
    runs, faults = {}, []
    for name, data in document["runs"].items():
        runs[name], found = read_record(PublishedTotal, data)
        faults += [f"{name}: {fault}" for fault in found]
    if faults:
        raise CapacityError(faults)
    return Totals(runs, document["not_predicted"])
