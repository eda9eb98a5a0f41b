"""How much longer compute takes beside communication, estimated from a timeline that ignored it."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from towtank.simulator.engines.layout import by_stream
from towtank.simulator.graph import TaskGraph, Timeline


def stretched_durations(graph: TaskGraph, timeline: Timeline, slowdown: float) -> NDArray[np.float64]:
    """Durations [tasks] in seconds with compute tasks stretched by the communication on their device.

    `timeline` is that of the graph without contention. While communication runs, compute does 1 / (1 +
    slowdown) seconds of work a second. A stretched kernel overlaps longer, and the kernels behind it start
    later; both are followed within a busy period, a run of tasks of a stream without idle time between
    them. Neglected is that the communication and the later busy periods shift as well: an error of second
    order in `slowdown`.
    """
    structure = graph.structure
    tasks, offset = by_stream(structure.stream, len(structure.device))
    lanes = [tasks[begin:end] for begin, end in pairwise(offset.tolist())]
    stretched_s = graph.duration_s.copy()
    # numpy.unique would import numpy.ma, which takes as long as many predictions
    for device in sorted(set(structure.device.tolist())):
        streams = np.flatnonzero(structure.device == device)
        communicating = [lanes[s] for s in streams if structure.communicates[s]]
        busy = _union(np.concatenate(communicating), timeline) if communicating else np.empty((2, 0))
        if not busy.shape[1]:
            continue
        for stream in streams[~structure.communicates[streams]]:
            lane = lanes[stream]
            stretched_s[lane] = _stretch(
                graph.duration_s[lane], timeline.start_s[lane], timeline.finish_s[lane], busy, slowdown
            )
    return stretched_s


def _union(tasks: NDArray[np.int32], timeline: Timeline) -> NDArray[np.float64]:
    """Disjoint intervals [2, intervals] in seconds during which at least one of the tasks runs, in order."""
    start_s, finish_s = timeline.start_s[tasks], timeline.finish_s[tasks]
    lasting = finish_s > start_s
    start_s, finish_s = start_s[lasting], finish_s[lasting]
    by_start = np.argsort(start_s, kind="stable")
    start_s, reach_s = start_s[by_start], np.maximum.accumulate(finish_s[by_start])
    opens = np.ones(len(start_s), np.bool_)
    opens[1:] = start_s[1:] > reach_s[:-1]
    closes = np.roll(opens, -1)
    return np.stack((start_s[opens], reach_s[closes]))


def _stretch(
    duration_s: NDArray[np.float64],
    start_s: NDArray[np.float64],
    finish_s: NDArray[np.float64],
    busy: NDArray[np.float64],
    slowdown: float,
) -> NDArray[np.float64]:
    """Durations of the tasks of one stream when work proceeds at 1 / (1 + slowdown) during `busy`.

    With W(t) the work that can be done until time t, a busy period that starts at A finishes its k-th task at
    W^-1(W(A) + work of its first k tasks).
    """
    if not len(duration_s):
        return duration_s
    new_period = np.ones(len(start_s), np.bool_)
    new_period[1:] = start_s[1:] > finish_s[:-1]
    first = np.maximum.accumulate(np.where(new_period, np.arange(len(start_s)), 0))
    work_s = np.cumsum(duration_s)
    work_in_period_s = work_s - (work_s - duration_s)[first]

    horizon_s = max(finish_s[-1], busy[1, -1]) + (1 + slowdown) * work_s[-1]
    time_s = np.concatenate(([0.0], busy.T.ravel(), [horizon_s]))
    rate = np.ones(len(time_s) - 1)
    rate[1:-1:2] = 1 / (1 + slowdown)
    progress_s = np.concatenate(([0.0], np.cumsum(np.diff(time_s) * rate)))

    target_s = np.interp(start_s[first], time_s, progress_s) + work_in_period_s
    end_s = np.interp(target_s, progress_s, time_s)
    begin_s = np.where(new_period, start_s, np.roll(end_s, 1))
    return np.maximum(duration_s, end_s - begin_s)
