"""The reference engine: streams as SimPy processes, written for clarity rather than speed.

It knows neither the topological order nor the layout of the compiled engine, so that the two can check each
other. Here contention is exact: whenever communication starts or ends on a device, its compute tasks are
timed anew.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from towtank.simulator.engines.layout import by_stream
from towtank.simulator.engines.structure import DeadlockError, check_graph, explain_cycle
from towtank.simulator.graph import Contention, TaskGraph, Timeline

if TYPE_CHECKING:
    import simpy

_NO_CONTENTION = Contention()
_Steps = Generator[Any, Any, None]
_Work = Callable[[float], _Steps]
Processes = Mapping[int, Callable[[], _Steps]]
"""Tasks that end when a process ends, whatever their duration."""


def simulate(
    graph: TaskGraph,
    contention: Contention = _NO_CONTENTION,
    processes: Callable[[simpy.Environment], Processes] | None = None,
) -> Timeline:
    """Start and finish of each task in seconds; `processes` gives some tasks processes in place of a duration.

    Raises GraphError for durations that are negative or not finite, and DeadlockError naming the tasks that
    wait for each other if some never start.
    """
    import simpy

    check_graph(graph, contention)
    structure = graph.structure
    task, offset = by_stream(structure.stream, len(structure.device))
    environment = simpy.Environment()
    run = _Run(graph, environment, processes(environment) if processes else {})
    devices = {device: _Device(contention.compute_slowdown) for device in structure.device.tolist()}
    for stream, (device, communicates) in enumerate(
        zip(structure.device.tolist(), structure.communicates.tolist(), strict=True)
    ):
        work: _Work = run.alone
        if contention.compute_slowdown > 0:
            role = devices[device].communicate if communicates else devices[device].compute
            work = role(run.environment)
        beside = devices[device].beside if contention.compute_slowdown > 0 and communicates else _itself
        run.environment.process(run.issue(task[offset[stream] : offset[stream + 1]].tolist(), work, beside))
    run.environment.run()
    if run.num_done < structure.num_tasks:
        raise DeadlockError(run.deadlock(task, offset))
    return Timeline(
        np.array(run.start_s, np.float64), np.array(run.finish_s, np.float64), np.array(run.binding, np.int32)
    )


class _Run:
    """State of one simulation: what has finished, and which streams wait for what."""

    def __init__(self, graph: TaskGraph, environment: simpy.Environment, processes: Processes) -> None:
        structure = graph.structure
        self.structure = structure
        self.environment = environment
        self.processes = processes
        self.duration_s: list[float] = graph.duration_s.tolist()
        self.predecessor: list[int] = structure.predecessor.tolist()
        self.predecessor_offset: list[int] = structure.predecessor_offset.tolist()
        self.start_s = [0.0] * structure.num_tasks
        self.finish_s = [-1.0] * structure.num_tasks
        """Negative until the task has finished."""
        self.binding = [-1] * structure.num_tasks
        self.waiting: dict[int, simpy.Event] = {}
        """Events of the unfinished tasks that some stream waits for; most tasks need none."""
        self.num_done = 0

    def alone(self, duration_s: float) -> _Steps:
        """Work of `duration_s` seconds that nothing disturbs."""
        yield self.environment.timeout(duration_s)

    def issue(self, tasks: list[int], work: _Work, beside: Callable[[_Steps], _Steps]) -> _Steps:
        """Process of one stream: run its tasks one by one, each as soon as its predecessors have finished.

        `beside` wraps the process of a task that has one.
        """
        environment, finish_s, waiting, duration_s = (
            self.environment,
            self.finish_s,
            self.waiting,
            self.duration_s,
        )
        undisturbed = work == self.alone
        free_s, previous = 0.0, -1
        for task in tasks:
            for edge in range(self.predecessor_offset[task], self.predecessor_offset[task + 1]):
                before = self.predecessor[edge]
                if finish_s[before] < 0:
                    if before not in waiting:
                        waiting[before] = environment.event()
                    yield waiting[before]
                if finish_s[before] > free_s:
                    free_s, previous = finish_s[before], before
            if free_s > 0:
                self.binding[task] = previous
            self.start_s[task] = free_s
            if task in self.processes:
                yield from beside(self.processes[task]())
            elif duration_s[task] > 0:
                if undisturbed:  # spares a generator for each task
                    yield environment.timeout(duration_s[task])
                else:
                    yield from work(duration_s[task])
            finish_s[task] = free_s = environment.now
            previous = task
            self.tell(task)

    def tell(self, task: int) -> None:
        """Wake the streams that wait for a task which has finished."""
        self.num_done += 1
        if task in self.waiting:
            self.waiting.pop(task).succeed()

    def deadlock(self, task: Any, offset: Any) -> str:
        """Which tasks wait for each other, after the simulation has run out of events."""
        done = np.array(self.finish_s) >= 0
        lanes = (task[begin:end] for begin, end in pairwise(offset.tolist()))
        heads = [lane[~done[lane]][0] for lane in lanes if not done[lane].all()]
        structure = self.structure
        return explain_cycle(
            structure.stream,
            structure.predecessor_offset,
            structure.predecessor,
            np.flatnonzero(done),
            np.array(heads),
        )


def _itself(steps: _Steps) -> _Steps:
    return steps


class _Device:
    """Compute and communication that share a device."""

    def __init__(self, slowdown: float) -> None:
        self.slowdown = slowdown
        self.num_communicating = 0
        self.computing: list[simpy.Process] = []

    def communicate(self, environment: simpy.Environment) -> _Work:
        """Work of a communication stream: takes its time and slows compute down meanwhile."""

        def work(duration_s: float) -> _Steps:
            self._change(+1)
            yield environment.timeout(duration_s)
            self._change(-1)

        return work

    def beside(self, steps: _Steps) -> _Steps:
        """Communication that slows compute down as long as it takes."""
        self._change(+1)
        yield from steps
        self._change(-1)

    def _change(self, by: int) -> None:
        was_disturbed = self.num_communicating > 0
        self.num_communicating += by
        if (self.num_communicating > 0) != was_disturbed:
            for process in self.computing:
                process.interrupt()

    def compute(self, environment: simpy.Environment) -> _Work:
        """Work of a compute stream: proceeds at 1 / (1 + slowdown) while anything communicates."""
        from simpy import Interrupt

        def work(duration_s: float) -> _Steps:
            process = environment.active_process
            assert process is not None  # work runs inside the process of its stream
            remaining_s = duration_s
            while remaining_s > 0:
                seconds_per_work = 1.0 + self.slowdown if self.num_communicating > 0 else 1.0
                began_s = environment.now
                self.computing.append(process)
                try:
                    yield environment.timeout(remaining_s * seconds_per_work)
                    remaining_s = 0.0
                except Interrupt:
                    remaining_s -= (environment.now - began_s) / seconds_per_work
                self.computing.remove(process)

        return work
