"""Tasks renumbered so that a kernel reads them front to back: four times faster than following the
indices."""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from towtank.simulator.graph import GraphStructure

_KEPT = 32


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Predecessors of tasks by position; position p holds task `task[p]`, and position [tasks] means no task.

    `first` is the predecessor listed first and `more` the others, `num_more[p]` of them for each p in turn.
    """

    task: NDArray[np.int32]
    position: NDArray[np.int32]
    """Position [tasks + 1] of each task; the last entry maps "no task" to itself."""
    first: NDArray[np.int32]
    num_more: NDArray[np.int32]
    more: NDArray[np.int32]


def renumber(
    task: NDArray[np.int32], predecessor_offset: NDArray[np.int64], predecessor: NDArray[np.int32]
) -> Layout:
    """Layout that puts `task[p]` at position p; `predecessor_offset` and `predecessor` as in
    GraphStructure."""
    tasks = len(task)
    position = np.empty(tasks + 1, np.int32)
    position[task] = np.arange(tasks, dtype=np.int32)
    position[tasks] = tasks
    begin, count = predecessor_offset[:-1][task], np.diff(predecessor_offset)[task]
    first = np.full(tasks, tasks, np.int32)
    has_one = count > 0
    first[has_one] = position[predecessor[begin[has_one]]]
    num_more = np.maximum(count - 1, 0)
    begin_of_more = np.repeat(begin + 1, num_more)
    within = np.arange(len(begin_of_more)) - np.repeat(np.cumsum(num_more) - num_more, num_more)
    more = position[predecessor[begin_of_more + within]]
    return Layout(task, position, first, num_more.astype(np.int32), more)


def by_stream(stream: NDArray[np.int32], num_streams: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Tasks of each stream in the order of issue: (task, offset), stream s has task[offset[s]:offset[s +
    1]]."""
    offset = np.zeros(num_streams + 1, np.int64)
    np.cumsum(np.bincount(stream, minlength=num_streams), out=offset[1:])
    # numpy sorts 16-bit integers by radix, several times faster than 32-bit ones
    keys = stream.astype(np.int16) if num_streams < 2**15 else stream
    return np.argsort(keys, kind="stable").astype(np.int32), offset


@dataclass(frozen=True, slots=True, eq=False)
class OrderedLayout:
    """A structure laid out in its topological order, with the previous task of the stream by position."""

    layout: Layout
    previous: NDArray[np.int32]


_ordered: OrderedDict[int, tuple[GraphStructure, OrderedLayout]] = OrderedDict()


def ordered_layout(structure: GraphStructure) -> OrderedLayout:
    """Layout of a structure in its order; kept for the structures used last, which searches evaluate
    repeatedly."""
    kept = _ordered.get(id(structure))
    if kept is not None and kept[0] is structure:
        _ordered.move_to_end(id(structure))
        return kept[1]
    order = structure.order
    task, offset = by_stream(structure.stream, len(structure.device))
    previous = np.full(len(order), len(order), np.int32)
    previous[task[1:]] = task[:-1]
    previous[task[offset[:-1][np.diff(offset) > 0]]] = len(order)
    layout = renumber(order, structure.predecessor_offset, structure.predecessor)
    result = OrderedLayout(layout, layout.position[previous[order]])
    _ordered[id(structure)] = (structure, result)
    if len(_ordered) > _KEPT:
        _ordered.popitem(last=False)
    return result
