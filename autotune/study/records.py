"""What a study tries and what comes out: parameters, measures, the objective. Nothing here knows Optuna."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Literal, Protocol

from towtank.autotune.errors import TuningError

Value = str | int | float | bool
Parameters = Mapping[str, Value]
"""One configuration as a sampler proposes it: a value for every parameter of the space."""


class StudyError(TuningError):
    """A study cannot be opened, continued or run as asked; the message says why and what to do."""

    def __init__(self, *faults: str) -> None:
        super().__init__(faults, "study")


class RefusedError(ValueError):
    """Parameters make no legal configuration. It is never recorded as a trial."""


class TrialError(RuntimeError):
    """A legal configuration could not be measured. It is recorded with the reason and not tried again."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values without order."""

    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from `least` to `most`, both included."""

    least: int
    most: int
    logarithmic: bool = False


@dataclass(frozen=True, slots=True)
class Real:
    """A real number from `least` to `most`."""

    least: float
    most: float
    logarithmic: bool = False


Parameter = Choice | Whole | Real


@dataclass(frozen=True, slots=True)
class Measure:
    """What is measured of a trial and which way is better."""

    name: str
    direction: Literal["minimize", "maximize"]
    unit: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one trial gave."""

    values: tuple[float, ...]
    """One figure for each measure of the objective, in its unit."""
    constraints: Mapping[str, float]
    """Figures that must not be above 0, by name."""

    @property
    def feasible(self) -> bool:
        """Whether every constraint is kept."""
        return all(value <= 0 for value in self.constraints.values())


class Objective(Protocol):
    """What a study tries: plans that are simulated, tiles of kernels, or real runs.

    Parameters that come to the same configuration have the same name; a name is tried once in a study, however many
    workers there are.
    """

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What is measured; with more than one a study looks for a Pareto front."""

    @property
    def space(self) -> Mapping[str, Parameter]:
        """What a sampler may choose."""

    @property
    def seeds(self) -> Sequence[Parameters]:
        """Configurations to try first, best first."""

    def identity(self) -> Mapping[str, Any]:
        """What makes this objective this one, as JSON; only the same identity continues a study."""

    def name_of(self, parameters: Parameters) -> str:
        """Name of the configuration.

        Raises:
            RefusedError: the parameters make no legal configuration.
        """

    def evaluate(self, parameters: Parameters) -> Outcome:
        """Measure the configuration.

        Raises:
            TrialError: it cannot be measured.
        """


@dataclass(frozen=True, slots=True)
class Settings:
    """How a study runs."""

    trials: int
    """Configurations in total, those of earlier runs of the study and of other workers counted."""
    sampler: str = "tpe"
    seed: int = 0
    lease_s: float = 60.0
    """A worker on another node whose sign of life has not changed for so long is taken for dead."""

    def __post_init__(self) -> None:
        """Check the figures.

        Raises:
            StudyError: everything that is wrong with them.
        """
        faults = [f"trials = {self.trials}, but it must be 1 or more"] if self.trials < 1 else []
        if not 1 <= self.lease_s < inf:
            faults.append(f"lease = {self.lease_s:g} s, but it must be a time of 1 s or more")
        if faults:
            raise StudyError(*faults)


@dataclass(frozen=True, slots=True)
class StudyCounts:
    """What has become of the configurations of a study."""

    complete: int
    infeasible: int
    """Of those, how many break a constraint, such as memory."""
    failed: int
    running: int
    waiting: int
    retried: int
    """Configurations that were begun again because their worker died."""

    @property
    def finished(self) -> int:
        """Configurations that nobody has to try again."""
        return self.complete + self.failed


@dataclass(frozen=True, slots=True)
class Finished:
    """One configuration that was measured."""

    number: int
    """Number of the trial in the study."""
    name: str
    parameters: Parameters
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class StudyResult:
    """What a study has found so far."""

    name: str
    measures: tuple[Measure, ...]
    counts: StudyCounts
    best: tuple[Finished, ...]
    """Feasible configurations: best first, or the Pareto front where there are several measures."""
    exhausted: bool
    """Whether the sampler found no further configuration that was not tried."""
