"""What is searched: a model on so many devices of a machine under a stack, within constraints."""

from dataclasses import dataclass, field
from pathlib import Path

from towtank.autotune.space.constraints import Constraints
from towtank.hardware_profiles.records import Machine
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.stacks.records import Stack


@dataclass(frozen=True, slots=True)
class TuningTask:
    """One question to the search. Every plan of its space occupies exactly `devices`."""

    model: ModelSpec
    machine: Machine
    stack: Stack
    devices: int
    global_batch: int
    """Sequences of one step."""
    sequence: int | None = None
    """Tokens of one sequence. None: the model's."""
    constraints: Constraints = field(default_factory=Constraints)
    profile_dirs: tuple[Path, ...] = ()
