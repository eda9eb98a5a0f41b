"""Samples of kernels and collectives from measured steps of the executor: the operations of a Program, timed."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from towtank.executor.calibrate.fit import Sample
from towtank.hardware_profiles.calibrated.records import (
    Calibration,
    CollectiveTimes,
    collective_seconds,
)
from towtank.simulator.cost.calibrated import features_of, kernel_of, load_of
from towtank.simulator.groups import place
from towtank.simulator.lowering.weights import gradient_norm_work, optimizer_work, stage_weights
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.operations import Message, Work
from towtank.simulator.plan import Plan
from towtank.simulator.program import Program, lower
from towtank.simulator.record import StepRecord
from towtank.simulator.stacks.records import Stack

if TYPE_CHECKING:
    from towtank.simulator.operations import Elementwise

STEP_WEIGHT = 4.0
"""Weight of a sample from a step over one from a sweep: steps are what is predicted."""


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """A measured step and what ran."""

    model: ModelSpec
    plan: Plan
    stack: Stack
    step: StepRecord
    precision: str
    threads: int


@dataclass(frozen=True, slots=True)
class CollectiveSample:
    """Seconds of one call of a collective in a step."""

    collective: str
    size: int
    processes: int
    message_bytes: float
    seconds: float


def works_of(program: Program) -> dict[str, Work]:
    """Work of every operation of the passes by its full name in a record."""
    found: dict[str, Work] = {}
    for stages in (program.forward, program.backward):
        for chunks in stages:
            for block in chunks:
                found |= {name: operation.work for name, operation in block.operations()}
    return found


def _alike(run: MeasuredRun) -> bool:
    """Whether all processes are at work all the time: the only steps whose load is that of a sweep."""
    return run.plan.pipeline == 1


def kernel_samples(run: MeasuredRun) -> list[Sample]:
    """Compute operations of a step. Time under no name counts equally with each call of the passes."""
    if not _alike(run):
        return []
    program = lower(run.model, run.plan, run.stack)
    works, share = works_of(program), run.plan.num_micro_batches / run.plan.pipeline
    named = {each.name: each for each in run.step.operations}
    calls = {name: work for name, work in works.items() if name in named and named[name].seconds > 0}
    unnamed = named["unnamed"].seconds if "unnamed" in named else 0.0
    glue_s = unnamed / max(1.0, len(calls) * share)
    samples = [
        _sample(work, run, named[name].seconds / share + glue_s)
        for name, work in calls.items()
        if not isinstance(work, Message)
    ]
    return [*(sample for sample in samples if sample is not None), *_end_samples(run, program)]


def _sample(work: Work, run: MeasuredRun, seconds: float) -> Sample | None:
    assert not isinstance(work, Message)
    features = features_of(work, run.precision)
    if not any(features.values()):
        return None
    return Sample(
        kernel_of(work), run.precision, run.threads, run.plan.num_devices, features, seconds, STEP_WEIGHT
    )


def _end_samples(run: MeasuredRun, program: Program) -> Iterator[Sample]:
    """Optimizer and gradient norm, summed over the names they have."""
    by_kind: dict[str, float] = defaultdict(float)
    for each in run.step.operations:
        by_kind[each.kind] += each.seconds
    weights = stage_weights(program.sizes, program.chunks[0])
    ends: dict[str, Elementwise] = {
        "optimizer": optimizer_work(program.sizes, weights),
        "gradient norm": gradient_norm_work(program.sizes, weights),
    }
    for kind, work in ends.items():
        if by_kind[kind] > 0:
            sample = _sample(work, run, by_kind[kind])
            assert sample is not None
            yield replace(sample, weight=STEP_WEIGHT * 8)


def collective_samples(run: MeasuredRun) -> list[CollectiveSample]:
    """Collectives of the passes of a step, with what their members wait for each other."""
    if not _alike(run):
        return []
    works = works_of(lower(run.model, run.plan, run.stack))
    share, processes = run.plan.num_micro_batches / run.plan.pipeline, run.plan.num_devices
    found = []
    for each in run.step.operations:
        work = works.get(each.name)
        if isinstance(work, Message) and each.seconds > 0:
            size = place(run.plan, work.group, processes).size
            found.append(CollectiveSample(work.collective, size, processes, work.bytes, each.seconds / share))
    return found


def with_waits(calibration: Calibration, samples: Sequence[CollectiveSample]) -> tuple[CollectiveTimes, ...]:
    """Tables with what members of a group wait for each other in steps: median of measured less swept time.

    One figure for each number of members and processes, as far as steps were measured; never below 0.
    """
    late: dict[tuple[int, int], list[float]] = defaultdict(list)
    for each in samples:
        swept = collective_seconds(
            calibration, each.collective, each.size, each.processes, each.message_bytes
        )
        late[each.size, each.processes].append(each.seconds - swept)
    waits = {key: max(0.0, median(values)) for key, values in late.items()}
    return tuple(_later(row, waits) for row in calibration.collectives)


def _later(row: CollectiveTimes, waits: Mapping[tuple[int, int], float]) -> CollectiveTimes:
    wait = waits.get((row.size, row.processes), 0.0)
    return replace(row, seconds=tuple(each + wait for each in row.seconds))


def load(run: MeasuredRun) -> float:
    """Processes at work at once in a run."""
    return load_of(run.plan, run.plan.num_devices)
