"""The step time of many plans of one task: equal to `predict(...).step_time_s` to the bit, and nothing else.

No graphs, timelines, breakdowns, memory or provenance. What depends on few fields of a plan is worked out once for each
combination of these (`TraceMemo`): blocks, collectives, ends of the step, layers of stages. What is left for each plan
is one pass, or with contention two, over the passes of its pipeline.
"""

from collections import OrderedDict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.search.block_seconds import block_seconds
from towtank.autotune.search.trace_memo import TraceMemo
from towtank.autotune.task import TuningTask
from towtank.simulator.cost.model import CostModel
from towtank.simulator.lowering.sizes import Sizes, local_sizes
from towtank.simulator.lowering.stages import Chunk, chunks_of, distinct_stages, segments_of
from towtank.simulator.lowering.weights import gradient_messages, parameter_messages, stage_weights
from towtank.simulator.operations import Message
from towtank.simulator.plan import Plan
from towtank.simulator.predict import possible_overlap
from towtank.simulator.program import send_message
from towtank.simulator.schedules import schedule
from towtank.simulator.schedules.slots import Slots
from towtank.simulator.step_ends import gradient_norm_s, optimizer_s, unrolled_weights
from towtank.simulator.waiting import slowest

_SLOTS_KEPT = 40_000_000
"""Slots of schedules that are kept: 7 bytes each."""


class _Group(NamedTuple):
    """Stages that do the same."""

    members: NDArray[np.intp]
    chunks: tuple[Chunk, ...]
    signature: tuple[object, ...]


class _Layout(NamedTuple):
    """Stages of a plan in groups, and the layers of all [stages, chunks]."""

    groups: tuple[_Group, ...]
    layers: NDArray[np.int64]


class _Ends(NamedTuple):
    """Seconds of one stage besides its passes."""

    norm: float
    optimizer: float
    reduce_all: float
    gather_all: float
    reduce: tuple[tuple[float, ...], ...]
    """By [chunk][layer]."""
    gather: tuple[tuple[float, ...], ...]


class StepClock:
    """Step times of the plans of a task, one after the other; what they share is worked out once."""

    def __init__(self, task: TuningTask) -> None:
        self.task = task
        self._pace = slowest(task.machine, task.devices)
        self._slowdown = task.stack.fitted.compute_slowdown
        self._layout = TraceMemo(_layout)
        self._block = TraceMemo(self._block_seconds)
        self._ends = TraceMemo(self._end_seconds)
        self._send = TraceMemo(lambda sizes: self._cost(sizes).duration_s(send_message(sizes)))
        self._gathers = TraceMemo(
            lambda sizes: bool(parameter_messages(sizes, stage_weights(sizes, chunks_of(sizes)[0])))
        )
        self._slots: OrderedDict[tuple[str, int, int, int], Slots] = OrderedDict()
        self._num_slots = 0

    def seconds(self, plan: Plan) -> float:
        """Step time in seconds of a plan that has passed its rules and occupies the devices of the task.

        Raises:
            UnknownFigure: the machine's profile lacks a figure that the step needs.
        """
        from towtank.autotune.search.kernels.pipeline import Order, pipeline_makespan

        # not through its cache, which would hash model, plan and stack each time
        sizes = local_sizes.__wrapped__(
            self.task.model, possible_overlap(plan, self.task.machine), self.task.stack
        )
        plan = sizes.plan
        layout = self._layout(sizes)
        slots = self._order(plan)
        gathers = self._gathers(sizes)
        order = Order(
            slots.phase,
            slots.chunk,
            slots.micro_batch,
            layout.layers,
            plan.num_micro_batches,
            blocking_sends=not sizes.overlap.pipeline,
            unroll_first_forward=gathers and bool(sizes.overlap.parameter_gather),
            unroll_last_backward=bool(sizes.overlap.data_gradients),
            gather_after=gathers and not sizes.overlap.parameter_gather,
        )
        return float(pipeline_makespan(order, self._durations(sizes, layout), self._slowdown))

    def _cost(self, sizes: Sizes) -> CostModel:
        task = self.task
        return CostModel(task.machine, sizes.plan, task.stack, task.profile_dirs, pace=self._pace)

    def _order(self, plan: Plan) -> Slots:
        """Schedule of a plan; those used last are kept up to a total size."""
        key = (plan.schedule_name, plan.pipeline, plan.virtual_stages, plan.num_micro_batches)
        found = self._slots.get(key)
        if found is None:
            found = self._slots[key] = schedule.__wrapped__(*key)
            self._num_slots += found.phase.size
            while self._num_slots > _SLOTS_KEPT and len(self._slots) > 1:
                self._num_slots -= self._slots.popitem(last=False)[1].phase.size
        self._slots.move_to_end(key)
        return found

    def _durations(self, sizes: Sizes, layout: _Layout) -> "Durations":
        from towtank.autotune.search.kernels.pipeline import Durations

        stages, chunks = layout.layers.shape
        most = max(1, int(layout.layers.max()))
        passes, layered = np.zeros((2, stages, chunks)), np.zeros((2, stages, chunks, most))
        ends = np.empty((4, stages))
        for group in layout.groups:
            members = group.members
            for chunk in group.chunks:
                passes[0, members, chunk.index] = self._pass(sizes, chunk, backward=False)
                passes[1, members, chunk.index] = self._pass(sizes, chunk, backward=True)
            found = self._ends(sizes, group.signature, group.chunks)
            ends[:, members] = np.array(found[:4])[:, None]
            for index in range(chunks):
                layered[0, members, index, : len(found.gather[index])] = found.gather[index]
                layered[1, members, index, : len(found.reduce[index])] = found.reduce[index]
        return Durations(
            passes=passes,
            layer_parts=passes / np.maximum(layout.layers, 1),
            gather=layered[0],
            reduce=layered[1],
            send=self._send(sizes) if stages > 1 else 0.0,
            norm=ends[0],
            optimizer=ends[1],
            reduce_all=ends[2],
            gather_after=ends[3],
        )

    def _pass(self, sizes: Sizes, chunk: Chunk, *, backward: bool) -> float:
        return self._block(sizes, (backward, chunk.signature), chunk, backward)

    def _block_seconds(self, sizes: Sizes, chunk: Chunk, backward: bool) -> float:
        segments = segments_of(sizes, chunk, backward=backward)
        return block_seconds(segments, self._cost(sizes), self._slowdown)

    def _end_seconds(self, sizes: Sizes, chunks: tuple[Chunk, ...]) -> _Ends:
        """What a stage does besides its passes."""
        cost = self._cost(sizes)
        whole = stage_weights(sizes, chunks)

        def total(messages: list[Message]) -> float:
            return sum((cost.duration_s(message) for message in messages), 0.0)

        reduce, gather = [], []
        reduce_all = total(gradient_messages(sizes, whole))
        for chunk in chunks:
            weights = [each for _, each in unrolled_weights(sizes, chunk)]
            known = {
                each: (total(gradient_messages(sizes, each)), total(parameter_messages(sizes, each)))
                for each in set(weights)
            }
            reduce.append(tuple(known[each][0] for each in weights))
            if (
                chunk.num_layers == 0
            ):  # as `step` has it: the first chunk reduces the gradients of the whole stage
                reduce[-1] = (reduce_all if chunk.index == 0 else 0.0,)
            gather.append(tuple(known[each][1] for each in weights))
        return _Ends(
            gradient_norm_s(sizes, chunks, cost),
            optimizer_s(sizes, chunks, cost),
            reduce_all,
            total(parameter_messages(sizes, whole)),
            tuple(reduce),
            tuple(gather),
        )


def _layout(sizes: Sizes) -> _Layout:
    stages = chunks_of(sizes)
    groups = tuple(
        _Group(
            np.array(members),
            stages[members[0]],
            tuple(chunk.signature for chunk in stages[members[0]]),
        )
        for members in distinct_stages(sizes)
    )
    layers = np.array([[chunk.num_layers for chunk in chunks] for chunks in stages], np.int64)
    return _Layout(groups, layers)
