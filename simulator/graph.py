"""Task graph: what every engine evaluates. It knows durations and order, not what a task means.

A task occupies one stream from start to finish. Tasks of one stream run one at a time, in increasing task
index (the order in which the software issues them). A task starts when the previous task of its stream and all
its predecessors have finished. Streams belong to devices: a communication task that runs on a device slows the
compute tasks that run there at the same moment by `Contention`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class GraphStructure:
    """Order and dependencies of tasks; independent of durations, hence cached and shared.

    Shapes: `stream` [tasks]; `predecessor_offset` [tasks + 1] and `predecessor` hold the predecessors of task t
    in `predecessor[predecessor_offset[t]:predecessor_offset[t + 1]]`; `order` [tasks] is a topological order that
    respects streams too; `device` and `communicates` [streams].
    """

    stream: NDArray[np.int32]
    predecessor_offset: NDArray[np.int64]
    predecessor: NDArray[np.int32]
    order: NDArray[np.int32]
    device: NDArray[np.int32]
    communicates: NDArray[np.bool_]

    @property
    def num_tasks(self) -> int:
        """Number of tasks."""
        return len(self.stream)


@dataclass(frozen=True, slots=True)
class TaskGraph:
    """A structure with a duration in seconds for each task."""

    structure: GraphStructure
    duration_s: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Contention:
    """Slow-down of compute on a device while at least one communication task runs on it.

    `compute_slowdown` 0.1: a kernel that takes 1 s alone takes 1.1 s under a collective.
    """

    compute_slowdown: float = 0.0


@dataclass(frozen=True, slots=True)
class Timeline:
    """When each task ran. `binding[t]` is the task whose finish let t start, -1 if t started at zero."""

    start_s: NDArray[np.float64]
    finish_s: NDArray[np.float64]
    binding: NDArray[np.int32]

    @property
    def makespan_s(self) -> float:
        """Finish of the last task; 0 for an empty graph."""
        return float(self.finish_s.max()) if len(self.finish_s) else 0.0


Engine = Callable[[TaskGraph, Contention], Timeline]
"""An engine evaluates a task graph; compiled and SimPy have the same signature."""
