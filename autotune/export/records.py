"""What is exported and what comes out. The message of an error says every reason why a target cannot run a plan."""

from dataclasses import dataclass

from towtank.hardware_profiles.records import Machine
from towtank.simulator.errors import PlanError
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.plan import Plan
from towtank.simulator.stacks.records import Stack

Value = str | int | float | bool
Values = dict[str, Value]
"""Value of each option by our key; a switch that is off is missing or False."""


def is_on(values: Values, key: str) -> bool:
    """Whether an option is written; a value of zero is one."""
    return key in values and values[key] is not False


class ExportError(PlanError):
    """A target cannot run a plan as it was meant; `faults` holds every reason."""


@dataclass(frozen=True, slots=True)
class Job:
    """A plan with everything that it is for."""

    model: ModelSpec
    machine: Machine
    plan: Plan
    stack: Stack
    """Software of the prediction. What the plan leaves to the stack is what this stack does."""
    machine_name: str
    """The machine as the user named it, such as dgx-h100:nodes=64."""

    @property
    def sequence(self) -> int:
        """Tokens of one sequence."""
        return self.plan.sequence if self.plan.sequence is not None else self.model.sequence


@dataclass(frozen=True, slots=True)
class Command:
    """How one process of the job is started."""

    environment: tuple[tuple[str, str], ...]
    setup: tuple[str, ...]
    """Lines of bash before it, such as arrays of arguments."""
    program: str
    """What follows `python`, with its arguments as bash."""
    by_slurm: bool = False
    """Whether processes are started by srun where nobody asked for Slurm; by torchrun otherwise."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of an export."""

    name: str
    """Name that other files of the export call it by."""
    text: str


@dataclass(frozen=True, slots=True)
class Translated:
    """A plan in the words of a target: a command to start, and files that it reads."""

    target: str
    command: Command
    files: tuple[File, ...] = ()
    """Files besides the launch script; the first one is what the target calls its configuration."""
    notes: tuple[str, ...] = ()
    """What the target cannot be told, and that does not change the meaning."""


@dataclass(frozen=True, slots=True)
class Export:
    """Files for a target; the first is the one that the user asked for."""

    target: str
    files: tuple[File, ...]
    warnings: tuple[str, ...]
