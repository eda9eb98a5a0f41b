"""What is searched: a model on so many devices of a machine under a stack, within constraints."""

from dataclasses import dataclass, field
from pathlib import Path

from towtank.autotune.constraints import Constraints
from towtank.hardware_profiles.records import Machine, known
from towtank.simulator.cost.calibrated import stack_on
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
    memory_margin: float = 0.0
    """Share of the predicted peak that stays free: a plan fits where peak x (1 + share) is within the memory."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stack", stack_on(self.machine, self.stack))

    def memory_limit_bytes(self) -> float:
        """Largest predicted peak of a plan that fits, in bytes a device.

        Raises:
            UnknownFigure: the machine's profile lacks the memory of its devices.
        """
        device = self.machine.device
        capacity = known(
            device, "memory_capacity", device.memory_capacity_bytes, needed_for="the check of memory"
        )
        return capacity / (1.0 + self.memory_margin)
