"""Collectives of one device that leave the node at the same moment share its network interfaces.

Tensor collectives and those of weights run on queues of their own, side by side. Where both go through the
network, each gets half of what it would have alone, as long as both run.
"""

import numpy as np
from numpy.typing import NDArray

from towtank.hardware_profiles.records import Machine
from towtank.simulator.block_graph import STREAMS, BlockGraph
from towtank.simulator.cost.model import CostModel
from towtank.simulator.graph import Contention, Engine, GraphStructure, TaskGraph, Timeline
from towtank.simulator.operations import Message, Stream

FAMILIES = ((Stream.TENSOR,), (Stream.GATHER, Stream.SCATTER))
"""Queues whose collectives are of different groups and may run side by side."""

ROUNDS = 8
"""Rounds of the fixed point. The distance to it halves at least in each, since a collective is lengthened by half of
what it overlaps: 8 rounds leave less than half a percent of the lengthening."""


def crosses_nodes(graph: BlockGraph, cost: CostModel) -> NDArray[np.bool_]:
    """Whether each operation of a block is a collective that leaves the node, shape [operations]."""
    return np.array(
        [
            isinstance(operation.work, Message) and cost.placement(operation.work.group).nodes > 1
            for operation in graph.operations
        ],
        dtype=np.bool_,
    )


def may_share(machine: Machine) -> bool:
    """Whether collectives of one device can be side by side on the same network interfaces."""
    return not machine.device.takes_turns and machine.network.topology != "torus"


def families_of(graph: BlockGraph, cost: CostModel) -> tuple[NDArray[np.intp], ...]:
    """Tasks of each family that leave the node; empty where fewer than two families do.

    Empty, too, where a device runs one collective at a time, and on a torus, whose axes are links of their own.
    """
    if not may_share(cost.machine):
        return ()
    outside = crosses_nodes(graph, cost)[graph.template]
    stream = graph.structure.stream
    found = []
    for family in FAMILIES:
        numbers = [STREAMS.index(queue) for queue in family]
        tasks = np.flatnonzero(outside & np.logical_or.reduce([stream == number for number in numbers]))
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

    A collective that takes a alone and overlaps another one for o seconds takes d = a + o / 2, o being that of the
    timeline which has d: a fixed point.
    """
    timeline = engine(TaskGraph(structure, alone_s), contention)
    if not families:
        return timeline
    first, second = families
    for _ in range(ROUNDS):
        duration = alone_s.copy()
        duration[first] += overlap_s(first, second, timeline) / 2
        duration[second] += overlap_s(second, first, timeline) / 2
        timeline = engine(TaskGraph(structure, duration), contention)
    return timeline
