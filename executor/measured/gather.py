"""Measurements of all ranks brought to rank 0 and made into one record."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from towtank.executor.measured.combine import RankTimes, combine, middle_steps, rank_times
from towtank.executor.measured.machine_facts import boot, job_facts, machine_facts
from towtank.executor.measured.run_record import MachineFacts, RankRecord
from towtank.executor.measured.spans import StepMeasurement
from towtank.executor.measured.trace import RankTrace
from towtank.simulator.record import StepRecord

_NO_CLOCK = (
    "ranks of several nodes share no clock: waiting for a stage that has not sent yet counts as its send"
)


@dataclass(frozen=True, slots=True)
class Gathered:
    """What rank 0 knows of all ranks."""

    step: StepRecord
    ranks: tuple[RankRecord, ...]
    step_s: tuple[float, ...]
    """Seconds of every step after the warm-up, mean over devices."""
    machine: MachineFacts
    notes: tuple[str, ...]


def warm_up_of(steps: int) -> int:
    """Steps to leave out where nobody says: a fifth, at least one and at most five; none of a single step."""
    return 0 if steps < 2 else min(5, max(1, steps // 5))


def gather(
    steps: Sequence[StepMeasurement], warm_up: int, peak_memory_bytes: float | None
) -> Gathered | None:
    """Combine the steps after the warm-up of all ranks; every rank must call it, and all but rank 0 get None."""
    kept = list(steps[warm_up:])
    everybody = _all_gather([one.seconds for one in kept])
    chosen, median_s = middle_steps(everybody)
    own = rank_times(_rank(), [kept[index] for index in chosen], peak_memory_bytes)
    found: list[tuple[RankTimes, str, MachineFacts]] = _all_gather((own, boot(), machine_facts()))
    if _rank() != 0:
        return None
    shared_clock = len({name for _, name, _ in found}) == 1
    step, ranks = combine([times for times, _, _ in found], median_s, shared_clock=shared_clock)
    machine, notes = job_facts([(name, facts) for _, name, facts in found])
    if not shared_clock and any(any(times.waits) for times, _, _ in found):
        notes = (*notes, _NO_CLOCK)
    means = tuple(sum(one) / len(one) for one in zip(*everybody, strict=True))
    return Gathered(step, ranks, means, machine, notes)


def _distributed() -> Any:
    """torch.distributed, or None in a run of one process."""
    import torch.distributed

    return torch.distributed if torch.distributed.is_initialized() else None


def _rank() -> int:
    distributed = _distributed()
    return 0 if distributed is None else int(distributed.get_rank())


def _all_gather(own: Any) -> list[Any]:
    """What every rank has, in order of ranks."""
    distributed = _distributed()
    if distributed is None:
        return [own]
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, own)
    return found


def gather_traces(step: StepMeasurement) -> list[RankTrace]:
    """The timeline of one step of all ranks; every rank calls it, and all but rank 0 get nothing."""
    own = RankTrace(_rank(), step.number, step.start_s, step.seconds, step.slices)
    found: list[RankTrace] = _all_gather(own)
    return found if _rank() == 0 else []


def peak_of_all(peak_memory_bytes: float | None) -> tuple[float | None, bool]:
    """The largest peak of all ranks, None if one does not know its own; and whether this is rank 0."""
    found: list[float | None] = _all_gather(peak_memory_bytes)
    known = [one for one in found if one is not None]
    return (max(known) if len(known) == len(found) else None), _rank() == 0
