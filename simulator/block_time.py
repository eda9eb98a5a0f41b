"""Time of one block and where it goes."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from towtank.simulator.block_graph import STREAMS, BlockGraph, block_graph
from towtank.simulator.cost.model import CostModel
from towtank.simulator.graph import Contention, Engine, Timeline
from towtank.simulator.operations import Block, Operation, Phase, Stream
from towtank.simulator.shared_interfaces import families_of, timeline_of
from towtank.simulator.stacks.records import Host
from towtank.simulator.step_flows import StepFlows

HOST = "waiting for the host"
"""Row of the breakdown for the part of a pass in which the device waits for the host."""

_COMPUTE = STREAMS.index(Stream.COMPUTE)


@dataclass(frozen=True, slots=True, eq=False)
class BlockTime:
    """A block on the clock. `breakdown_s` sums to `makespan_s`."""

    block: Block
    graph: BlockGraph
    timeline: Timeline
    makespan_s: float
    """Of the device's streams, or what the host needs for its calls if that is longer."""
    breakdown_s: Mapping[str, float]
    busy_s: float
    """Lower bound of the makespan: the busiest stream, alone."""


def time_block(
    block: Block,
    cost: CostModel,
    engine: Engine,
    contention: Contention,
    flows: StepFlows | None = None,
) -> BlockTime:
    """Cost every operation of a block and run it on the streams of one device."""
    graph = block_graph(block, single_queue=cost.machine.device.takes_turns)
    duration = operation_seconds(graph, cost)[graph.template]
    if flows is not None:
        duration, timeline = flows.run_block(graph, duration, contention)
    else:
        families = families_of(graph, cost)
        timeline = timeline_of(graph.structure, duration, families, engine, contention)
    busy = np.bincount(graph.structure.stream, weights=duration, minlength=len(STREAMS))
    parts = _breakdown(graph, timeline, duration)
    late = host_seconds(graph, cost) - timeline.makespan_s
    if late > 0:
        parts[HOST] = late
    makespan = timeline.makespan_s + max(late, 0.0)
    return BlockTime(block, graph, timeline, makespan, parts, float(busy.max()))


def host_seconds(graph: BlockGraph, cost: CostModel) -> float:
    """Seconds of the host for the calls of tensor-parallel collectives in a block.

    h = c n without a pipeline and c' p n with one, for n calls on a group of p members (`stacks.records.Host`).
    """
    plan = cost.plan
    calls = np.array([operation.stream is Stream.TENSOR for operation in graph.operations])
    each = host_call_s(cost.stack.host, plan.pipeline, plan.tensor_x * plan.tensor_y)
    return float(calls[graph.template].sum() * each)


def host_call_s(host: Host, pipeline: int, members: int | NDArray[np.int64]) -> float | NDArray[np.float64]:
    """Seconds of the host for one call on a tensor group of so many members."""
    in_pipeline: float | NDArray[np.float64] = np.multiply(host.tensor_call_in_pipeline_s, members)
    return host.tensor_call_s if pipeline == 1 else in_pipeline


def operation_seconds(graph: BlockGraph, cost: CostModel) -> NDArray[np.float64]:
    """Seconds of each template operation, alone on the device; shape [operations]."""
    return np.array([cost.duration_s(operation.work) for operation in graph.operations])


def part_name(operation: Operation) -> str:
    """Row of the breakdown in which an operation is counted."""
    if operation.stream is not Stream.COMPUTE:
        return f"exposed {operation.kind}"
    return "recompute" if operation.phase is Phase.RECOMPUTE else operation.kind


def _breakdown(graph: BlockGraph, timeline: Timeline, alone_s: NDArray[np.float64]) -> dict[str, float]:
    """Account for every second of the compute stream: working, slowed, or waiting for whom."""
    names = [part_name(operation) for operation in graph.operations]
    template = graph.template.tolist()
    start, finish, alone = timeline.start_s.tolist(), timeline.finish_s.tolist(), alone_s.tolist()
    parts: dict[str, float] = defaultdict(float)
    clock = 0.0
    for task in np.flatnonzero(graph.structure.stream == _COMPUTE).tolist():
        if start[task] > clock:
            parts[names[template[int(timeline.binding[task])]]] += start[task] - clock
        parts[names[template[task]]] += alone[task]
        slowed = finish[task] - start[task] - alone[task]
        if slowed > 0:
            parts["contention"] += slowed
        clock = finish[task]
    end = timeline.makespan_s
    if end > clock:
        parts[names[template[int(timeline.finish_s.argmax())]]] += end - clock
    return {name: seconds for name, seconds in parts.items() if seconds > 0}
