"""Rules that a training run must keep, so that it ends."""

from towtank.autotune.capacity.errors import CapacityError
from towtank.autotune.capacity.run.records import TrainingJob


def check(job: TrainingJob) -> None:
    """Check a run.

    Raises:
        CapacityError: every rule that is broken.
    """
    faults = [*_sizes(job), *_times(job)]
    if not faults:
        faults = _progress(job)
    if faults:
        raise CapacityError(faults)


def _sizes(job: TrainingJob) -> list[str]:
    values = {
        "nodes": job.nodes,
        "steps": job.steps,
        "checkpoint interval in steps": job.checkpoints.interval_steps,
    }
    if job.evaluation:
        values["evaluation interval in steps"] = job.evaluation.every_steps
    faults = [f"{name} = {value}, but it must be 1 or more" for name, value in values.items() if value < 1]
    elastic = job.recovery.elastic_nodes
    if elastic is not None and not 1 <= elastic < job.nodes:
        faults.append(
            f"elastic_nodes = {elastic}, but it must be 1 or more and less than the {job.nodes} nodes"
        )
    return faults


def _times(job: TrainingJob) -> list[str]:
    values = {
        "step time": min((stretch.step_time_s for stretch in job.stretches), default=0.0),
        **({"wall-clock limit": job.allocation.limit_s} if job.allocation.limit_s is not None else {}),
        **({"maintenance interval": job.maintenance.every_s} if job.maintenance else {}),
    }
    faults = [
        f"{name} = {value:g} s, but it must be more than 0" for name, value in values.items() if value <= 0
    ]
    years = job.training_s / YEAR_S
    if years > MOST_YEARS:
        faults.append(
            f"the steps alone take {years:,.3g} years, and {MOST_YEARS:g} are the most that is simulated; "
            f"use more devices, or fewer tokens"
        )
    if job.stragglers and job.stragglers.slowdown <= 1:
        faults.append(f"slowdown of stragglers = {job.stragglers.slowdown:g}, but it must be more than 1")
    return faults


YEAR_S = 365.25 * 86400.0
MOST_YEARS = 100.0
"""Of training: far beyond any machine, so that no slow draw of a run that is planned for some years is refused."""
MOST_EXPECTED_FAILURES = 7.0
"""Failures between two checkpoints at which a run makes no progress: one interval in e^7 = 1,100 survives."""


def _progress(job: TrainingJob) -> list[str]:
    faults = []
    checkpoints = job.checkpoints
    longest = max(stretch.step_time_s for stretch in job.stretches)
    need = checkpoints.blocking_s + 2 * checkpoints.write_s + longest + job.allocation.start_s
    need += job.evaluation.lasts_s if job.evaluation else 0.0
    for name, limit in (
        ("wall-clock limit", job.allocation.limit_s),
        (
            "time between maintenances",
            job.maintenance.every_s - job.maintenance.lasts_s if job.maintenance else None,
        ),
    ):
        if limit is not None and limit < need:
            faults.append(
                f"{name} = {limit:.0f} s has no room for start, one step and a checkpoint ({need:.0f} s); "
                f"raise it or write faster"
            )
    between = checkpoints.interval_steps * longest + checkpoints.blocking_s + job.recovery.restart_s
    expected = job.failures_per_s * between
    if expected > MOST_EXPECTED_FAILURES:
        faults.append(
            f"{expected:.0f} failures are expected between two checkpoints ({between:.0f} s), so that the run would "
            f"never end; save more often, or use fewer or more reliable nodes"
        )
    return faults + _slow_nodes(job, longest)


def _slow_nodes(job: TrainingJob, step_time_s: float) -> list[str]:
    """Whether a step is done between two slow nodes: each ends in a checkpoint and a restart."""
    if job.stragglers is None:
        return []
    found = job.stragglers
    taken = found.detection_s + 2 * job.checkpoints.write_s + job.recovery.restart_s + step_time_s
    expected = found.per_node_s * job.nodes * taken
    if expected <= MOST_EXPECTED_FAILURES:
        return []
    return [
        f"{expected:.0f} more slow nodes are expected until one is replaced and a step is done ({taken:.0f} s), so "
        f"that the run would never end; lower their rate, or find them sooner"
    ]
