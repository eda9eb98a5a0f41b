"""What is asked of a capacity plan."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from towtank.autotune.capacity.run.records import CheckpointMode, Evaluation, Maintenance, Stragglers

RESTART_S = 600.0
"""To start a large job again, where nobody says how long it takes."""


@dataclass(frozen=True, slots=True)
class Operation:
    """How the run is operated. None: what is known of the machine; where nothing is, it is left out and said so."""

    failures_per_node_day: float | None = None
    reliability: str | None = None
    """Name of published failure rates."""
    detection_s: float = 120.0
    restart_s: float | None = None
    """None: RESTART_S, which is uncertain."""
    spare_nodes: int | None = None
    """None: as many as are broken at once in all but one of twenty moments, as far as the machine has nodes."""
    repair_s: float = 86400.0
    elastic_nodes: int | None = None
    checkpoint_mode: CheckpointMode = "sync"
    checkpoint_interval_s: float | None = None
    """None: Daly's; where failures or the time of a checkpoint are unknown an hour, or less if they ask for it."""
    storage_bytes_per_s: float | None = None
    storage_files_per_s: float | None = None
    """Files that storage creates in a second; a checkpoint has one of each device. None: the site's, if known."""
    host_bytes_per_s: float | None = None
    """Bandwidth at which one device copies its state to host memory."""
    job_limit_s: float | None = None
    queue_s: float = 0.0
    start_s: float | None = None
    """From the beginning of each job until its first step. None: as long as a restart."""
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


INPUTS = ("step_time", "delivery", "failure_rate", "restart", "storage", "queue")
"""Inputs that a range can be given for. Without one the step time is drawn from its prediction interval, and delivery
(by how much all steps of a run are slower than those that were measured) as fitted to published runs."""

_POWERS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
_COUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:[eE][0-9]{1,2})?)\s*([kMGBT]?)")


def parse_count(text: str) -> float | None:
    """A number above 0 such as 15.6T; None: the text is none."""
    match = _COUNT.fullmatch(text.strip())
    return float(match[1]) * _POWERS[match[2]] or None if match else None
