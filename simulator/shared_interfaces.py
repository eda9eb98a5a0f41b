"""Collectives of one device that leave the node at the same moment share its network interfaces.

Tensor collectives, gathers of weights and scatters of gradients run on queues of their own, side by side. Those that
go through the network at one moment share it alike: each gets half or a third of what it would have alone.
"""

import numpy as np
from numpy.typing import NDArray

from towtank.hardware_profiles.records import Machine
from towtank.simulator.block_graph import STREAMS, BlockGraph
from towtank.simulator.cost.model import CostModel
from towtank.simulator.graph import Contention, Engine, GraphStructure, TaskGraph, Timeline
from towtank.simulator.operations import Message, Operation, Stream

FAMILIES = (Stream.TENSOR, Stream.GATHER, Stream.SCATTER)
"""Queues whose collectives may run side by side."""

ROUNDS = {2: 8, 3: 13}
"""Rounds of the fixed point by number of families. The distance to it shrinks in each at least to the part by which a
collective is lengthened of what it overlaps, 1/2 or 2/3: half a percent of the lengthening is left."""

SETTLED = 5e-4
"""Change of the whole from round to round, as a part of it, at which there is nothing left to gain."""


def leaves_node(operation: Operation, cost: CostModel) -> bool:
    """Whether an operation is a collective that leaves the node."""
    return isinstance(operation.work, Message) and cost.placement(operation.work.group).nodes > 1


def crosses_nodes(graph: BlockGraph, cost: CostModel) -> NDArray[np.bool_]:
    """Whether each operation of a block is a collective that leaves the node, shape [operations]."""
    return np.array([leaves_node(operation, cost) for operation in graph.operations], dtype=np.bool_)


def may_share(machine: Machine) -> bool:
    """Whether collectives of one device can be side by side on the same network interfaces."""
    return not machine.device.takes_turns and machine.network.topology != "torus"


def families_of(graph: BlockGraph, cost: CostModel) -> tuple[NDArray[np.intp], ...]:
    """Tasks of each family that leave the node; empty where fewer than two families do.

    Empty, too, where a device runs one collective at a time, and on a torus, whose axes are links of their own.
    """
    if not may_share(cost.machine):
        return ()
    return families_among(graph.structure.stream, crosses_nodes(graph, cost)[graph.template])


def families_among(stream: NDArray[np.int32], outside: NDArray[np.bool_]) -> tuple[NDArray[np.intp], ...]:
    """Tasks of each family by the stream of every task and whether it leaves the node, both of shape [tasks]; empty
    where fewer than two families do."""
    found = []
    for queue in FAMILIES:
        tasks = np.flatnonzero(outside & (stream == STREAMS.index(queue)))
        if len(tasks):
            found.append(tasks)
    return tuple(found) if len(found) > 1 else ()


def overlap_s(tasks: NDArray[np.intp], others: NDArray[np.intp], timeline: Timeline) -> NDArray[np.float64]:
    """Seconds that each of `tasks` runs beside at least one of `others`, shape [tasks]."""
    start, finish = timeline.start_s[others], timeline.finish_s[others]
    order = np.argsort(start, kind="stable")
    start, reach = start[order], np.maximum.accumulate(finish[order])
    # what is left of an interval after those that began before it
    start = np.maximum(start, np.concatenate(([0.0], reach[:-1])))
    edges = np.stack((start, np.maximum(start, reach)), axis=1).ravel()
    lengths = np.diff(edges, prepend=edges[0])
    lengths[::2] = 0.0
    busy_until = np.cumsum(lengths)

    def busy(at: NDArray[np.float64]) -> NDArray[np.float64]:
        result: NDArray[np.float64] = np.interp(at, edges, busy_until)
        return result

    return busy(timeline.finish_s[tasks]) - busy(timeline.start_s[tasks])


def timeline_of(
    structure: GraphStructure,
    alone_s: NDArray[np.float64],
    families: tuple[NDArray[np.intp], ...],
    engine: Engine,
    contention: Contention,
) -> Timeline:
    """Run a block whose families of collectives share the interfaces of the node.

    A collective that takes a alone takes a + l, l being what it loses on the timeline that has it so long: a fixed
    point.
    """
    timeline = engine(TaskGraph(structure, alone_s), contention)
    for _ in range(ROUNDS.get(len(families), 0)):
        duration = alone_s.copy()
        for number, family in enumerate(families):
            others = [each for place, each in enumerate(families) if place != number]
            duration[family] += lost_s(family, others, timeline)
        before, timeline = timeline.makespan_s, engine(TaskGraph(structure, duration), contention)
        if abs(timeline.makespan_s - before) <= SETTLED * before:
            break
    return timeline


def lost_s(
    tasks: NDArray[np.intp], others: list[NDArray[np.intp]], timeline: Timeline
) -> NDArray[np.float64]:
    """Seconds that each of `tasks` of one family loses to one or two other families, shape [tasks].

    Beside one other it has half of the interfaces, beside two a third. With overlaps o1 and o2 and u of either, it is
    beside both for b = o1 + o2 - u and loses (o1 + o2 - 2 b) / 2 + 2 b / 3.
    """
    overlaps = [overlap_s(tasks, other, timeline) for other in others]
    if len(others) == 1:
        return overlaps[0] / 2
    first, second = overlaps
    both = first + second - overlap_s(tasks, np.concatenate(others), timeline)
    lost: NDArray[np.float64] = (first + second) / 2 - both / 3
    return lost
