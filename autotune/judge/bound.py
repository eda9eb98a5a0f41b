"""Lower bounds of the step times of many plans at once: the pieces of `simulator.bounds`, gathered by key."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.judge.ends import EndJudge
from towtank.autotune.judge.grid import Grid
from towtank.autotune.judge.keys import Columns, compressed, grouped
from towtank.autotune.judge.layouts import Layout, layouts
from towtank.autotune.judge.templates import KeyFigures, TemplateJudge
from towtank.autotune.space.table import PlanTable
from towtank.autotune.task import TuningTask
from towtank.simulator.block_bound import TemplateFigures, Terms, block_bound_s
from towtank.simulator.block_time import host_call_s
from towtank.simulator.bounds import (
    StageEnds,
    StepTerms,
    chunk_layers,
    step_bounds_s,
)
from towtank.simulator.cost.model import CostModel
from towtank.simulator.lowering.sizes import local_sizes
from towtank.simulator.lowering.stages import Chunk, Part, parts_of
from towtank.simulator.plan import Plan
from towtank.simulator.predict import possible_overlap
from towtank.simulator.program import send_message

_MOST_PASSES = 4_000_000
"""Chunks times rows that are judged at once: what bounds memory."""

_SEND_FIELDS = (
    "sequence",
    "micro_batch",
    "context",
    "sequence_parallel",
    "tensor_x",
    "tensor_y",
    "precision",
)


def step_bound_s(task: TuningTask, table: PlanTable) -> NDArray[np.float64]:
    """Seconds that a step of each plan takes at least under the compiled engine, shape [rows].

    Plans of the table must have passed their rules. As `predict.bound` of each.

    Raises:
        UnknownFigure: the machine's profile lacks a figure that a plan needs.
    """
    if not table.num_rows:
        return np.empty(0)
    return _Judge(task, Columns(table)).bounds()


class _Judge:
    """Bounds of the plans of one table."""

    def __init__(self, task: TuningTask, columns: Columns) -> None:
        self.task = task
        self.columns = columns
        self.grid = Grid(task, columns)
        self.templates = TemplateJudge(task, columns, self.grid)
        self.ends = EndJudge(task, columns, self.grid)
        self.members = columns.number("tensor_x") * columns.number("tensor_y")
        self.micro_batches = columns.number("global_batch") // (
            columns.number("micro_batch") * columns.number("data") * columns.number("tensor_z")
        )
        self.send_s = self._sends()

    def cost(self, plan: Plan) -> CostModel:
        """Costs of a plan, with the overlap that the machine allows."""
        possible = possible_overlap(plan, self.task.machine)
        return CostModel(self.task.machine, possible, self.task.stack, self.task.profile_dirs)

    def _sends(self) -> NDArray[np.float64]:
        """Seconds of a transfer between stages, shape [rows]; 0 without a pipeline."""

        def seconds(plan: Plan) -> tuple[float]:
            if plan.pipeline == 1:
                return (0.0,)
            return (
                self.cost(plan).duration_s(send_message(local_sizes(self.task.model, plan, self.task.stack))),
            )

        stride = compressed(self.columns.stride("pipeline"))
        return self.columns.evaluated((*_SEND_FIELDS, "pipeline"), seconds, stride)[:, 0]

    def bounds(self) -> NDArray[np.float64]:
        """Bound of each row."""
        result = np.empty(self.columns.table.num_rows)
        for layout in layouts(self.task, self.columns):
            layers = chunk_layers(layout.stages)
            ends = self.ends.of(layout)
            for part in _slices(layout, max(1, _MOST_PASSES // layers.size)):
                rows = layout.rows[part]
                forward, backward = self._blocks(layout, rows)
                terms = StepTerms(
                    schedule=self.columns.table.plan(int(rows[0])).schedule_name,
                    layers=layers,
                    num_micro_batches=self.micro_batches[rows],
                    send_s=self.send_s[rows],
                    blocking_sends=~self.templates.overlaps("pipeline")[rows],
                    ends=StageEnds(ends[part]),
                )
                result[rows] = step_bounds_s(forward, backward, terms)
        return result

    def _blocks(self, layout: Layout, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Bounds of the blocks, shape [forward or backward, rows, chunks, stages]."""
        pipeline = len(layout.stages)
        slowdown = self.task.stack.fitted.compute_slowdown
        terms = Terms(slowdown, host_call_s(self.task.stack.host, pipeline, self.members[rows]))
        result = np.empty((2, len(rows), len(layout.stages[0]), pipeline))
        known: dict[tuple[object, ...], NDArray[np.float64]] = {}
        for same in layout.alike:
            for chunk in layout.stages[same[0]]:
                if chunk.signature not in known:
                    known[chunk.signature] = self._block_pair(layout, chunk, rows, terms)
                result[:, :, chunk.index, list(same)] = known[chunk.signature][..., None]
        return result

    def _block_pair(
        self, layout: Layout, chunk: Chunk, rows: NDArray[np.intp], terms: Terms
    ) -> NDArray[np.float64]:
        """Bounds of the forward and the backward block of a chunk, shape [2, rows]."""
        sizes = local_sizes(self.task.model, layout.columns.table.plan(0), self.task.stack)
        pair = np.empty((2, len(rows)))
        for backward in (False, True):
            segments = self._segments(parts_of(sizes, chunk, backward=backward), rows, backward=backward)
            pair[int(backward)] = block_bound_s(segments, terms) if segments else 0.0
        return pair

    def _segments(
        self, parts: Sequence[Part], rows: NDArray[np.intp], *, backward: bool
    ) -> list[tuple[TemplateFigures, int]]:
        return [(self._figures(part, backward=backward).of(rows), len(part.prefixes)) for part in parts]

    def _figures(self, part: Part, *, backward: bool) -> KeyFigures:
        templates = self.templates
        if part.name == "layer":
            if backward:
                return templates.backward[part.kind, part.recomputed, part.cached]
            return templates.forward[part.kind]
        if part.name == "projection":
            return templates.predictions[backward]
        return templates.ends[part.name, backward]


def _slices(layout: Layout, most: int) -> Iterator[NDArray[np.intp]]:
    """Places in a layout's rows of one schedule, at most so many at once."""
    groups = grouped(layout.columns.fields("schedule"))
    for number in range(len(groups.first)):
        places = np.flatnonzero(groups.group == number)
        for begin in range(0, len(places), most):
            yield places[begin : begin + most]
