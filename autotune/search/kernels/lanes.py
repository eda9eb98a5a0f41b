"""Tasks of one stream, and how communication beside it stretches them (`engines.contention`, for arrays in place)."""

from typing import Any

from numba.extending import register_jitable
from numpy.typing import NDArray

Floats = NDArray[Any]
Integers = NDArray[Any]


@register_jitable  # type: ignore[untyped-decorator]
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


@register_jitable  # type: ignore[untyped-decorator]
def _earliest(start: Floats, finish: Floats, cursor: Integers, end: Integers) -> int:
    """Lane whose next task starts first, -1 where none is left; tasks that take no time are passed over."""
    found = -1
    for lane in range(len(cursor)):
        at = cursor[lane]
        while at < end[lane] and finish[at] <= start[at]:
            at += 1
        cursor[lane] = at
        if at < end[lane] and (found < 0 or start[at] < start[cursor[found]]):
            found = lane
    return found


@register_jitable  # type: ignore[untyped-decorator]
def union(start: Floats, finish: Floats, cursor: Integers, end: Integers, edges: Floats) -> int:
    """Fill `edges` with begin and end of the disjoint intervals in which a task of any lane runs; their number.

    Lane l holds tasks `cursor[l]` to `end[l]`, in order of their start. `edges` begins at place 1, as `stretch` wants.
    """
    count = 0
    lane = _earliest(start, finish, cursor, end)
    while lane >= 0:
        at = cursor[lane]
        if count == 0 or start[at] > edges[2 * count]:
            count += 1
            edges[2 * count - 1] = start[at]
            edges[2 * count] = finish[at]
        elif finish[at] > edges[2 * count]:
            edges[2 * count] = finish[at]
        cursor[lane] = at + 1
        lane = _earliest(start, finish, cursor, end)
    return count


@register_jitable  # type: ignore[untyped-decorator]
def _work_by_time(time: Floats, progress: Floats, count: int, slowdown: float) -> None:
    """Work that can be done until each of the first `count` times, where every second interval is disturbed."""
    slow = 1 / (1 + slowdown)
    progress[0] = 0.0
    for k in range(1, count):
        progress[k] = progress[k - 1] + (time[k] - time[k - 1]) * (slow if k % 2 == 0 else 1.0)


@register_jitable  # type: ignore[untyped-decorator]
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
