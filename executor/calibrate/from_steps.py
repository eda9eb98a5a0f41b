"""Samples of kernels and collectives from measured steps of the executor: the operations of a Program, timed."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from towtank.executor.calibrate.fit import Sample
from towtank.hardware_profiles.calibrated.records import (
    CollectiveTimes,
    seconds_of,
)
from towtank.simulator.cost.calibrated import features_of, kernel_of
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


Call = tuple[str, str]
"""Full name and phase of an operation: passes forward and backward share names."""


def works_of(program: Program) -> dict[Call, Work]:
    """Work of every operation of the passes, by what it is called in a record."""
    found: dict[Call, Work] = {}
    for stages in (program.forward, program.backward):
        for chunks in stages:
            for block in chunks:
                found |= {
                    (name, str(operation.phase)): operation.work for name, operation in block.operations()
                }
    return found


def load_in(run: MeasuredRun) -> int | None:
    """Processes at work at once, where their number is the same all the time; None where it changes.

    In a pipeline it is only with one micro-batch, which wanders from stage to stage.
    """
    plan = run.plan
    if plan.pipeline == 1:
        return plan.num_devices
    alone = plan.num_devices == plan.pipeline and plan.num_micro_batches * plan.virtual_stages == 1
    return 1 if alone else None


def kernel_samples(run: MeasuredRun) -> list[Sample]:
    """Compute operations of a step. What is under no name of the passes counts equally with each of their calls."""
    processes = load_in(run)
    if processes is None:
        return []
    program = lower(run.model, run.plan, run.stack)
    works, share = works_of(program), run.plan.num_micro_batches / run.plan.pipeline
    named = {(each.name, each.phase): each.seconds for each in run.step.operations if each.seconds > 0}
    calls = [call for call in works if call in named]
    glue_s = sum(s for (name, _), s in named.items() if name == _GLUE) / max(1.0, len(calls) * share)
    samples = [
        _sample(works[call], run, processes, named[call] / share + glue_s)
        for call in calls
        if not isinstance(works[call], Message)
    ]
    ends = _end_samples(run, program) if run.plan.pipeline == 1 else ()
    return [*(sample for sample in samples if sample is not None), *ends]


_GLUE = "unnamed"
"""Operation of a record that the Program does not know: Python between calls."""


def _sample(work: Work, run: MeasuredRun, processes: int, seconds: float) -> Sample | None:
    assert not isinstance(work, Message)
    features = features_of(work, run.precision)
    if not any(features.values()):
        return None
    return Sample(kernel_of(work), run.precision, run.threads, processes, features, seconds, STEP_WEIGHT)


def _end_samples(run: MeasuredRun, program: Program) -> Iterator[Sample]:
    """Optimizer and gradient norm, the sum over all devices apart."""
    by_kind: dict[str, float] = defaultdict(float)
    for each in run.step.operations:
        if not each.name.endswith("all-reduce"):
            by_kind[each.kind] += each.seconds
    weights = stage_weights(program.sizes, program.chunks[0])
    ends: dict[str, Elementwise] = {
        "optimizer": optimizer_work(program.sizes, weights),
        "gradient norm": gradient_norm_work(program.sizes, weights),
    }
    for kind, work in ends.items():
        if by_kind[kind] > 0:
            sample = _sample(work, run, run.plan.num_devices, by_kind[kind])
            assert sample is not None
            yield sample


def collective_samples(run: MeasuredRun) -> list[CollectiveSample]:
    """Blocking collectives of the passes of a step, with what their members wait for each other."""
    if run.plan.pipeline > 1:
        return []
    works = works_of(lower(run.model, run.plan, run.stack))
    share, processes = run.plan.num_micro_batches / run.plan.pipeline, run.plan.num_devices
    found = []
    for each in run.step.operations:
        work = works.get((each.name, each.phase))
        if isinstance(work, Message) and each.seconds > 0:
            size = place(run.plan, work.group, processes).size
            found.append(CollectiveSample(work.collective, size, processes, work.bytes, each.seconds / share))
    return found


def with_waits(
    swept: Sequence[CollectiveTimes], samples: Sequence[CollectiveSample]
) -> tuple[CollectiveTimes, ...]:
    """Tables with what members of a group wait for each other in steps: median of measured less swept time.

    One figure for each number of members and processes, as far as steps were measured; never below 0.
    """
    late: dict[tuple[int, int], list[float]] = defaultdict(list)
    for each in samples:
        alone = seconds_of(swept, each.collective, each.size, each.processes, each.message_bytes)
        late[each.size, each.processes].append(each.seconds - alone)
    waits = {key: max(0.0, median(values)) for key, values in late.items()}
    return tuple(_later(row, waits) for row in swept)


def _later(row: CollectiveTimes, waits: Mapping[tuple[int, int], float]) -> CollectiveTimes:
    wait = waits.get((row.size, row.processes), 0.0)
    return replace(row, seconds=tuple(each + wait for each in row.seconds))
