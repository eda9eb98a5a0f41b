"""The critical path of a step: the chain of work and transfers, without a gap, that makes it as long as it is."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from towtank.hardware_profiles.records import Device
from towtank.kernels.counts import BYTES_PER_ELEMENT, matmul_bytes, matmul_flop
from towtank.simulator.block_time import HOST, BlockTime, part_name
from towtank.simulator.graph import Timeline
from towtank.simulator.operations import AttentionCore, Elementwise, Matmul, Work
from towtank.simulator.schedules.roles import Role
from towtank.simulator.step import StepTime

_RESOURCES = {
    Role.SEND_FORWARD: "network of the pipeline",
    Role.SEND_BACKWARD: "network of the pipeline",
    Role.PARAMETER_GATHER: "network of data parallelism",
    Role.GRADIENT_REDUCE: "network of data parallelism",
    Role.PARAMETER_GATHER_AFTER: "network of data parallelism",
    Role.GRADIENT_NORM: "memory bandwidth",
    Role.OPTIMIZER: "memory bandwidth",
}
_KINDS = {
    Role.SEND_FORWARD: "send pipeline",
    Role.SEND_BACKWARD: "send pipeline",
    Role.PARAMETER_GATHER: "parameter all-gather data",
    Role.GRADIENT_REDUCE: "gradient reduction data",
    Role.GRADIENT_NORM: "gradient norm",
    Role.OPTIMIZER: "optimizer",
    Role.PARAMETER_GATHER_AFTER: "parameter all-gather data",
}
IDLE = "idle"
"""Time between a task of the path and the one that let it start; none where engines start tasks at once."""


@dataclass(frozen=True, slots=True)
class PathPart:
    """Operations of one kind on the critical path."""

    kind: str
    resource: str
    """What limits them: FLOP, memory bandwidth, or the network of a group."""
    seconds: float
    operations: int
    """How many of them lie on the path."""


def critical_path(step: StepTime, device: Device) -> tuple[PathPart, ...]:
    """Parts of the critical path by kind, the longest first; their seconds sum to the step time.

    From the task that ends last each task is followed to the one whose end let it start; a pass of a pipeline stage
    is taken apart by the path through its own operations. `device` is the one that the step was predicted on.
    """
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    counts: defaultdict[tuple[str, str], float] = defaultdict(float)
    pipeline = step.program.pipeline
    inside: dict[int, list[tuple[tuple[str, str], float, int]]] = {}
    for task, spent, gap in walk(step.timeline):
        if gap > 0:
            seconds[IDLE, IDLE] += gap
        role = Role(int(pipeline.role[task]))
        if role not in (Role.FORWARD, Role.BACKWARD):
            key = (_KINDS[role], _RESOURCES[role])
            seconds[key] += spent
            counts[key] += 1
            continue
        blocks = step.forward if role is Role.FORWARD else step.backward
        time = blocks[pipeline.stage[task]][pipeline.chunk[task]]
        if id(time) not in inside:
            inside[id(time)] = _block_path(time, device)
        parts = inside[id(time)]
        # an unrolled pass is in layers, and a pass beside a collective is slower than alone
        scale = spent / time.makespan_s if time.makespan_s else 0.0
        for key, part, count in parts:
            seconds[key] += part * scale
            counts[key] += count * min(scale, 1.0)
    found = [
        PathPart(kind, resource, spent, max(1, round(counts[kind, resource])))
        for (kind, resource), spent in seconds.items()
        if spent > 0
    ]
    return tuple(sorted(found, key=lambda part: -part.seconds))


def by_resource(path: Sequence[PathPart]) -> list[tuple[str, float]]:
    """Seconds of the critical path by resource, the most used first."""
    spent: defaultdict[str, float] = defaultdict(float)
    for part in path:
        spent[part.resource] += part.seconds
    return sorted(spent.items(), key=lambda item: -item[1])


def walk(timeline: Timeline) -> list[tuple[int, float, float]]:
    """Tasks of the critical path from the last to the first, with the time each takes and the gap before it."""
    if not len(timeline.finish_s):
        return []
    path = []
    task = int(timeline.finish_s.argmax())
    while task >= 0:
        start, finish = float(timeline.start_s[task]), float(timeline.finish_s[task])
        before = int(timeline.binding[task])
        gap = start - (float(timeline.finish_s[before]) if before >= 0 else 0.0)
        path.append((task, finish - start, gap))
        task = before
    return path


def _block_path(time: BlockTime, device: Device) -> list[tuple[tuple[str, str], float, int]]:
    """Parts of the path through one pass, with how many operations each has; they sum to its makespan."""
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    counts: defaultdict[tuple[str, str], int] = defaultdict(int)
    template = time.graph.template
    for task, spent, gap in walk(time.timeline):
        operation = time.graph.operations[int(template[task])]
        key = (part_name(operation).removeprefix("exposed "), _resource(operation.work, device))
        seconds[key] += spent
        counts[key] += 1
        if gap > 0:
            seconds[IDLE, IDLE] += gap
    late = time.makespan_s - float(np.max(time.timeline.finish_s, initial=0.0))
    if late > 0:
        seconds[HOST, "host"] += late
    return [(key, spent, counts[key]) for key, spent in seconds.items()]


def _resource(work: Work, device: Device) -> str:
    if isinstance(work, Matmul):
        return "memory bandwidth" if _reads_longer(work, device) else "FLOP"
    if isinstance(work, AttentionCore):
        return "FLOP"
    if isinstance(work, Elementwise):
        return "memory bandwidth" if work.bytes else "host"
    return f"network of {work.group}"


def _reads_longer(work: Matmul, device: Device) -> bool:
    """Whether the bytes of a product take longer than its FLOP at the peaks of the device (roofline)."""
    peak, bandwidth = device.peak_flop_per_s.get(work.precision), device.memory_bandwidth_bytes_per_s
    if not peak or not bandwidth:
        return False
    element = BYTES_PER_ELEMENT[work.precision]
    size = matmul_bytes(work.m, work.n, work.k, element, BYTES_PER_ELEMENT["bf16"], work.batch)
    return size / bandwidth > matmul_flop(work.m, work.n, work.k, work.batch) / peak
