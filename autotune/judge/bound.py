"""Lower bounds of the step times of many plans at once: the pieces of `simulator.bounds`, gathered by key."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.judge.ends import EndJudge
from towtank.autotune.judge.grid import Grid
from towtank.autotune.judge.keys import Columns, compressed, grouped
from towtank.autotune.judge.layouts import Layout, layouts
from towtank.autotune.judge.templates import KeyFigures, TemplateJudge
from towtank.autotune.judge.work import WorkJudge
from towtank.autotune.space.table import PlanTable
from towtank.autotune.task import TuningTask
from towtank.simulator.block_bound import TemplateFigures, Terms, block_bound_s
from towtank.simulator.block_time import host_call_s
from towtank.simulator.bounds import (
    StageEnds,
    StepTerms,
    end_chunk_layers,
    stage_entries,
    step_bounds_s,
)
from towtank.simulator.engines.bounds import Passes, PipelineShape
from towtank.simulator.lowering.sizes import local_sizes
from towtank.simulator.lowering.stages import Chunk, Part, parts_of
from towtank.simulator.plan import Plan
from towtank.simulator.program import send_message

_MOST_ROWS = 100_000
"""Rows that are judged at once: what bounds memory."""

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
    return _Judge(task, Columns(table), TemplateJudge).bounds()


def work_bound_s(task: TuningTask, table: PlanTable) -> NDArray[np.float64]:
    """As `step_bound_s`, but of layers with experts by the work of their streams alone; shape [rows].

    Never above `step_bound_s`, and far quicker where plans differ in how their experts are laid out.

    Raises:
        UnknownFigure: the machine's profile lacks a figure that a plan needs.
    """
    if not table.num_rows:
        return np.empty(0)
    return _Judge(task, Columns(table), WorkJudge).bounds()


class _Judge:
    """Bounds of the plans of one table."""

    def __init__(self, task: TuningTask, columns: Columns, templates: type[TemplateJudge]) -> None:
        self.task = task
        self.columns = columns
        self.grid = Grid(task, columns)
        self.templates = templates(task, columns, self.grid)
        self.ends = EndJudge(task, columns, self.grid)
        self.members = columns.number("tensor_x") * columns.number("tensor_y")
        self.micro_batches = columns.number("global_batch") // (
            columns.number("micro_batch") * columns.number("data") * columns.number("tensor_z")
        )
        self.send_s = self._sends()

    def _sends(self) -> NDArray[np.float64]:
        """Seconds of a transfer between stages, shape [rows]; 0 without a pipeline."""

        def sent(plan: Plan) -> tuple[float]:
            return (send_message(local_sizes(self.task.model, plan, self.task.stack)).bytes,)

        num_bytes = self.columns.evaluated(_SEND_FIELDS, sent)[:, 0]
        sizes = compressed(np.unique(num_bytes, return_inverse=True)[1])
        keys = grouped([self.grid.codes("pipeline"), sizes])
        grid_keys = self.grid.keys.group[keys.first]
        return self.grid.seconds("send", "pipeline", grid_keys, num_bytes[keys.first])[keys.group]

    def bounds(self) -> NDArray[np.float64]:
        """Bound of each row."""
        result = np.empty(self.columns.table.num_rows)
        for layout in layouts(self.task, self.columns):
            ends = self.ends.of(layout)
            firsts, counts = stage_entries(layout.alike)
            shape = PipelineShape(len(layout.stages[0]), np.array(counts))
            layers = end_chunk_layers([layout.stages[stage] for stage in firsts])
            forward, backward = self._passes(layout, firsts)
            for part in _slices(layout):
                rows = layout.rows[part]
                terms = StepTerms(
                    schedule=self.columns.table.plan(int(rows[0])).schedule_name,
                    shape=shape,
                    layers=layers,
                    num_micro_batches=self.micro_batches[rows],
                    send_s=self.send_s[rows],
                    blocking_sends=~self.templates.overlaps("pipeline")[rows],
                    ends=StageEnds(ends[part][:, firsts]),
                )
                result[rows] = step_bounds_s(_part(forward, part), _part(backward, part), terms)
        return result

    def _passes(self, layout: Layout, stages: Sequence[int]) -> tuple[Passes, Passes]:
        """Bounds of forward and backward passes through some stages, shapes [rows, stages]."""
        keys = grouped([compressed(figures.group[layout.rows]) for figures in self.templates.all()])
        rows = layout.rows[keys.first]
        call = host_call_s(self.task.stack.host, len(layout.stages), self.members[rows])
        terms = Terms(self.task.stack.fitted.compute_slowdown, call)
        blocks: dict[tuple[object, ...], NDArray[np.float64]] = {}
        result = np.zeros((2, 3, len(rows), len(stages)))
        for place, stage in enumerate(stages):
            chunks = layout.stages[stage]
            for chunk in chunks:
                if chunk.signature not in blocks:
                    blocks[chunk.signature] = self._block_pair(layout, chunk, rows, terms)
                result[:, 2, :, place] += blocks[chunk.signature]
            for number, chunk in enumerate((chunks[0], chunks[-1])):
                result[:, number, :, place] = blocks[chunk.signature]
        forward, backward = (Passes(*each[:, keys.group]) for each in result)
        return forward, backward

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


def _part(passes: Passes, rows: NDArray[np.intp]) -> Passes:
    return Passes(passes.first_s[rows], passes.last_s[rows], passes.total_s[rows])


def _slices(layout: Layout) -> Iterator[NDArray[np.intp]]:
    """Places in a layout's rows of one schedule, not too many at once."""
    groups = grouped(layout.columns.fields("schedule"))
    for number in range(len(groups.first)):
        places = np.flatnonzero(groups.group == number)
        for begin in range(0, len(places), _MOST_ROWS):
            yield places[begin : begin + _MOST_ROWS]
