"""Figures of the templates of many plans, each worked out once for what it depends on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.judge.keys import Codes, Columns, compressed, grouped, masked
from towtank.autotune.task import TuningTask
from towtank.simulator.block_bound import NUM_FIGURES, TemplateFigures, template_figures
from towtank.simulator.cost.model import CostModel
from towtank.simulator.lowering.ends import embedding_template, head_template, prediction_projection_template
from towtank.simulator.lowering.layer import backward_template, forward_template, layer_kind
from towtank.simulator.lowering.sizes import Sizes, local_sizes, resolve_overlap
from towtank.simulator.operations import Operation
from towtank.simulator.plan import Overlap, Plan

Kind = tuple[bool, int | None]
Template = tuple[Operation, ...]
Rows = NDArray[np.intp]

SWITCHES = tuple(Overlap.__dataclass_fields__)


@dataclass(frozen=True, slots=True, eq=False)
class KeyFigures:
    """Figures of a template by key: `values` [keys, NUM_FIGURES], `group` [rows] the key of each row."""

    values: NDArray[np.float64]
    group: Rows

    def of(self, rows: Rows) -> TemplateFigures:
        """Figures of some rows."""
        return TemplateFigures(self.values[self.group[rows]])


class TemplateJudge:
    """Figures of all templates that the plans of a table need."""

    def __init__(self, task: TuningTask, columns: Columns) -> None:
        self.task = task
        self.columns = columns
        sizes = local_sizes(task.model, columns.table.plan(0), task.stack)
        self.kinds = tuple(dict.fromkeys(layer_kind(sizes, layer) for layer in range(task.model.num_layers)))
        self.single_queue = task.machine.device.takes_turns
        overlap = columns.derived(("overlap", "pipeline", "virtual_stages"), self._switches)
        self._overlap = {name: overlap >> bit & 1 for bit, name in enumerate(SWITCHES)}
        self.forward = self._forward_layers()
        self.backward = self._backward_layers()
        self.ends = self._ends()
        self.predictions = self._predictions() if task.model.mtp_layers else {}

    def _switches(self, plan: Plan) -> int:
        overlap = resolve_overlap(plan, self.task.stack)
        return sum(bool(getattr(overlap, name)) << bit for bit, name in enumerate(SWITCHES))

    def overlaps(self, switch: str) -> NDArray[np.bool_]:
        """Whether a switch is in force, shape [rows]."""
        return self._overlap[switch] > 0

    def sizes(self, plan: Plan) -> Sizes:
        """Sizes of a plan."""
        return local_sizes(self.task.model, plan, self.task.stack)

    def _evaluated(
        self,
        columns: Sequence[Codes],
        templates: Callable[[Sizes], Sequence[Template]],
        rows: Rows | None = None,
    ) -> list[KeyFigures]:
        """Figures of templates that depend on `columns`, for the rows that have them."""
        count = self.columns.table.num_rows
        chosen = np.arange(count) if rows is None else rows
        groups = grouped([(codes[chosen], size) for codes, size in columns]) if len(chosen) else None
        found = []
        for row in () if groups is None else chosen[groups.first]:
            plan = self.columns.table.plan(int(row))
            cost = CostModel(self.task.machine, plan, self.task.stack, self.task.profile_dirs)
            found.append(
                [
                    template_figures(template, cost.duration_s, single_queue=self.single_queue)
                    for template in templates(self.sizes(plan))
                ]
            )
        group = np.zeros(count, np.intp)
        if groups is None:
            return []
        group[chosen] = groups.group
        values = np.array(found).reshape(len(found), -1, NUM_FIGURES)
        return [
            KeyFigures(np.ascontiguousarray(values[:, number]), group) for number in range(values.shape[1])
        ]

    def _token_columns(self) -> list[Codes]:
        """What decides the sizes of operations and the groups of tensor parallelism."""
        columns = self.columns
        x, y = columns.number("tensor_x"), columns.number("tensor_y")
        split = columns.number("sequence_parallel") * (x > 1)
        return [
            *columns.fields("sequence", "micro_batch", "context", "tensor_x", "tensor_y", "precision"),
            *columns.fields("gradient_precision"),
            compressed(split),
            masked(columns.stride("tensor_x"), x > 1),
            masked(columns.stride("tensor_y"), y > 1),
        ]

    def _shard_columns(self) -> list[Codes]:
        """What decides the groups over which weights are sharded, where they are."""
        columns = self.columns
        fields = ("tensor_z", "data", "data_shard", "zero_stage", "context")
        shards = columns.derived(fields, lambda plan: plan.weight_shards)
        in_full = columns.derived(fields[1:], lambda plan: plan.shard_degree * (plan.zero_stage == 3))
        sharded = shards > 1
        return [
            masked(columns.number("tensor_z"), sharded),
            masked(in_full, sharded),
            masked(columns.stride("tensor_z"), sharded & (columns.number("tensor_z") > 1)),
            masked(columns.stride("data"), sharded & (in_full > 1)),
            masked(columns.stride("context"), sharded & (in_full > 0) & (columns.number("context") > 1)),
            masked(self._overlap["all_gather"], sharded),
            masked(self._overlap["reduce_scatter"], sharded),
        ]

    def _layer_columns(self) -> list[Codes]:
        """What the templates of layers depend on, but for switches of the backward pass alone."""
        columns = self.columns
        context, expert = columns.number("context"), columns.number("expert")
        kind = columns.codes("context_kind")[0].astype(np.int64)
        full = columns.number("zero_stage") == 3
        return [
            *self._token_columns(),
            *self._shard_columns(),
            *columns.fields("expert", "expert_tensor"),
            masked(kind, context > 1),
            masked(columns.stride("context"), context > 1),
            compressed((columns.number("pipeline") > 1).astype(np.int64)),
            masked(
                self._overlap["tensor"], columns.number("sequence_parallel") * columns.number("tensor_x") > 1
            ),
            masked(self._overlap["expert"], expert > 1),
            # replicas and shards of experts tile the devices of a stage
            masked(columns.number("pipeline"), expert > 1),
            masked(columns.number("tensor_z"), expert > 1),
            masked(full.astype(np.int64), expert > 1),
        ]

    def _backward_columns(self) -> list[Codes]:
        columns = self.columns
        split = columns.number("tensor_x") * columns.number("tensor_y") > 1
        return [*self._layer_columns(), masked(self._overlap["backward_all_reduce"], split)]

    def _forward_layers(self) -> dict[Kind, KeyFigures]:
        found = self._evaluated(
            self._layer_columns(), lambda sizes: [forward_template(sizes, kind) for kind in self.kinds]
        )
        return dict(zip(self.kinds, found, strict=True))

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
        keys = self._backward_columns()
        selective = (columns.column("recompute") == "selective").astype(np.int64)
        for (recomputed, cached), needed in needs.items():
            policy = compressed(selective * (not recomputed))

            def templates(
                sizes: Sizes, recomputed: bool = recomputed, cached: bool = cached
            ) -> list[Template]:
                return [backward_template(sizes, kind, recomputed, cached) for kind in self.kinds]

            found = self._evaluated([*keys, policy], templates, np.flatnonzero(needed))
            for kind, figures in zip(self.kinds, found, strict=False):
                result[kind, recomputed, cached] = figures
        return result

    def _ends(self) -> dict[tuple[str, bool], KeyFigures]:
        """Embedding and head, by name and whether it is their backward pass."""
        names = [(name, backward) for name in ("embedding", "head") for backward in (False, True)]
        makers = {"embedding": embedding_template, "head": head_template}
        found = self._evaluated(
            [*self._token_columns(), *self._shard_columns()],
            lambda sizes: [makers[name](sizes, backward=backward) for name, backward in names],
        )
        return dict(zip(names, found, strict=True))

    def _predictions(self) -> dict[bool, KeyFigures]:
        """Projections of multi-token prediction, by whether it is their backward pass."""
        found = self._evaluated(
            self._backward_columns(),
            lambda sizes: [
                prediction_projection_template(sizes, backward=backward) for backward in (False, True)
            ],
        )
        return dict(zip((False, True), found, strict=True))
