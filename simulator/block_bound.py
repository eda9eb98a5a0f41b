"""Lower bounds of the time of blocks from a few figures of their templates, without a task graph.

The figures are numbers for one plan, or arrays over many plans: the same formulas serve both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from towtank.simulator.block_time import host_call_s
from towtank.simulator.cost.model import CostModel
from towtank.simulator.operations import Operation, Stream, Work

STREAMS = tuple(Stream)
_COMPUTE = STREAMS.index(Stream.COMPUTE)

INSTANCES = 4
"""Instances of a template that are followed one by one; those after them each add its period."""

_RUN = 2 * INSTANCES + 1
NUM_FIGURES = 2 * _RUN + len(STREAMS) + 2
"""Figures of one template: see `TemplateFigures.values`."""

Figures = NDArray[np.float64]
Larger = Callable[[Any, Any], Any]
"""`max` for numbers, `numpy.maximum` for arrays."""


@dataclass(frozen=True, slots=True)
class TemplateFigures:
    """Seconds of a template that is repeated, last axis of `values`:

    at first in a block, on an idle device: when the compute stream, then when the whole device is done with the
    first, second, ... of `INSTANCES` instances, and the least growth from each instance to the next; the same behind
    other templates, of which only the last compute operation is known; work of each stream; time between compute
    operations in which collectives hold the compute stream whatever else happens; number of tensor collectives.
    """

    values: Figures
    rows: NDArray[np.intp] | None = None
    """Where given, the figures are those of these rows of `values` [keys, NUM_FIGURES], one after the other."""

    def _of(self, columns: int | slice) -> Figures:
        chosen = self.values[..., columns]
        return chosen if self.rows is None else np.take(chosen, self.rows, axis=0)

    def compute_s(self, instance: int, *, first: bool) -> Figures:
        """Finish of the compute stream with an instance, counted from 0."""
        return self._of(instance if first else _RUN + instance)

    def device_s(self, instance: int, *, first: bool) -> Figures:
        """Finish of all streams with an instance, counted from 0."""
        return self._of(INSTANCES + instance if first else INSTANCES + _RUN + instance)

    def period_s(self, *, first: bool) -> Figures:
        """Least growth from one instance to the next."""
        return self._of(_RUN - 1 if first else 2 * _RUN - 1)

    @property
    def busy_s(self) -> Figures:
        """Work of each stream, last axis [streams]."""
        return self._of(slice(2 * _RUN, 2 * _RUN + len(STREAMS)))

    @property
    def held_s(self) -> Figures:
        """Time in which collectives hold the compute stream."""
        return self._of(-2)

    @property
    def calls(self) -> Figures:
        """Number of tensor collectives."""
        return self._of(-1)


def template_figures(
    template: Sequence[Operation], duration_s: Callable[[Work], float], *, single_queue: bool
) -> Figures:
    """Figures of a template, shape [NUM_FIGURES]; `single_queue` as in `block_graph`."""
    seconds = [duration_s(operation.work) for operation in template]
    return np.array(_figures(template, seconds, max, single_queue=single_queue))


def figures_of_many(template: Sequence[Operation], seconds: Figures, *, single_queue: bool) -> Figures:
    """Figures of templates that differ from this one in the `seconds` [operations, templates] of their operations.

    Shape [templates, NUM_FIGURES].
    """
    found = _figures(template, list(seconds), np.maximum, single_queue=single_queue)
    return np.stack(np.broadcast_arrays(*found, seconds[0])[:-1], axis=-1)


def work_of_many(
    template: Sequence[Operation], seconds: Figures, mine: Sequence[bool], *, single_queue: bool
) -> Figures:
    """As `figures_of_many`, of some operations of the templates only, and without what comes from their order.

    `mine` [operations] says which. Such figures of all parts of a template add up to figures that give no larger
    bound than its own: times of paths are 0, and collectives count as holding the compute stream only where
    those of one part hold a compute operation of this part.
    """
    streams = [_COMPUTE if single_queue else STREAMS.index(operation.stream) for operation in template]
    result = np.zeros((seconds.shape[1], NUM_FIGURES))
    for operation, stream, duration, counts in zip(template, streams, seconds, mine, strict=True):
        if counts:
            result[:, 2 * _RUN + stream] += duration
            result[:, -1] += operation.stream is Stream.TENSOR
    if not single_queue:
        result[:, -2] = _held_s(template, list(seconds), np.maximum, mine)
    return result


def _figures(
    template: Sequence[Operation], seconds: list[Any], larger: Larger, *, single_queue: bool
) -> list[Any]:
    streams = [_COMPUTE if single_queue else STREAMS.index(operation.stream) for operation in template]
    busy = [0.0] * len(STREAMS)
    for stream, duration in zip(streams, seconds, strict=True):
        busy[stream] = busy[stream] + duration
    calls = sum(operation.stream is Stream.TENSOR for operation in template)
    behind = _follow(template, streams, seconds, larger, first=False)
    alike = single_queue or not _looks_back(template)
    first = behind if alike else _follow(template, streams, seconds, larger, first=True)
    held = 0.0 if single_queue else _held_s(template, seconds, larger)
    return [*first, *behind, *busy, held, float(calls)]


def _looks_back(template: Sequence[Operation]) -> bool:
    """Whether something can start before the last compute operation of the instance before has ended."""
    return any(
        operation.stream is not Stream.COMPUTE
        and all(back > 1 or (back == 1 and position != -1) for position, back in operation.after)
        for operation in template
    )


def _follow(
    template: Sequence[Operation], streams: list[int], seconds: list[Any], larger: Larger, *, first: bool
) -> list[Any]:
    """When the compute stream, then the device is done with each instance, and the least growth.

    What is known of the past is the end of the compute stream, at 0; `first`: all else was idle until 0. The finish
    of all that a later instance refers to is a max-plus linear function of the same of the instances before. So if
    all of it is later by at least p from one instance to the next, it is so for all that follow.
    """
    until: list[Any] = [0.0 if first or stream == _COMPUTE else None for stream in range(len(STREAMS))]
    earlier: list[list[Any]] = []
    compute, device = [], []
    used = sorted(set(streams))
    before: list[Any] = []
    for _ in range(INSTANCES):
        before = [until[stream] for stream in used]
        earlier.append(_one_instance(template, streams, seconds, until, earlier, larger))
        compute.append(until[_COMPUTE])
        device.append(_largest([until[stream] for stream in used], larger))
    # all that a later instance can refer to: ends of streams, compute operations of two instances
    steps = [until[stream] - old for stream, old in zip(used, before, strict=True) if old is not None]
    for now, old in ((earlier[-1], earlier[-2]), (earlier[-2], earlier[-3])):
        steps += [new - previous for new, previous in zip(now, old, strict=True)]
    return [*compute, *device, -_largest([-step for step in steps], larger)]


def _largest(values: list[Any], larger: Larger) -> Any:
    return reduce(larger, [value for value in values if value is not None])


def _one_instance(
    template: Sequence[Operation],
    streams: list[int],
    seconds: list[Any],
    until: list[Any],
    earlier: list[list[Any]],
    larger: Larger,
) -> list[Any]:
    """Add one instance to the ends of the streams (None: unknown); return when its compute operations finish."""
    finish: list[Any] = []
    computes: list[Any] = []
    for operation, stream, duration in zip(template, streams, seconds, strict=True):
        start = until[stream]
        for position, back in operation.after:
            if back == 0:
                other = finish[position]
            elif back <= len(earlier):
                past = earlier[-back]
                other = past[max(position, -len(past))]
            elif back == 1 and position == -1:
                other = 0.0
            else:
                continue
            start = (
                other if start is None else start if other is None or other is start else larger(start, other)
            )
        end = None if start is None else start + duration
        until[stream] = end
        finish.append(end)
        if operation.stream is Stream.COMPUTE:
            computes.append(end)
    return computes


def _held_s(
    template: Sequence[Operation], seconds: list[Any], larger: Larger, mine: Sequence[bool] | None = None
) -> Any:
    """Time between compute operations that a collective takes which waits for the one before and holds the next.

    `mine`: operations that count; others neither hold nor are held.
    """
    held: Any = 0.0
    since: dict[int, Any] = {}  # finish of collectives, counted from the end of the last compute operation
    queue: dict[Stream, Any] = {}
    last = None
    for index, (operation, duration) in enumerate(zip(template, seconds, strict=True)):
        known = [since[at] for at, back in operation.after if back == 0 and at in since]
        if operation.stream is Stream.COMPUTE:
            if mine is None or mine[index]:
                held = held + (_largest(known, larger) if known else 0.0)
            since, queue, last = {}, {}, index
            continue
        if mine is not None and not mine[index]:
            continue
        if operation.stream in queue:
            known.append(queue[operation.stream])
        if any(
            (back == 0 and at == last) or (back, at, last) == (1, -1, None) for at, back in operation.after
        ):
            known.append(0.0)
        if known:
            since[index] = queue[operation.stream] = _largest(known, larger) + duration
    return held


@dataclass(frozen=True, slots=True)
class Terms:
    """What bounds of blocks need besides figures of templates."""

    slowdown: float
    """Of compute beside collectives (`Contention`)."""
    call_s: float | Figures
    """Seconds of the host for one tensor collective."""

    @classmethod
    def of(cls, cost: CostModel) -> "Terms":
        """Terms of one plan."""
        plan, stack = cost.plan, cost.stack
        call = host_call_s(stack.host, plan.pipeline, plan.tensor_x * plan.tensor_y)
        return cls(stack.fitted.compute_slowdown, call)


def block_bound_s(segments: Sequence[tuple[TemplateFigures, int]], terms: Terms) -> Figures:
    """Seconds that a block of templates, each repeated, takes at least.

    The largest of: the longest path along the compute stream, segment by segment; the work of each stream; the
    host's calls; compute slowed down by collectives (`_contended_s`).
    """
    path, device, held, calls = (np.zeros(()) for _ in range(4))
    busy = np.zeros(len(STREAMS))
    for number, (figures, repeat) in enumerate(segments):
        first = number == 0
        index = min(repeat, INSTANCES) - 1
        more = (repeat - 1 - index) * figures.period_s(first=first) if repeat > INSTANCES else 0.0
        device = path + figures.device_s(index, first=first) + more
        path = path + figures.compute_s(index, first=first) + more
        busy = busy + repeat * figures.busy_s
        held = held + repeat * figures.held_s
        calls = calls + repeat * figures.calls
    bounds = (device, busy.max(axis=-1), calls * terms.call_s, _contended_s(busy, held, terms.slowdown))
    result: Figures = np.maximum.reduce(np.broadcast_arrays(*bounds))
    return result


def _contended_s(busy_s: Figures, held_s: Figures, slowdown: float) -> Figures:
    """Seconds of a block whose compute is slowed down by s beside collectives.

    Without the slow-down the block takes T, computes for w and is idle for T - w. Collectives run for at least u, the
    busiest stream of them, so beside compute for at least u - (T - w); each second of that leaves s / (1 + s) of work
    undone. Collectives that hold the compute stream for h come on top: w + h + s / (1 + s) (u - T + w), and not less
    than T. For every T that is w + h + s / (1 + 2 s) (u - h) or more.
    """
    work = busy_s[..., _COMPUTE]
    collectives = np.delete(busy_s, _COMPUTE, axis=-1).max(axis=-1)
    result: Figures = work + held_s + slowdown / (1 + 2 * slowdown) * np.maximum(0.0, collectives - held_s)
    return result
