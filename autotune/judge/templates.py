"""Figures of the templates of many plans: lowered once for each size, costed once for each way their groups lie."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.judge.grid import EXPERT_GROUPS, Grid
from towtank.autotune.judge.keys import Codes, Columns, collector_paused, compressed, grouped, masked
from towtank.autotune.task import TuningTask
from towtank.simulator.block_bound import TemplateFigures, figures_of_many
from towtank.simulator.groups import expert_weight_shards
from towtank.simulator.lowering.ends import embedding_template, head_template, prediction_projection_template
from towtank.simulator.lowering.layer import backward_template, forward_template, layer_kind
from towtank.simulator.lowering.sizes import Sizes, local_sizes, resolve_overlap
from towtank.simulator.operations import Message, Operation
from towtank.simulator.plan import Overlap, Plan

Kind = tuple[bool, int | None]
Template = tuple[Operation, ...]
Rows = NDArray[np.intp]


class Passes(NamedTuple):
    """What a template runs."""

    forward: bool
    backward: bool


FiguresOf = Callable[[Template, NDArray[np.float64]], NDArray[np.float64]]
"""Figures [keys, NUM_FIGURES] of a template from the seconds [operations, keys] of its operations."""

SWITCHES = tuple(Overlap.__dataclass_fields__)

LAYER_GROUPS = ("tensor_x", "tensor_y", "context", "weight_shard")
_END_GROUPS = ("tensor_x", "tensor_xy", "weight_shard")


@dataclass(frozen=True, slots=True, eq=False)
class KeyFigures:
    """Figures of a template by key: `values` [keys, NUM_FIGURES], `group` [rows] the key of each row."""

    values: NDArray[np.float64]
    group: Rows

    def of(self, rows: Rows) -> TemplateFigures:
        """Figures of some rows."""
        return TemplateFigures(self.values, self.group[rows])


class TemplateJudge:
    """Figures of all templates that the plans of a table need."""

    def __init__(self, task: TuningTask, columns: Columns, grid: Grid) -> None:
        self.task = task
        self.columns = columns
        self.grid = grid
        sizes = self.sizes(columns.table.plan(0))
        layers = range(task.model.num_layers)
        self.kinds = tuple(dict.fromkeys(layer_kind(sizes, layer) for layer in layers))
        self.single_queue = task.machine.device.takes_turns
        overlap = columns.derived(("overlap", "pipeline", "virtual_stages"), self._switches)
        self._overlap = {name: overlap >> bit & 1 for bit, name in enumerate(SWITCHES)}
        self._token_columns, self._shard_columns = self._tokens(), self._shards()
        self._dense_columns = self._dense()
        self.forward = self._layers(
            self._dense_columns, forward_template, Passes(forward=True, backward=False)
        )
        self.backward = self._backward_layers()
        self.ends = self._ends()
        self.predictions = self._predictions() if task.model.mtp_layers else {}

    def _switches(self, plan: Plan) -> int:
        overlap = resolve_overlap(plan, self.task.stack)
        return sum(bool(getattr(overlap, name)) << bit for bit, name in enumerate(SWITCHES))

    def overlaps(self, switch: str) -> NDArray[np.bool_]:
        """Whether a switch is in force, shape [rows]."""
        return self._overlap[switch] > 0

    def all(self) -> list[KeyFigures]:
        """Figures of all templates."""
        layers = [*self.forward.values(), *self.backward.values()]
        return [*layers, *self.ends.values(), *self.predictions.values()]

    def sizes(self, plan: Plan) -> Sizes:
        """Sizes of a plan."""
        return local_sizes(self.task.model, plan, self.task.stack)

    def _evaluated(
        self,
        sizes: Sequence[Codes],
        groups: Sequence[str],
        templates: Callable[[Sizes], Sequence[Template]],
        rows: Rows | None = None,
        figures: FiguresOf | None = None,
    ) -> list[KeyFigures]:
        """Figures of templates whose operations depend on columns `sizes`, and which send over `groups`."""
        count = self.columns.table.num_rows
        chosen = np.arange(count) if rows is None else rows
        if not len(chosen):
            return []
        by_size = grouped([(codes[chosen], size) for codes, size in sizes])
        lies = [self.grid.codes(name) for name in groups]
        size_key = (by_size.group, len(by_size.first))
        by_key = grouped([size_key, *((codes[chosen], size) for codes, size in lies)])
        size_of, grid_of = by_size.group[by_key.first], self.grid.keys.group[chosen[by_key.first]]
        plans = [self.columns.table.plan(int(row)) for row in chosen[by_size.first]]
        with collector_paused():
            lowered = [templates(self.sizes(plan)) for plan in plans]
        group = np.zeros(count, np.intp)
        group[chosen] = by_key.group
        return [
            KeyFigures(
                self._figures([each[number] for each in lowered], size_of, grid_of, figures or self._whole),
                group,
            )
            for number in range(len(lowered[0]))
        ]

    def _whole(self, template: Template, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        return figures_of_many(template, seconds, single_queue=self.single_queue)

    def _figures(
        self, lowered: list[Template], size_of: Rows, grid_of: Rows, figures: FiguresOf
    ) -> NDArray[np.float64]:
        """Figures of each key, which has one of the templates and lies in the grid somewhere; [keys, NUM_FIGURES]."""
        shapes: dict[tuple[object, ...], int] = {}
        shape = np.array([shapes.setdefault(_shape(template), len(shapes)) for template in lowered])
        result: NDArray[np.float64] | None = None
        for number in range(len(shapes)):
            members = np.flatnonzero(shape == number)
            place = np.full(len(lowered), -1)
            place[members] = np.arange(len(members))
            keys = np.flatnonzero(shape[size_of] == number)
            seconds = self._seconds([lowered[each] for each in members], place[size_of[keys]], grid_of[keys])
            found = figures(lowered[members[0]], seconds)
            if result is None:
                result = np.empty((len(size_of), found.shape[1]))
            result[keys] = found
        assert result is not None
        return result

    def _seconds(self, alike: list[Template], size_of: Rows, grid_of: Rows) -> NDArray[np.float64]:
        """Seconds of each operation of templates of one shape, [operations, keys]."""
        cost = self.grid.lies["world"].costs[0]
        seconds = np.empty((len(alike[0]), len(size_of)))
        known: dict[tuple[object, ...], int] = {}
        for index, operation in enumerate(alike[0]):
            works = [template[index].work for template in alike]
            message = operation.work
            if not isinstance(message, Message):
                seconds[index] = np.array([cost.duration_s(work) for work in works])[size_of]
                continue
            sent = np.array([work.bytes for work in works if isinstance(work, Message)])
            same = (message.collective, message.group, message.fan_out, sent.tobytes())
            if same not in known:
                known[same] = index
                seconds[index] = self.grid.seconds(
                    message.collective, message.group, grid_of, sent[size_of], message.fan_out
                )
            seconds[index] = seconds[known[same]]
        return seconds

    def _tokens(self) -> list[Codes]:
        """What decides the sizes of operations."""
        columns = self.columns
        names = (
            "sequence",
            "micro_batch",
            "context",
            "tensor_x",
            "tensor_y",
            "precision",
            "gradient_precision",
        )
        split = columns.number("sequence_parallel") * (columns.number("tensor_x") > 1)
        return [*columns.fields(*names), compressed(split)]

    def _shards(self) -> list[Codes]:
        """What decides what is sent over the weight shards, where there are such."""
        columns = self.columns
        fields = ("tensor_z", "data", "data_shard", "zero_stage", "context")
        shards = columns.derived(fields, lambda plan: plan.weight_shards)
        return [
            compressed(self._counted(shards)),
            masked(self._overlap["all_gather"], shards > 1),
            masked(self._overlap["reduce_scatter"], shards > 1),
        ]

    def _dense(self) -> list[Codes]:
        """What the operations of layers without experts depend on, but for what only the backward pass does."""
        columns = self.columns
        kind = columns.codes("context_kind")[0].astype(np.int64)
        split = columns.number("sequence_parallel") * columns.number("tensor_x") > 1
        return [
            *self._token_columns,
            *self._shard_columns,
            masked(kind, columns.number("context") > 1),
            compressed((columns.number("pipeline") > 1).astype(np.int64)),
            masked(self._overlap["tensor"], split),
        ]

    def _experts(self) -> list[Codes]:
        """What those of layers with experts depend on besides."""
        columns = self.columns
        fields = ("tensor_x", "tensor_y", "tensor_z", "context", "data", "data_shard", "zero_stage")
        shards = columns.derived((*fields, "expert", "expert_tensor"), expert_weight_shards)
        expert = columns.number("expert") > 1
        return [
            *columns.fields("expert", "expert_tensor"),
            masked(self._overlap["expert"], expert),
            masked(self._counted(shards), expert),
            masked(self._overlap["all_gather"], expert & (shards > 1)),
            masked(self._overlap["reduce_scatter"], expert & (shards > 1)),
        ]

    def _counted(self, shards: NDArray[np.int64]) -> NDArray[np.int64]:
        """Shards as far as sizes depend on them: by number where a kernel of its own adds up gradients of one."""
        return (
            (shards > 1).astype(np.int64) if self.task.stack.kernels.fused_gradient_accumulation else shards
        )

    def _layers(
        self,
        columns: list[Codes],
        templates: Callable[[Sizes, Kind], Template],
        passes: Passes,
        rows: Rows | None = None,
    ) -> dict[Kind, KeyFigures]:
        """Figures of layers by kind; those without experts do not depend on what is said of experts."""
        result: dict[Kind, KeyFigures] = {}
        for experts in (False, True):
            kinds = [kind for kind in self.kinds if kind[0] == experts]
            if not kinds:
                continue

            def lowered(sizes: Sizes, kinds: list[Kind] = kinds) -> list[Template]:
                return [templates(sizes, kind) for kind in kinds]

            if experts:
                found = self._with_experts(columns, lowered, passes, rows)
            else:
                found = self._evaluated(columns, LAYER_GROUPS, lowered, rows)
            result |= dict(zip(kinds, found, strict=False))
        return result

    def _with_experts(
        self,
        columns: list[Codes],
        lowered: Callable[[Sizes], list[Template]],
        passes: Passes,
        rows: Rows | None,
    ) -> list[KeyFigures]:
        """Figures of layers with experts, whose other operations depend on some columns."""
        return self._evaluated([*columns, *self._experts()], LAYER_GROUPS + EXPERT_GROUPS, lowered, rows)

    def _backward_columns(self) -> list[Codes]:
        columns = self.columns
        split = columns.number("tensor_x") * columns.number("tensor_y") > 1
        return [*self._dense_columns, masked(self._overlap["backward_all_reduce"], split)]

    def _backward_layers(self) -> dict[tuple[Kind, bool, bool], KeyFigures]:
        """By kind, whether it is recomputed, and whether it finds its weights still gathered."""
        columns = self.columns
        full = columns.column("recompute") == "full"
        needs = {
            (False, False): ~full | (columns.number("recompute_every") > 1),
            (True, False): full,
            (True, True): full & (columns.number("cached_layers") > 0),
        }
        result = {}
        selective = (columns.column("recompute") == "selective").astype(np.int64)
        for (recomputed, cached), needed in needs.items():

            def templates(
                sizes: Sizes, kind: Kind, recomputed: bool = recomputed, cached: bool = cached
            ) -> Template:
                return backward_template(sizes, kind, recomputed, cached)

            keys = [*self._backward_columns(), compressed(selective * (not recomputed))]
            passes = Passes(forward=recomputed, backward=True)
            found = self._layers(keys, templates, passes, np.flatnonzero(needed))
            for kind, figures in found.items():
                result[kind, recomputed, cached] = figures
        return result

    def _ends(self) -> dict[tuple[str, bool], KeyFigures]:
        """Embedding and head, by name and whether it is their backward pass."""
        names = [(name, backward) for name in ("embedding", "head") for backward in (False, True)]
        makers = {"embedding": embedding_template, "head": head_template}

        def templates(sizes: Sizes) -> list[Template]:
            return [makers[name](sizes, backward=backward) for name, backward in names]

        found = self._evaluated([*self._token_columns, *self._shard_columns], _END_GROUPS, templates)
        return dict(zip(names, found, strict=True))

    def _predictions(self) -> dict[bool, KeyFigures]:
        """Projections of multi-token prediction, by whether it is their backward pass."""

        def templates(sizes: Sizes) -> list[Template]:
            return [prediction_projection_template(sizes, backward=backward) for backward in (False, True)]

        found = self._evaluated(self._backward_columns(), LAYER_GROUPS, templates)
        return dict(zip((False, True), found, strict=True))


def _shape(template: Template) -> tuple[object, ...]:
    """Equal for templates that differ in the sizes of their operations only."""
    return tuple(
        (operation.stream, operation.after)
        + ((work.collective, work.group, work.fan_out) if isinstance(work, Message) else ())
        for operation in template
        for work in (operation.work,)
    )
