"""Seconds of one block for a search: `block_time.time_block` without a timeline, a breakdown or a graph."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from towtank.simulator.block_graph import STREAMS
from towtank.simulator.cost.model import CostModel
from towtank.simulator.operations import Message, Operation, Stream
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


@dataclass(frozen=True, slots=True, eq=False)
class Costed:
    """A template with the seconds of its operations."""

    structure: _Structure
    seconds: NDArray[np.float64]
    family: NDArray[np.int64]
    """Of collectives that share the node's interfaces with others: 1 or 2; 0 elsewhere."""
    tensor_calls: int
    """Calls of tensor-parallel collectives."""


def costed(template: tuple[Operation, ...], cost: CostModel) -> Costed:
    """Put seconds to the operations of a template.

    Raises:
        UnknownFigure: the machine's profile lacks a figure that an operation needs.
    """
    sharing = may_share(cost.machine)
    return Costed(
        structure=_structure(template, single_queue=cost.machine.device.takes_turns),
        seconds=np.array([cost.duration_s(operation.work) for operation in template], np.float64),
        family=np.array([_family(each, cost) if sharing else 0 for each in template], np.int64),
        tensor_calls=sum(operation.stream is Stream.TENSOR for operation in template),
    )


def _family(operation: Operation, cost: CostModel) -> int:
    """1 or 2 for a collective of one of the two families that leaves the node."""
    if not isinstance(operation.work, Message) or cost.placement(operation.work.group).nodes < 2:
        return 0
    return next((n for n, queues in enumerate(FAMILIES, start=1) if operation.stream in queues), 0)


def block_seconds(parts: Sequence[tuple[Costed, int]], slowdown: float, host_call_s: float) -> float:
    """Seconds of a pass of templates, each repeated so often: the makespan of `time_block` to the bit.

    `host_call_s`: seconds of the host for each call of a tensor-parallel collective.
    """
    from towtank.autotune.search.kernels.blocks import Templates, block_makespan

    templates = [part for part, _ in parts]
    length = np.array([len(part.seconds) for part in templates], np.int64)
    if not length.sum():
        return 0.0
    end = np.cumsum(length)
    num_after = np.concatenate([part.structure.num_after for part in templates])
    arrays = Templates(
        stream=np.concatenate([part.structure.stream for part in templates]),
        computes=np.concatenate([part.structure.computes for part in templates]),
        offset=np.concatenate(([0], np.cumsum(num_after))),
        position=np.concatenate([part.structure.position for part in templates]),
        back=np.concatenate([part.structure.back for part in templates]),
        begin=end - length,
        end=end,
        repeat=np.array([repeat for _, repeat in parts], np.int64),
        seconds=np.concatenate([part.seconds for part in templates]),
        family=np.concatenate([part.family for part in templates]),
    )
    makespan = float(block_makespan(arrays, len(STREAMS), slowdown, ROUNDS))
    host = float(sum(repeat * part.tensor_calls for part, repeat in parts)) * host_call_s
    return makespan + max(host - makespan, 0.0)
