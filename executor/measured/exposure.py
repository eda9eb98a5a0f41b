"""Who has a moment: pieces of work that overlap on several queues, made into seconds that add up."""

import heapq
from collections.abc import Sequence
from typing import NamedTuple


class Piece(NamedTuple):
    """One piece of work from `start` to `finish`; `beside` if it yields to what computes meanwhile."""

    start: float
    finish: float
    beside: bool


def exposed(pieces: Sequence[Piece], start: float, finish: float) -> tuple[list[float], float]:
    """Share of each piece in the time from `start` to `finish`, and what no piece covers.

    Every moment belongs to one piece: to one that computes before one that communicates, and among alike to the
    one that began last, so an operation inside another one is taken out of it. All sums to finish - start.
    """
    shares = [0.0] * len(pieces)
    order = sorted(range(len(pieces)), key=lambda index: (pieces[index].start, -pieces[index].finish))
    queues: tuple[list[tuple[float, int]], list[tuple[float, int]]] = ([], [])
    """Pieces that run, of compute and of communication; the one that began last is first."""
    clock, idle, following = start, 0.0, 0
    while clock < finish:
        while following < len(order) and pieces[order[following]].start <= clock:
            index = order[following]
            heapq.heappush(queues[pieces[index].beside], (-pieces[index].start, -following))
            following += 1
        following_start = pieces[order[following]].start if following < len(order) else finish
        owner = _owner(queues, pieces, order, clock)
        until = min(following_start, finish if owner is None else pieces[owner].finish, finish)
        if owner is None:
            idle += until - clock
        else:
            shares[owner] += until - clock
        clock = until
    return shares, idle


def _owner(
    queues: tuple[list[tuple[float, int]], list[tuple[float, int]]],
    pieces: Sequence[Piece],
    order: Sequence[int],
    clock: float,
) -> int | None:
    """The piece that has the moment; pieces that have ended are dropped on the way."""
    for queue in queues:
        while queue and pieces[order[-queue[0][1]]].finish <= clock:
            heapq.heappop(queue)
        if queue:
            return order[-queue[0][1]]
    return None
