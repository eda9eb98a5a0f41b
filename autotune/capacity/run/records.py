"""What a training run consists of and what came of it. Times in seconds, rates in events per second."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

CheckpointMode = Literal["sync", "async", "lazy"]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive steps that take the same time, such as those of one batch size of a ramp-up."""

    steps: int
    step_time_s: float


@dataclass(frozen=True, slots=True)
class FailureCause:
    """Something that stops the job at random, with exponentially distributed times between events."""

    name: str
    per_node_s: float = 0.0
    """Rate of one node that is in use."""
    per_job_s: float = 0.0
    """Rate of the job whatever its size, such as errors of its software."""
    breaks_node: bool = True
    """Whether a node has to be repaired before it is used again."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What happens after a failure."""

    detection_s: float = 0.0
    """From the failure until the job is stopped; a hang is found by a timeout."""
    restart_s: float = 0.0
    """From the stop until the first step: start of processes, communicators, loading the checkpoint."""
    spare_nodes: int = 0
    """Nodes of the allocation that wait for one to break (hot spares)."""
    repair_s: float = 0.0
    """Until a broken node, or another in its place, is there again."""
    elastic_nodes: int | None = None
    """Nodes of one data-parallel replica that the job can do without: it goes on with so many fewer, more slowly,
    until the broken one is back. None: it waits for a node."""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Saving the state. `sync` stops the job until all is written; `async` until all is copied to host memory; `lazy`
    hides that copy under the forward and backward passes, during which weights do not change (DataStates-LLM,
    arXiv 2406.10707), and stops the job for what does not fit under them."""

    interval_steps: int
    mode: CheckpointMode = "sync"
    write_s: float = 0.0
    """Until the state lies on storage: bytes over the bandwidth, and the time of metadata."""
    copy_s: float = 0.0
    """Until the state lies in host memory; sync does not use it."""
    hidden_s: float = 0.0
    """Part of a step during which the weights do not change, under which lazy copies run."""

    @property
    def blocking_s(self) -> float:
        """How long a checkpoint stops the job where no earlier one is still being written."""
        if self.mode == "sync":
            return self.write_s
        return self.copy_s if self.mode == "async" else max(0.0, self.copy_s - self.hidden_s)


@dataclass(frozen=True, slots=True)
class Allocation:
    """How the centre gives nodes: jobs of limited length, one after the other."""

    limit_s: float | None = None
    """Wall-clock limit of one job; None: none."""
    queue_s: float = 0.0
    """Mean wait for a job to begin, exponentially distributed."""
    start_s: float = 0.0
    """From the beginning of a job until its first step."""


@dataclass(frozen=True, slots=True)
class Maintenance:
    """Planned standstill of the machine."""

    every_s: float
    lasts_s: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Pause of training for an evaluation."""

    every_steps: int
    lasts_s: float


@dataclass(frozen=True, slots=True)
class Stragglers:
    """Nodes that become slow without breaking, and so slow the whole job until somebody notices."""

    per_node_s: float
    slowdown: float
    """Step time with a slow node over that without; above 1."""
    detection_s: float


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """A whole training run on a machine."""

    nodes: int
    stretches: tuple[Stretch, ...]
    checkpoints: Checkpoints
    causes: tuple[FailureCause, ...] = ()
    recovery: Recovery = Recovery()
    allocation: Allocation = Allocation()
    maintenance: Maintenance | None = None
    evaluation: Evaluation | None = None
    stragglers: Stragglers | None = None

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return sum(stretch.steps for stretch in self.stretches)

    @property
    def training_s(self) -> float:
        """Time of all steps, each done once and undisturbed."""
        return sum(stretch.steps * stretch.step_time_s for stretch in self.stretches)

    @property
    def failures_per_s(self) -> float:
        """Rate at which the job is stopped by any cause."""
        return sum(cause.per_node_s * self.nodes + cause.per_job_s for cause in self.causes)


PARTS = (
    "training", "fewer nodes", "lost work", "checkpoint", "detection", "restart", "waiting for a node", "stragglers",
    "evaluation", "start of jobs", "queue", "maintenance",
)  # fmt: skip
"""On what the time of a run is spent; the parts of an outcome add up to its elapsed time. `training` is that of
every step once and at full speed; `fewer nodes` is what elastic steps took longer."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What came of one simulated run."""

    elapsed_s: float
    parts_s: Mapping[str, float]
    """Time by what it was spent on, of PARTS."""
    interruptions: Mapping[str, int]
    """Failures by cause."""
    checkpoints: int
    jobs: int
    """Allocations that were used."""
    allocated_s: float
    """Time during which nodes were held, spares included."""

    @property
    def goodput(self) -> float:
        """Time of the steps that counted over the time that the nodes were held."""
        return self.parts_s["training"] / self.allocated_s

    @property
    def num_interruptions(self) -> int:
        """Failures of all causes."""
        return sum(self.interruptions.values())
