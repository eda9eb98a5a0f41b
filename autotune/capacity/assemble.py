"""From a predicted step and what is known of a machine to the training run that is simulated."""

from dataclasses import dataclass

from towtank.autotune.capacity.errors import CapacityError
from towtank.autotune.capacity.facts import Reliability, Site, reliability, reliability_of, site_of
from towtank.autotune.capacity.request import RESTART_S, Operation
from towtank.autotune.capacity.run.closed_forms import daly_interval_s
from towtank.autotune.capacity.run.records import (
    Allocation,
    Checkpoints,
    FailureCause,
    Recovery,
    Stretch,
    TrainingJob,
)
from towtank.hardware_profiles.records import Machine

DAY_S = 86400.0
CHECKPOINT_BYTES_PER_PARAMETER = 14.0
"""bf16 weights and fp32 master weights and two moments of AdamW."""
ENOUGH_SPARES = 0.95
"""Share of the time in which the spare nodes that are assumed suffice."""
LOST_INTERVALS = 1 / 20
"""Most failures between two checkpoints where their time is unknown: half of it, 2.5 %, is lost work."""
DEFAULT_INTERVAL_S = 3600.0
"""Time between checkpoints where Daly's cannot be worked out."""


@dataclass(frozen=True, slots=True)
class StepFigures:
    """What a run needs to know of its step."""

    step_time_s: float
    devices: int
    parameters: float
    forward_backward_s: float
    """Time of a step in which weights do not change."""


@dataclass(frozen=True, slots=True)
class Assembled:
    """A run and what it stands on."""

    job: TrainingJob
    assumptions: tuple[str, ...]
    """One sentence for each figure that was chosen, with its source."""
    unknown: tuple[str, ...]
    """What is not counted because nobody knows it, and what to give."""


class _Notes:
    def __init__(self) -> None:
        self.assumptions: list[str] = []
        self.unknown: list[str] = []


def assemble(
    machine: Machine, figures: StepFigures, steps: int, operation: Operation, ramp: tuple[Stretch, ...] = ()
) -> Assembled:
    """The run of so many steps on a machine; `ramp` are the stretches before the batch is full.

    Raises:
        CapacityError: a reliability of that name does not exist, or the machine lacks nodes for the spares.
    """
    notes, site = _Notes(), site_of(machine.name)
    nodes = -(-figures.devices // machine.node.devices)
    causes = _causes(machine, operation, notes)
    write_s = _write_s(figures, machine, operation, notes)
    job = TrainingJob(
        nodes=nodes,
        stretches=(*ramp, Stretch(steps, figures.step_time_s)),
        checkpoints=_checkpoints(figures, nodes, causes, write_s, operation, notes),
        causes=causes,
        recovery=_recovery(
            operation, notes, _spares(machine, nodes, causes, operation, notes), failing=bool(causes)
        ),
        allocation=_allocation(nodes, site, operation, notes),
        maintenance=operation.maintenance,
        evaluation=operation.evaluation,
        stragglers=operation.stragglers,
    )
    return Assembled(job, tuple(notes.assumptions), tuple(notes.unknown))


def observed_rates(observed: Reliability, node_devices: int) -> tuple[FailureCause, ...]:
    """Rates of an observed job on nodes of so many devices: interruptions over device-seconds times the devices of a
    node, or over seconds for those of the job."""
    seconds = observed.days * DAY_S
    node_s = seconds * observed.nodes * observed.node_devices / node_devices
    return tuple(
        FailureCause(
            cause.name,
            per_node_s=cause.interruptions / node_s if cause.scope == "node" else 0.0,
            per_job_s=cause.interruptions / seconds if cause.scope == "job" else 0.0,
            breaks_node=cause.breaks_node,
        )
        for cause in observed.causes
    )


def _causes(machine: Machine, operation: Operation, notes: _Notes) -> tuple[FailureCause, ...]:
    if operation.failures_per_node_day is not None:
        return (FailureCause("failure", operation.failures_per_node_day / DAY_S),)
    name = operation.reliability or reliability_of(machine.device.name)
    if name is None:
        notes.unknown.append(
            f"failures of {machine.name}: nobody has published them, so none are counted; give "
            f"--failures-per-node-day, or --reliability to take those of another machine"
        )
        return ()
    observed = reliability(name)
    notes.assumptions.append(f"as many failures a device as in {observed.description} ({observed.source})")
    return observed_rates(observed, machine.node.devices)


def _write_s(figures: StepFigures, machine: Machine, operation: Operation, notes: _Notes) -> float | None:
    """Seconds until a checkpoint lies on storage: its bytes, and the creation of a file a device; None: unknown."""
    site = site_of(machine.name)
    bandwidth, source = operation.storage_bytes_per_s, "given"
    if bandwidth is None:
        bandwidth, source = site.storage_write_bytes_per_s(), site.sources.get("storage_write", "")
    if bandwidth is None:
        notes.unknown.append(
            "bandwidth of storage: checkpoints count as taking no time; give --storage-bandwidth"
        )
        return None
    sent = machine.node.injection_bytes_per_s
    if sent is not None and sent * (nodes := -(-figures.devices // machine.node.devices)) < bandwidth:
        bandwidth, source = sent * nodes, f"all that the network interfaces of {nodes:,} nodes send"
    size = CHECKPOINT_BYTES_PER_PARAMETER * figures.parameters
    write_s = size / bandwidth
    files = operation.storage_files_per_s or site.storage_files_per_s
    if files is not None:
        write_s += figures.devices / files
        source += f"; {files:,.0f} files a second, one of each device"
    notes.assumptions.append(
        f"a checkpoint is {size / 1e12:.3g} TB (14 bytes a parameter) and written in {write_s:.3g} s ({source})"
    )
    return write_s


def _checkpoints(
    figures: StepFigures,
    nodes: int,
    causes: tuple[FailureCause, ...],
    write_s: float | None,
    operation: Operation,
    notes: _Notes,
) -> Checkpoints:
    mode, copy_s = operation.checkpoint_mode, 0.0
    if mode != "sync":
        if operation.host_bytes_per_s is None:
            notes.unknown.append("time to copy to host memory: counted as none; give --host-bandwidth")
        else:
            size = CHECKPOINT_BYTES_PER_PARAMETER * figures.parameters
            copy_s = size / (figures.devices * operation.host_bytes_per_s)
    made = Checkpoints(1, mode, write_s or 0.0, copy_s, figures.forward_backward_s)
    interval = operation.checkpoint_interval_s
    if interval is None:
        interval = _best_interval_s(made, nodes, causes, notes)
    steps = max(1, round(interval / figures.step_time_s))
    return Checkpoints(steps, mode, made.write_s, copy_s, figures.forward_backward_s)


def _best_interval_s(made: Checkpoints, nodes: int, causes: tuple[FailureCause, ...], notes: _Notes) -> float:
    rate = sum(cause.per_node_s * nodes + cause.per_job_s for cause in causes)
    if rate == 0 or made.write_s == 0:
        interval = DEFAULT_INTERVAL_S if rate == 0 else min(DEFAULT_INTERVAL_S, LOST_INTERVALS / rate)
        notes.assumptions.append(
            f"a checkpoint every {interval / 60:.3g} min (no optimum without failures and time of a checkpoint)"
        )
        return interval
    # checkpoints cannot follow each other faster than they are written
    best = max(daly_interval_s(max(made.blocking_s, 1e-3), 1 / rate), made.write_s)
    notes.assumptions.append(f"a checkpoint every {best / 60:.3g} min (Daly 2006, higher order)")
    return best


def _spares(
    machine: Machine, nodes: int, causes: tuple[FailureCause, ...], operation: Operation, notes: _Notes
) -> int:
    """Spare nodes as asked, else the 95 % quantile of the nodes that are broken at once (Poisson).

    Raises:
        CapacityError: more are asked than the machine has.
    """
    left = None if machine.num_nodes is None else max(0, machine.num_nodes - nodes)
    if operation.spare_nodes is not None:
        if left is not None and operation.spare_nodes > left:
            raise CapacityError(
                [
                    f"{operation.spare_nodes:,} spares, but {machine.name} has {left:,} nodes beside the {nodes:,}"
                ]
            )
        return operation.spare_nodes
    if operation.elastic_nodes is not None:
        return 0
    from scipy.stats import poisson

    mean = operation.repair_s * sum(
        cause.per_node_s * nodes + cause.per_job_s for cause in causes if cause.breaks_node
    )
    # more than all nodes cannot be broken
    spares = int(poisson.ppf(ENOUGH_SPARES, min(mean, nodes))) if mean > 0 else 0
    if left is None or left >= spares:
        return spares
    notes.assumptions.append(
        f"{machine.name} has {left} nodes left where {spares} spares are wanted: the run waits for repairs; "
        f"use fewer devices, or --elastic"
    )
    return left


def _restart_s(operation: Operation) -> float:
    return RESTART_S if operation.restart_s is None else operation.restart_s


def _recovery(operation: Operation, notes: _Notes, spare_nodes: int, *, failing: bool) -> Recovery:
    if failing:
        notes.assumptions.append(
            f"{operation.detection_s:g} s to notice a failure, {_restart_s(operation):g} s to start again, "
            f"{operation.repair_s / 3600:g} h until a broken node is replaced, {spare_nodes} spare nodes "
            f"(--detection, --restart, --repair, --spares)"
        )
    return Recovery(
        operation.detection_s,
        _restart_s(operation),
        spare_nodes,
        operation.repair_s,
        operation.elastic_nodes,
    )


def _allocation(nodes: int, site: Site, operation: Operation, notes: _Notes) -> Allocation:
    limit = operation.job_limit_s
    if limit is None:
        limit = site.limit_s(nodes)
        if limit is not None:
            notes.assumptions.append(f"jobs of at most {limit / 3600:g} h ({site.sources.get('limits', '')})")
    start = _restart_s(operation) if operation.start_s is None else operation.start_s
    return Allocation(limit, operation.queue_s, start)
