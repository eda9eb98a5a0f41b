"""Figures of layers with experts from two parts, each lowered for what it depends on: for bounds in between.

All that routed experts do depends on a few dimensions, all else in a layer on a few others. Both together
have many more combinations. So the work of the parts is worked out apart and added up, which says nothing of what the
order of operations costs.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from towtank.autotune.judge.grid import EXPERT_GROUPS
from towtank.autotune.judge.keys import Codes, compressed, grouped
from towtank.autotune.judge.templates import (
    LAYER_GROUPS,
    KeyFigures,
    Passes,
    Rows,
    Template,
    TemplateJudge,
)
from towtank.simulator.block_bound import work_of_many
from towtank.simulator.lowering.feed_forward import backward_experts, forward_experts
from towtank.simulator.lowering.layer import gather_layer, scatter_layer
from towtank.simulator.lowering.sizes import Sizes
from towtank.simulator.lowering.template import Template as Builder
from towtank.simulator.operations import Elementwise, Phase

_OWN = ("experts.", "weights.", "join")
"""How the names of operations begin that are of routed experts, or of all weights of a layer."""
_NOBODY = "nobody"
"""Empty kernel that is in no part: what holds it does not count."""


class WorkJudge(TemplateJudge):
    """As `TemplateJudge`; the figures of layers with experts are those of their work alone."""

    def _with_experts(
        self,
        columns: list[Codes],
        lowered: Callable[[Sizes], list[Template]],
        passes: Passes,
        rows: Rows | None,
    ) -> list[KeyFigures]:
        """Sums of the figures of two parts."""
        piped = compressed((self.columns.number("pipeline") > 1).astype(np.int64))
        own = [*self._token_columns, *self._shard_columns, piped, *self._experts()]
        groups = ("tensor_x", "weight_shard", *EXPERT_GROUPS)

        def routed(sizes: Sizes) -> list[Template]:
            return [_routed(sizes, passes)]

        experts = self._evaluated(own, groups, routed, rows, self._of_experts)
        rest = self._evaluated(columns, LAYER_GROUPS, lowered, rows, self._of_the_rest)
        return [_sum(experts[0], each) for each in rest] if experts else []

    def _of_experts(self, template: Template, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        mine = [each.name.startswith(_OWN) for each in template]
        return work_of_many(template, seconds, mine, single_queue=self.single_queue)

    def _of_the_rest(self, template: Template, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        mine = [not each.name.startswith(_OWN) for each in template]
        return work_of_many(template, seconds, mine, single_queue=self.single_queue)


def _routed(sizes: Sizes, passes: Passes) -> Template:
    """What is in the template of a layer for its routed experts and, under FSDP, for all its weights.

    The gathers of a layer come before anything else in it; nothing but they hold its first kernel, for which an
    empty one stands here.
    """
    experts = sizes.model.experts
    assert experts is not None  # the layer has some
    recomputes = passes.forward and passes.backward
    template = Builder(sizes, Phase.RECOMPUTE if recomputes else Phase.FORWARD)
    if passes.forward or sizes.regathers:
        gather_layer(template, (True, None))
    template.compute("experts.begin", Elementwise(0.0, 0))
    if passes.forward:
        forward_experts(template, experts)
    if passes.backward:
        backward_experts(template, experts, regather=sizes.regathers and not passes.forward)
    template.compute(_NOBODY, Elementwise(0.0, 0))
    if passes.backward:
        scatter_layer(template, (True, None))
    return template.build()


def _sum(one: KeyFigures, other: KeyFigures) -> KeyFigures:
    groups = grouped([(one.group, len(one.values)), (other.group, len(other.values))])
    values = one.values[one.group[groups.first]] + other.values[other.group[groups.first]]
    return KeyFigures(values, groups.group)
