"""What a run is asked for, and what comes of it: plain data that goes from one process to another."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from towtank.executor.goldfish import Goldfish
from towtank.executor.measured.run_record import MeasuredStep, RunRecord
from towtank.executor.settings import RunSettings


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A run: how it trains, on what, and what it leaves behind."""

    settings: RunSettings
    model: str
    """Name or file, for the record."""
    stack: str
    plan: Mapping[str, Any]
    """As in a plan file, for the record."""
    data: Path | None = None
    """Text file or folder; None: synthetic."""
    goldfish: Goldfish | None = None
    records: bool = False
    """Whether to time operations."""
    trace: Path | None = None
    """Where to write the timeline of the last step."""
    warm_up: int | None = None
    """Steps that are not measured; None: a fifth, at most five."""
    checkpoint: Path | None = None
    """Folder of checkpoints."""
    save_every: int | None = None
    """Steps between checkpoints; None: at the end and on SIGTERM only."""
    resume: bool = False
    threads: int | None = None
    """CPU threads of a process; None: the cores of the machine over its processes."""
    quiet: bool = False
    """Whether to leave progress out."""
    peak_flop_per_s: float | None = None
    """Of one device, to express the speed as MFU."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What rank 0 says at the end."""

    ended: Literal["finished", "terminated"]
    """All steps done, or ended early by SIGTERM."""
    first_step: int
    """Steps done before, in the run that this one goes on from."""
    steps: tuple[MeasuredStep, ...]
    threads: int
    record: RunRecord | None = None
    saved: Path | None = None
    """Last checkpoint."""
    peak_memory_bytes: float | None = None
    """Of the rank that needed most."""
    warm_up: int = 0
    """First steps that do not count in means."""

    @property
    def median_step_s(self) -> float | None:
        """Seconds of the median step after the warm-up; None where no step was done."""
        if self.record is not None:
            return self.record.step.step_time_s
        seconds = [one.seconds for one in self.steps[self.warm_up :]]
        return median(seconds) if seconds else None
