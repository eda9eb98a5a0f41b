"""What is asked of a capacity plan."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from towtank.autotune.capacity.run.records import CheckpointMode, Evaluation, Maintenance, Stragglers


@dataclass(frozen=True, slots=True)
class Operation:
    """How the run is operated. None: what is known of the machine; where nothing is, it is left out and said so."""

    failures_per_node_day: float | None = None
    reliability: str | None = None
    """Name of published failure rates."""
    detection_s: float = 120.0
    restart_s: float = 600.0
    spare_nodes: int | None = None
    """None: as many as are broken at once in all but one of twenty moments, as far as the machine has nodes."""
    repair_s: float = 86400.0
    elastic_nodes: int | None = None
    checkpoint_mode: CheckpointMode = "sync"
    checkpoint_interval_s: float | None = None
    """None: Daly's, or one an hour where failures or the time of a checkpoint are unknown."""
    storage_bytes_per_s: float | None = None
    storage_metadata_s: float = 0.0
    host_bytes_per_s: float | None = None
    """Bandwidth at which one device copies its state to host memory."""
    job_limit_s: float | None = None
    queue_s: float = 0.0
    start_s: float = 0.0
    maintenance: Maintenance | None = None
    evaluation: Evaluation | None = None
    stragglers: Stragglers | None = None


@dataclass(frozen=True, slots=True)
class Charges:
    """Money and carbon that the user knows."""

    price_per_device_hour_usd: float | None = None
    carbon_g_per_kwh: float | None = None
    power_usage_effectiveness: float | None = None


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """What is drawn in each simulated run besides the luck of failures."""

    runs: int = 100
    seed: int = 0
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Factors from and to, by input of INPUTS, drawn evenly in their logarithm."""


INPUTS = ("step_time", "failure_rate", "restart", "storage", "queue")
"""Inputs that a range can be given for; the step time is drawn from its prediction interval without one."""
