"""The collectives of a step as flows on the links between nodes.

Which collectives run at once, and so share links, comes out of the simulation: tensor groups beside weight shards
inside of a pass, the data-parallel rings of all pipeline stages after it. A pass and what overlaps with it from
outside (gradients of layers that are done, sends between stages) are simulated apart, as in the other engines.

A group loads the links of its rings; the bytes of other algorithms are put there too. Alone it moves at the rate of
the cost model, unless links that its siblings share with it hold it back. Links that all flows together cannot fill
are left out, and flows and links that are alike are one.

Every member of a ring sends over its own interface, and an interface serves its senders alike. A ring with m members
on a node has m senders there, each with an m-th of its bytes: where rings compete, its weight is m.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from towtank.hardware_profiles.errors import UnknownFigure
from towtank.hardware_profiles.records import known
from towtank.simulator.block_graph import BlockGraph
from towtank.simulator.cost.model import CostModel
from towtank.simulator.graph import Contention, TaskGraph, Timeline
from towtank.simulator.groups import dimensions
from towtank.simulator.operations import Message
from towtank.simulator.schedules.roles import PipelineStructure, Role

if TYPE_CHECKING:
    from towtank.simulator.engines.flow_engine import Collective, FlowClasses
    from towtank.simulator.network.job import JobNetwork
    from towtank.simulator.network.routes import Routes

_NEEDED = "the flows of a step (--engine flows; the compiled engine does without)"

_UNEVEN = ("ends", "pipeline", "world")
"""Groups that span stages: they meet nobody else, and keep the time that they take alone."""

Lane = tuple[str, int]
"""A group, and the queue (inside of a pass) or the stage (outside) whose collectives run one after the other."""

Messages = Mapping[tuple[Role, int, int, int], Sequence[Message]]
"""Collectives by role, stage, chunk and layer."""


@dataclass(frozen=True, slots=True)
class LaneFlows:
    """Classes of flows, and those of each lane."""

    classes: FlowClasses
    of_lane: Mapping[Lane, tuple[int, ...]]


class StepFlows:
    """Runs the passes and the pipeline of one plan with flows; `cost` without sharing of cables (`crossing`)."""

    def __init__(self, cost: CostModel) -> None:
        self.cost = cost
        self.bytes_moved = 0.0
        """Bytes of the flows of all runs so far, one flow a class."""
        self._rings: dict[str, Routes] = {}
        self._known: dict[tuple[frozenset[Lane], bool], LaneFlows] = {}

    def run_block(
        self, graph: BlockGraph, duration_s: NDArray[np.float64], contention: Contention
    ) -> tuple[NDArray[np.float64], Timeline]:
        """Durations as they come out and timeline of a pass; `duration_s` [tasks] alone.

        Raises:
            UnknownFigure: the profile lacks what the topology needs, or nobody routes it (torus).
        """
        tasks = {
            task: [((operation.work.group, int(graph.structure.stream[task])), operation.work)]
            for task, number in enumerate(graph.template.tolist())
            if isinstance((operation := graph.operations[number]).work, Message)
            and self._crosses(operation.work)
        }
        flowing, timeline = self._run(
            TaskGraph(graph.structure, duration_s), tasks, contention, by_stage=False
        )
        return flowing.duration_s, timeline

    def run_pipeline(
        self, pipeline: PipelineStructure, graph: TaskGraph, messages: Messages, contention: Contention
    ) -> tuple[TaskGraph, Timeline]:
        """Graph with durations as they come out and timeline of all passes and what lies between them.

        Raises:
            UnknownFigure: the profile lacks what the topology needs, or nobody routes it (torus).
        """
        keys = zip(
            map(Role, pipeline.role.tolist()),
            pipeline.stage.tolist(),
            np.maximum(pipeline.chunk, 0).tolist(),
            pipeline.layer.tolist(),
            strict=True,
        )
        tasks = {
            task: [((message.group, key[1]), message) for message in messages[key]]
            for task, key in enumerate(keys)
            if any(self._crosses(message) for message in messages.get(key, ()))
        }
        return self._run(graph, tasks, contention, by_stage=True)

    def _crosses(self, message: Message) -> bool:
        return message.group not in _UNEVEN and self.cost.moving_s(message) > 0

    def _run(
        self,
        graph: TaskGraph,
        tasks: Mapping[int, list[tuple[Lane, Message]]],
        contention: Contention,
        *,
        by_stage: bool,
    ) -> tuple[TaskGraph, Timeline]:
        from towtank.simulator.engines.flow_engine import durations_of, simulate_flows
        from towtank.simulator.engines.simpy_engine import simulate

        if not tasks:
            return graph, simulate(graph, contention)
        lanes = frozenset(
            lane for parts in tasks.values() for lane, message in parts if self._crosses(message)
        )
        flows = self._known.get((lanes, by_stage))
        if flows is None:
            flows = self._known[lanes, by_stage] = self.flows(sorted(lanes), by_stage=by_stage)
        collectives = {
            task: [self._collective(message, flows.of_lane.get(lane, ())) for lane, message in parts]
            for task, parts in tasks.items()
        }
        run = simulate_flows(graph, contention, flows.classes, collectives)
        self.bytes_moved += run.bytes_moved
        return TaskGraph(graph.structure, durations_of(graph, run.timeline, collectives)), run.timeline

    def _collective(self, message: Message, classes: tuple[int, ...]) -> Collective:
        from towtank.simulator.engines.flow_engine import Collective

        moving = self.cost.moving_s(message) if classes else 0.0
        num_bytes = moving * self.cost.ring_rate_bytes_per_s(message.group) if moving else 0.0
        return Collective(self.cost.duration_s(message) - moving, num_bytes, classes)

    def flows(self, lanes: Sequence[Lane], *, by_stage: bool) -> LaneFlows:
        """Rings of all lanes, folded."""
        from towtank.simulator.engines.flow_engine import FlowClasses
        from towtank.simulator.network.folding import fold, paced

        rings = [self._rings_of(group, stage if by_stage else None) for group, stage in lanes]
        kind = np.repeat(np.arange(len(lanes)), [routes.num_flows for routes in rings])
        rate = np.array([self.cost.ring_rate_bytes_per_s(group) for group, _ in lanes])
        weight = np.array([float(self.cost.placement(group).local) for group, _ in lanes])
        capacity = self._network.capacity_bytes_per_s
        queue = np.unique([number for _, number in lanes], return_inverse=True)[1]
        binding = _binding(rings, capacity, rate, queue)
        folded = fold(capacity, binding, kind)
        if len(folded.count) > _MOST_CLASSES:
            few, routes = paced(capacity, binding, kind, len(lanes))
            own = tuple(routes.take(np.array([number])) for number in range(len(lanes)))
            return LaneFlows(
                FlowClasses(few, own, rate, weight), {lane: (k,) for k, lane in enumerate(lanes)}
            )
        numbers = np.arange(len(folded.count))
        first = np.unique(folded.flow_class, return_index=True)[1]
        kind_of_class = kind[first]
        classes = FlowClasses(
            folded.capacity_bytes_per_s,
            tuple(folded.routes.take(np.array([number])) for number in numbers),
            rate[kind_of_class],
            weight[kind_of_class],
        )
        found = {lane: tuple(numbers[kind_of_class == k].tolist()) for k, lane in enumerate(lanes)}
        return LaneFlows(classes, found)

    def _rings_of(self, group: str, stage: int | None) -> Routes:
        """Rings of a group, of all stages or of one."""
        from towtank.simulator.network.job import adapted_rings
        from towtank.simulator.network.placement import group_members

        plan = self.cost.plan
        # rings stay on a node as long as they can: the smallest strides first
        degrees = sorted((each for each in dimensions(plan, group) if each[0] > 1), key=itemgetter(1))
        members = group_members(plan.num_devices, degrees)
        if group not in self._rings:
            self._rings[group], _ = adapted_rings(self._network, members)
        if stage is None:
            return self._rings[group]
        own = members[:, 0] // plan.stride("pipeline") % plan.pipeline == stage
        return self._rings[group].take(np.flatnonzero(own).astype(np.int64))

    @cached_property
    def _network(self) -> JobNetwork:
        """The links between nodes, whose interfaces reach what collectives do; those inside nodes never bind."""
        from towtank.simulator.network.job import JobNetwork
        from towtank.simulator.network.machine import interconnect
        from towtank.simulator.network.surroundings import groups_of
        from towtank.simulator.network.topology import switch

        machine, devices = self.cost.machine, self.cost.machine.node.devices
        if machine.network.topology == "unknown":
            known(machine, "network.topology", None, needed_for=_NEEDED)
        if machine.network.topology == "torus":
            raise UnknownFigure(f"{machine.name}: routes over a torus are unknown, and {_NEEDED} needs them")
        reached = known(machine, "network.efficiency", machine.network.efficiency, needed_for=_NEEDED)
        efficiency = reached * self.cost.stack.fitted.network_efficiency
        nodes = self.cost.around.nodes(machine, ceil(self.cost.plan.num_devices / devices))
        # no traffic leaves a group that holds the whole job: any taper does where it is unknown
        taper = 1.0 if machine.network.taper is None and groups_of(machine, nodes) == 1 else None
        outside = interconnect(machine, len(nodes), taper=taper, efficiency=efficiency)
        inside = switch(devices, _NEVER_BINDS, 0.0)
        busy = self.cost.around.busy_tiers(outside.topology.tiers)
        return JobNetwork(outside, inside, nodes, busy=busy)


_NEVER_BINDS = 1e18
"""Bytes/s of links inside nodes here: what they leave to a ring is in its rate."""

_MOST_CLASSES = 100
"""Classes of alike flows that are simulated one by one. Rings on nodes that lie here and there are alike in nothing:
of more classes than these, each lane's rings go at the pace of the slowest, for which its collective waits anyway."""

_DIGITS = 14
"""Decimals of shares: what routes add up in different order is alike."""


def _binding(
    rings: Sequence[Routes], capacity: NDArray[np.float64], rate: NDArray[np.float64], queue: NDArray[np.intp]
) -> Routes:
    """Rings of all lanes over those links only that they can fill at their `rate` [lanes]: others hold nobody back.

    Of the lanes of one queue, numbered by `queue` [lanes], only one runs at a time.
    """
    from towtank.simulator.network.job import stacked
    from towtank.simulator.network.routes import from_entries

    total, beside = np.zeros(len(capacity)), np.zeros(len(capacity))
    for number in range(int(queue.max()) + 1):
        beside[:] = 0.0
        for lane in np.flatnonzero(queue == number).tolist():
            np.maximum(beside, rate[lane] * rings[lane].load(len(capacity)), out=beside)
        total += beside
    routes = stacked(rings)
    kept = (total > capacity * (1 + 1e-9))[routes.link]
    share = np.round(routes.share[kept], _DIGITS)
    return from_entries(routes.num_flows, routes.flow[kept], routes.link[kept], share)
