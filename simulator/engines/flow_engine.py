"""The reference engine with collectives as flows: those that run at the same time share the links of the network.

Tasks run as in `simpy_engine`. A collective takes its latency, then moves bytes over the links of all rings of its
groups, one flow for each class of alike rings, and ends with the slowest of them, for which all devices wait.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from towtank.simulator.engines.simpy_engine import Processes, simulate
from towtank.simulator.graph import Contention, TaskGraph, Timeline
from towtank.simulator.network.processes import FlowNetwork
from towtank.simulator.network.routes import FloatArray, Routes

if TYPE_CHECKING:
    import simpy


@dataclass(frozen=True, slots=True)
class FlowClasses:
    """Classes of flows on a folded network: `route[c]` of one flow, which alone never exceeds `limit_bytes_per_s[c]`.

    Where flows compete, their rates are as their `weight`.
    """

    capacity_bytes_per_s: FloatArray
    route: tuple[Routes, ...]
    limit_bytes_per_s: FloatArray
    weight: FloatArray


@dataclass(frozen=True, slots=True)
class Collective:
    """A collective: seconds in which nothing moves, then `num_bytes` of each flow of its `classes`."""

    latency_s: float
    num_bytes: float
    classes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FlowRun:
    """A simulated graph, and the bytes that its flows moved (one flow for each class)."""

    timeline: Timeline
    bytes_moved: float


def simulate_flows(
    graph: TaskGraph,
    contention: Contention,
    network: FlowClasses,
    collectives: Mapping[int, Sequence[Collective]],
) -> FlowRun:
    """Start and finish of each task in seconds; a task in `collectives` is these, one after the other.

    Raises GraphError and DeadlockError as `simpy_engine.simulate`.
    """
    links: list[FlowNetwork] = []

    def processes(environment: simpy.Environment) -> Processes:
        links.append(FlowNetwork(environment, network.capacity_bytes_per_s))
        return {task: _process(environment, links[0], network, each) for task, each in collectives.items()}

    timeline = simulate(graph, contention, processes)
    return FlowRun(timeline, links[0].bytes_moved)


def _process(
    environment: simpy.Environment, links: FlowNetwork, network: FlowClasses, parts: Sequence[Collective]
) -> Callable[[], Generator[Any, Any, None]]:
    """Process of a task that consists of collectives."""

    def steps() -> Generator[Any, Any, None]:
        for part in parts:
            if part.latency_s > 0:
                yield environment.timeout(part.latency_s)
            if part.num_bytes > 0 and part.classes:
                yield environment.all_of(
                    [
                        links.transfer(
                            network.route[number],
                            part.num_bytes,
                            weight=float(network.weight[number]),
                            limit_bytes_per_s=float(network.limit_bytes_per_s[number]),
                        )
                        for number in part.classes
                    ]
                )

    return steps


def durations_of(
    graph: TaskGraph, timeline: Timeline, collectives: Mapping[int, Sequence[Collective]]
) -> FloatArray:
    """Durations [tasks] in seconds, those of collectives as they came out."""
    duration_s = graph.duration_s.copy()
    tasks = np.fromiter(collectives, np.int64, len(collectives))
    duration_s[tasks] = timeline.finish_s[tasks] - timeline.start_s[tasks]
    return duration_s
