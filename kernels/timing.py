"""Honest times of calls on a device: warmed up, waited for, interleaved, and as medians.

On a GPU the times between events on its stream, on a CPU those of the monotonic clock. Calls that are compared take
turns, so that a clock that changes or a neighbour that wakes up is met by all of them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Call = Callable[[], object]
SHORTEST_SAMPLE_S = 5e-4
"""Calls are repeated within a sample until it takes this long: the clocks' own time is then below a percent."""
WARM_UP = 2
SETTLE_S = 0.03
"""Pause after which threads of OpenMP have gone to sleep."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one call."""

    median_s: float
    least_s: float
    samples: int
    calls: int
    """Calls in one sample, by whose number it is divided."""


def timings(
    calls: Sequence[Call], device: str, *, samples: int = 9, budget_s: float = 2.0, settle: bool = False
) -> list[Timing]:
    """Times of several calls that take turns, in their order.

    `settle`: each turn on a CPU begins with a pause and a call that does not count, for calls of several libraries:
    threads of one spin for some milliseconds after a call, and whose turn comes next would lack their cores.

    `budget_s` bounds the time for all samples of all calls: there are fewer than `samples`, but 3 at least, where
    they would take longer.
    """
    clock = _event_sample if device == "cuda" else _settled_sample if settle else _clock_sample
    numbers, one_turn_s = _warm_up(calls, clock)
    turns = max(3, min(samples, int(budget_s / max(one_turn_s, 1e-9))))
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(turns):
        for place, (call, number) in enumerate(zip(calls, numbers, strict=True)):
            found[place].append(clock(call, number))
    return [
        Timing(median(times), min(times), turns, number) for times, number in zip(found, numbers, strict=True)
    ]


def shuffled_turns(
    calls: Sequence[Call], device: str, rng: Random, *, turns: int, budget_s: float
) -> list[list[float]]:
    """Seconds of each call in each turn, for ratios between calls of one turn; `turns` rows, 4 at least.

    A turn is short, so that a clock that changes is the same for all of it. Calls come in another order in every
    turn, each after one that does not count, so that none profits from what another left in the caches.
    """
    clock = _event_sample if device == "cuda" else _clock_sample
    numbers, one_turn_s = _warm_up(calls, clock)
    places = list(range(len(calls)))
    found = []
    for _ in range(max(4, min(turns, int(budget_s / max(2 * one_turn_s, 1e-9))))):
        rng.shuffle(places)
        row = [0.0] * len(calls)
        for place in places:
            calls[place]()
            row[place] = clock(calls[place], numbers[place])
        found.append(row)
    return found


def _warm_up(calls: Sequence[Call], clock: Callable[[Call, int], float]) -> tuple[list[int], float]:
    """How often each call is repeated in a sample, and how long a turn of all of them takes."""
    for call in calls:
        for _ in range(WARM_UP):
            call()
    first = [clock(call, 1) for call in calls]
    numbers = [max(1, min(1000, round(SHORTEST_SAMPLE_S / max(each, 1e-7)))) for each in first]
    return numbers, sum(each * number for each, number in zip(first, numbers, strict=True))


def _clock_sample(call: Call, number: int) -> float:
    start = time.perf_counter()
    for _ in range(number):
        call()
    return (time.perf_counter() - start) / number


def _settled_sample(call: Call, number: int) -> float:
    time.sleep(SETTLE_S)
    call()
    return _clock_sample(call, number)


def _event_sample(call: Call, number: int) -> float:
    import torch

    start, stop = _event(), _event()
    torch.cuda.synchronize()
    start.record()
    for _ in range(number):
        call()
    stop.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(stop)) * 1e-3 / number


def _event() -> "torch.cuda.Event":
    import torch

    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
