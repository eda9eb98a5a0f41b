"""Tasks of one stream, and how communication beside it stretches them (`engines.contention`, for arrays in place)."""

from typing import Any

import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

Floats = NDArray[Any]
Integers = NDArray[Any]


@register_jitable
def interpolated(x: float, xs: Floats, ys: Floats, count: int, guess: int) -> tuple[float, int]:
    """`numpy.interp` of one x among the first `count` points, and the place where it was found.

    `guess` is a place to start from; x values of a row rise, so the last one is near.
    """
    if x >= xs[count - 1]:
        return ys[count - 1], count - 2
    if x < xs[0]:
        return ys[0], 0
    while xs[guess] > x:
        guess -= 1
    while xs[guess + 1] <= x:
        guess += 1
    if xs[guess] == x:
        return ys[guess], guess
    slope = (ys[guess + 1] - ys[guess]) / (xs[guess + 1] - xs[guess])
    return slope * (x - xs[guess]) + ys[guess], guess


@register_jitable
def _lasting(start: Floats, finish: Floats, at: int, end: int) -> int:
    """The first task from `at` on that takes any time; `end` where there is none."""
    while at < end and finish[at] <= start[at]:
        at += 1
    return at


@register_jitable
def union(start: Floats, finish: Floats, cursor: Integers, end: Integers, edges: Floats) -> int:
    """Fill `edges` with begin and end of the disjoint intervals in which a task of any lane runs; their number.

    Lane l holds tasks `cursor[l]` to `end[l]`, in order of their start. `edges` begins at place 1, for `stretch`.
    """
    lanes, count, reach = len(cursor), 0, -1.0
    heads = np.full(lanes, np.inf)
    for lane in range(lanes):
        cursor[lane] = _lasting(start, finish, cursor[lane], end[lane])
        if cursor[lane] < end[lane]:
            heads[lane] = start[cursor[lane]]
    while True:
        lane = 0
        for other in range(1, lanes):
            if heads[other] < heads[lane]:
                lane = other
        begin = heads[lane]
        if begin == np.inf:
            break
        at = cursor[lane]
        if begin > reach:
            count += 1
            edges[2 * count - 1] = begin
        reach = max(reach, finish[at])
        edges[2 * count] = reach
        cursor[lane] = at = _lasting(start, finish, at + 1, end[lane])
        heads[lane] = start[at] if at < end[lane] else np.inf
    return count


@register_jitable
def _work_by_time(time: Floats, progress: Floats, count: int, slowdown: float) -> None:
    """Work that can be done until each of the first `count` times, where every second interval is disturbed."""
    slow = 1 / (1 + slowdown)
    progress[0] = 0.0
    for k in range(1, count):
        progress[k] = progress[k - 1] + (time[k] - time[k - 1]) * (slow if k % 2 == 0 else 1.0)


@register_jitable
def stretch(
    alone: Floats,
    start: Floats,
    finish: Floats,
    stretched: Floats,
    time: Floats,
    progress: Floats,
    num_busy: int,
    slowdown: float,
) -> None:
    """Fill `stretched` [tasks] with the durations of a lane beside communication (`contention.stretched_durations`).

    `time` holds the intervals of `union` from place 1; it and `progress` have room for two places more.
    """
    total = 0.0
    for seconds in alone:
        total += seconds
    count = 2 * num_busy + 2
    time[0] = 0.0
    time[count - 1] = max(finish[len(finish) - 1], time[count - 2]) + (1 + slowdown) * total
    _work_by_time(time, progress, count, slowdown)
    work, before, base, end = 0.0, 0.0, 0.0, 0.0
    at_time = at_work = 0
    for k in range(len(alone)):
        work += alone[k]
        begin = end
        if k == 0 or start[k] > finish[k - 1]:
            begin = start[k]
            before = work - alone[k]
            base, at_time = interpolated(begin, time, progress, count, at_time)
        end, at_work = interpolated(base + (work - before), progress, time, count, at_work)
        stretched[k] = max(alone[k], end - begin)
