"""Seconds of one block for a search: `block_time.time_block` without a timeline, a breakdown or a graph."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from towtank.simulator.block_graph import STREAMS
from towtank.simulator.block_time import host_call_s
from towtank.simulator.cost.model import CostModel
from towtank.simulator.operations import Message, Operation, Segment, Stream
from towtank.simulator.shared_interfaces import FAMILIES, ROUNDS, may_share

_COMPUTE = STREAMS.index(Stream.COMPUTE)
_NUMBER = {stream: number for number, stream in enumerate(STREAMS)}


@dataclass(frozen=True, slots=True, eq=False)
class _Structure:
    """Streams and dependencies of the operations of a template; the same for all templates built alike."""

    stream: NDArray[np.int64]
    computes: NDArray[np.bool_]
    num_after: NDArray[np.int64]
    position: NDArray[np.int64]
    back: NDArray[np.int64]


_structures: dict[tuple[object, ...], _Structure] = {}


def _structure(template: tuple[Operation, ...], *, single_queue: bool) -> _Structure:
    key = (single_queue, *((operation.stream, operation.after) for operation in template))
    found = _structures.get(key)
    if found is None:
        stream = np.array([_NUMBER[operation.stream] for operation in template], np.int64)
        after = [dependency for operation in template for dependency in operation.after]
        found = _structures[key] = _Structure(
            stream=np.full_like(stream, _COMPUTE) if single_queue else stream,
            computes=stream == _COMPUTE,
            num_after=np.array([len(operation.after) for operation in template], np.int64),
            position=np.array([dependency.position for dependency in after], np.int64),
            back=np.array([dependency.back for dependency in after], np.int64),
        )
    return found


def _family(operation: Operation, cost: CostModel) -> int:
    """1 or 2 for a collective of one of the two families that leaves the node."""
    if not isinstance(operation.work, Message) or cost.placement(operation.work.group).nodes < 2:
        return 0
    return next((n for n, queues in enumerate(FAMILIES, start=1) if operation.stream in queues), 0)


def block_seconds(
    segments: list[Segment], cost: CostModel, slowdown: float, *, pipelined: bool
) -> float:
    """Seconds of a pass over one chunk, equal to the makespan of `time_block` to the bit."""
    from towtank.autotune.search.kernels.blocks import Templates, block_makespan

    single_queue = cost.machine.device.takes_turns
    templates = [segment.template for segment in segments]
    structures = [_structure(template, single_queue=single_queue) for template in templates]
    operations = [operation for template in templates for operation in template]
    if not operations:
        return 0.0
    sharing = may_share(cost.machine)
    length = np.array([len(template) for template in templates], np.int64)
    end = np.cumsum(length)
    arrays = Templates(
        stream=np.concatenate([each.stream for each in structures]),
        computes=np.concatenate([each.computes for each in structures]),
        offset=np.concatenate(([0], np.cumsum(np.concatenate([each.num_after for each in structures])))),
        position=np.concatenate([each.position for each in structures]),
        back=np.concatenate([each.back for each in structures]),
        begin=end - length,
        end=end,
        repeat=np.array([segment.repeat for segment in segments], np.int64),
        seconds=np.array([cost.duration_s(operation.work) for operation in operations]),
        family=np.array([_family(each, cost) if sharing else 0 for each in operations], np.int64),
    )
    makespan = block_makespan(arrays, len(STREAMS), slowdown, ROUNDS)
    return makespan + max(_host_seconds(segments, cost, pipelined=pipelined) - makespan, 0.0)


def _host_seconds(segments: list[Segment], cost: CostModel, *, pipelined: bool) -> float:
    """`block_time.host_seconds` of the block."""
    calls = sum(
        segment.repeat * sum(operation.stream is Stream.TENSOR for operation in segment.template)
        for segment in segments
    )
    members = cost.plan.tensor_x * cost.plan.tensor_y
    return float(calls * host_call_s(cost.stack.host, 2 if pipelined else 1, members))
