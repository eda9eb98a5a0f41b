"""The step time of many plans of one task: equal to `predict(...).step_time_s` to the bit, and nothing else.

No graphs, timelines, breakdowns, memory or provenance. What depends on few fields of a plan is worked out once for
each combination of these (`TraceMemo`): templates, collectives, ends of the step, layers of stages. What is left for
each plan is one walk, or with contention two, over the passes of its pipeline.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.search.block_seconds import Costed, block_seconds, costed
from towtank.autotune.search.trace_memo import TraceMemo
from towtank.autotune.task import TuningTask
from towtank.simulator.block_time import host_call_s
from towtank.simulator.cost.model import CostModel
from towtank.simulator.lowering.sizes import Sizes, local_sizes
from towtank.simulator.lowering.stages import (
    Chunk,
    Part,
    chunks_of,
    distinct_stages,
    parts_of,
    template_of,
)
from towtank.simulator.lowering.weights import gradient_messages, parameter_messages, stage_weights
from towtank.simulator.plan import Plan
from towtank.simulator.predict import possible_overlap
from towtank.simulator.program import send_message
from towtank.simulator.schedules import schedule
from towtank.simulator.step_ends import (
    gradient_norm_s,
    in_buckets,
    layer_seconds,
    messages_s,
    optimizer_s,
)
from towtank.simulator.waiting import slowest

if TYPE_CHECKING:
    from towtank.autotune.search.kernels.pipeline import Step
    from towtank.autotune.search.kernels.walk import Walk

_PASSES_KEPT = 8_000_000
"""Passes of schedules that are kept: 14 bytes each."""


_Parts = tuple[tuple[Part, int], ...]
"""Templates of a pass, each with how often it is repeated."""


class _Group(NamedTuple):
    """Stages that do the same."""

    members: NDArray[np.intp]
    chunks: tuple[Chunk, ...]
    signature: tuple[object, ...]
    parts: tuple[tuple[_Parts, _Parts], ...]
    """Forward and backward pass of each chunk."""


class _Layout(NamedTuple):
    """Stages of a plan in groups, and the layers of all [stages, chunks]."""

    groups: tuple[_Group, ...]
    layers: NDArray[np.int64]
    most_layers: int


class _Ends(NamedTuple):
    """Seconds of one stage besides its passes."""

    whole: NDArray[np.float64]
    """Reduction of all gradients, norm, optimizer, gather of all parameters, shape [4, 1]."""
    layered: NDArray[np.float64]
    """Gathers and reductions [2, 1, chunks, layers] where they go layer by layer."""


class StepClock:
    """Step times of the plans of a task, one after the other; what they share is worked out once."""

    def __init__(self, task: TuningTask) -> None:
        self.task = task
        self._pace = slowest(task.machine, task.devices)
        self._slowdown = task.stack.fitted.compute_slowdown
        self._layout = TraceMemo(_layout)
        self._part = TraceMemo(self._costed)
        """Its answers live as long as this, so they are told apart by their identity."""
        self._blocks: dict[tuple[object, ...], float] = {}
        self._ends = TraceMemo(self._end_seconds)
        self._send = TraceMemo(lambda sizes: self._cost(sizes).duration_s(send_message(sizes)))
        self._gathers = TraceMemo(
            lambda sizes: bool(parameter_messages(sizes, stage_weights(sizes, chunks_of(sizes)[0])))
        )
        self._walks: OrderedDict[tuple[str, int, int, int], Walk] = OrderedDict()
        self._num_passes = 0

    def seconds(self, plan: Plan) -> float:
        """Step time in seconds of a plan that has passed its rules and occupies the devices of the task.

        Raises:
            UnknownFigure: the machine's profile lacks a figure that the step needs.
        """
        from towtank.autotune.search.kernels.pipeline import pipeline_makespan

        # not through its cache, which would hash model, plan and stack each time
        sizes = local_sizes.__wrapped__(
            self.task.model, possible_overlap(plan, self.task.machine), self.task.stack
        )
        return pipeline_makespan(self._walk(sizes.plan), self._step(sizes), self._slowdown)

    def _cost(self, sizes: Sizes) -> CostModel:
        task = self.task
        return CostModel(task.machine, sizes.plan, task.stack, task.profile_dirs, pace=self._pace)

    def _walk(self, plan: Plan) -> "Walk":
        """Passes of a plan's schedule in order; those used last are kept up to a total size."""
        from towtank.autotune.search.kernels.walk import walk

        key = (plan.schedule_name, plan.pipeline, plan.virtual_stages, plan.num_micro_batches)
        found = self._walks.get(key)
        if found is None:
            found = self._walks[key] = walk(schedule.__wrapped__(*key), *key[2:])
            self._num_passes += found.num_passes
            while self._num_passes > _PASSES_KEPT and len(self._walks) > 1:
                self._num_passes -= self._walks.popitem(last=False)[1].num_passes
        self._walks.move_to_end(key)
        return found

    def _step(self, sizes: Sizes) -> "Step":
        """Durations of a step by its groups of stages, and how it is built."""
        from towtank.autotune.search.kernels.pipeline import Step

        layout, gathers, overlap = self._layout(sizes), self._gathers(sizes), sizes.overlap
        stages, chunks = layout.layers.shape
        passes, layered = np.zeros((2, stages, chunks)), np.zeros((2, stages, chunks, layout.most_layers))
        ends = np.empty((4, stages))
        for members, group, signature, parts in layout.groups:
            for index, (forward, backward) in enumerate(parts):
                passes[0, members, index] = self._pass(sizes, forward, backward=False)
                passes[1, members, index] = self._pass(sizes, backward, backward=True)
            found = self._ends(sizes, signature, group)
            ends[:, members] = found.whole
            layered[:, members, :, : found.layered.shape[3]] = found.layered
        return Step(
            layers=layout.layers,
            blocking_sends=not overlap.pipeline,
            unroll_first_forward=gathers and bool(overlap.parameter_gather),
            unroll_last_backward=bool(overlap.data_gradients),
            gathers_after=gathers and not overlap.parameter_gather,
            by_chunk=self.task.stack.communication.collectives_by_chunk,
            passes=passes,
            gather=layered[0],
            reduce=layered[1],
            send=self._send(sizes) if stages > 1 else 0.0,
            reduce_all=ends[0],
            norm=ends[1],
            optimizer=ends[2],
            gather_after=ends[3],
        )

    def _pass(self, sizes: Sizes, parts: tuple[tuple[Part, int], ...], *, backward: bool) -> float:
        """Seconds of a pass over one chunk; equal ones once."""
        plan = sizes.plan
        members, pipelined = plan.tensor_x * plan.tensor_y, plan.pipeline > 1
        found = [(self._part(sizes, (backward, part), part, backward), repeat) for part, repeat in parts]
        key = (pipelined, members, *((id(part), repeat) for part, repeat in found))
        seconds = self._blocks.get(key)
        if seconds is None:
            host = float(host_call_s(self.task.stack.host, plan.pipeline, members))
            seconds = self._blocks[key] = block_seconds(found, self._slowdown, host)
        return seconds

    def _costed(self, sizes: Sizes, part: Part, backward: bool) -> Costed:
        return costed(template_of(sizes, part, backward=backward), self._cost(sizes))

    def _end_seconds(self, sizes: Sizes, chunks: tuple[Chunk, ...]) -> _Ends:
        """What a stage does besides its passes."""
        cost = self._cost(sizes)
        all_weights = stage_weights(sizes, chunks)
        reduce_all = messages_s(in_buckets(sizes, all_weights, gradient_messages), cost)
        layered = np.zeros((2, 1, len(chunks), max(1, *(chunk.num_layers for chunk in chunks))))
        for chunk in chunks:
            for kind, collectives in enumerate((parameter_messages, gradient_messages)):
                for layer, seconds in layer_seconds(sizes, chunk, collectives, cost):
                    layered[kind, 0, chunk.index, max(0, layer)] = seconds
            if chunk.num_layers == 0:  # as `step` has it: the first chunk reduces the gradients of the stage
                layered[1, 0, chunk.index, 0] = reduce_all if chunk.index == 0 else 0.0
        whole = (
            reduce_all,
            gradient_norm_s(sizes, chunks, cost),
            optimizer_s(sizes, chunks, cost),
            messages_s(in_buckets(sizes, all_weights, parameter_messages), cost),
        )
        return _Ends(np.array(whole)[:, None], layered)


def _layout(sizes: Sizes) -> _Layout:
    stages = chunks_of(sizes)
    groups = tuple(
        _Group(
            np.array(members),
            stages[members[0]],
            tuple(chunk.signature for chunk in stages[members[0]]),
            tuple(
                (_parts(sizes, chunk, backward=False), _parts(sizes, chunk, backward=True))
                for chunk in stages[members[0]]
            ),
        )
        for members in distinct_stages(sizes)
    )
    layers = np.array([[chunk.num_layers for chunk in chunks] for chunks in stages], np.int64)
    return _Layout(groups, layers, max(1, int(layers.max())))


def _parts(sizes: Sizes, chunk: Chunk, *, backward: bool) -> _Parts:
    parts = parts_of(sizes, chunk, backward=backward)
    return tuple((part._replace(prefixes=()), len(part.prefixes)) for part in parts)
