"""The engine of predictions and searches: one pass over the tasks in topological order."""

import numpy as np
from numpy.typing import NDArray

from towtank.simulator.engines.contention import stretched_durations
from towtank.simulator.engines.jit import run_kernel
from towtank.simulator.engines.layout import ordered_layout
from towtank.simulator.engines.longest_path import longest_path
from towtank.simulator.engines.structure import check_graph
from towtank.simulator.graph import Contention, GraphStructure, TaskGraph, Timeline

_NO_CONTENTION = Contention()


def evaluate(
    graph: TaskGraph, contention: Contention = _NO_CONTENTION, *, jit: bool | None = None
) -> Timeline:
    """Start and finish of each task in seconds.

    Without contention the answer is exact. With it, it is an estimate in two passes: the first ignores
    contention and shows when communication runs beside compute, the second runs with compute tasks
    stretched accordingly (`contention.stretched_durations` says what is neglected). It is never below the
    answer without contention.

    `jit` None interprets until the process has seen some hundred thousand tasks (`jit.INTERPRETED_TASKS`) and
    compiles from then on; True and False force. The answers agree to the bit.
    Raises GraphError for durations that are negative or not finite.
    """
    check_graph(graph, contention)
    timeline = _pass(graph.structure, graph.duration_s, jit)
    if contention.compute_slowdown == 0 or not graph.structure.num_tasks:
        return timeline
    stretched_s = stretched_durations(graph, timeline, contention.compute_slowdown)
    return _pass(graph.structure, stretched_s, jit)


def _pass(structure: GraphStructure, duration_s: NDArray[np.float64], jit: bool | None) -> Timeline:
    tasks = structure.num_tasks
    ordered = ordered_layout(structure)
    layout = ordered.layout
    start_s, finish_s, cause = np.zeros(tasks), np.zeros(tasks + 1), np.zeros(tasks, np.int32)
    run_kernel(
        longest_path,
        (ordered.previous, layout.first, layout.num_more, layout.more, duration_s[layout.task]),
        (start_s, finish_s, cause),
        tasks,
        jit,
    )
    position = layout.position[:-1]
    start_s = start_s[position]
    cause_task = np.append(layout.task, np.int32(-1))[cause][position]
    binding = np.where(start_s > 0, cause_task, np.int32(-1))
    return Timeline(start_s, finish_s[position], binding)
