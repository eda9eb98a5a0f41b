"""The mixed space around plans of the exact search: what makes enumeration endless.

A configuration is one of some plans with legal degrees, and what can be changed on any of them: how many layers each
pipeline chunk holds, which layers recompute, how many keep gathered weights, overlap switches, the size of gradient
buckets, and the nesting of dimensions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations
from math import ceil, log2
from typing import Any, cast

from towtank.autotune.constraints import Constraints
from towtank.autotune.space.canonical import canonical
from towtank.autotune.study.records import Choice, Parameter, Parameters, Value, Whole
from towtank.hardware_profiles.records import Machine
from towtank.simulator.lowering.sizes import local_sizes, resolve_overlap
from towtank.simulator.lowering.stages import chunks_of
from towtank.simulator.models import count
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.plan import DEFAULT_RANK_ORDER, Dimension, Overlap, Plan, Recompute
from towtank.simulator.plan_rules import SMALLEST_BUCKET, faults_of
from towtank.simulator.stacks.records import Stack

AS_IT_IS = "as it is"
"""Value of a choice that leaves the plan's own."""
PLAN = "plan"
_FIRST, _LAST, _SLOPE = "layers.first", "layers.last", "layers.slope"
_BUCKET = "gradient_bucket"
_MOST_SHIFT = 8
"""Layers at most that move between chunks."""
_MOST_INTERVAL = 8
"""Recompute at least one layer in so many."""


@dataclass(frozen=True, slots=True)
class PlanSpace:
    """Plans to start from and what is changed on them."""

    model: ModelSpec
    stack: Stack
    plans: tuple[Plan, ...]
    parameters: Mapping[str, Parameter]

    def start(self, index: int) -> Parameters:
        """The configuration that is plan `index` itself."""
        return {name: _neutral(name, parameter, index) for name, parameter in self.parameters.items()}

    def neighbours(self, index: int) -> list[Parameters]:
        """Plan `index` with one thing changed: what a sampler would need many trials to come upon."""
        start = self.start(index)
        return [
            {**start, name: value}
            for name, parameter in self.parameters.items()
            for value in _near(name, parameter)
        ]

    def plan(self, parameters: Parameters) -> Plan:
        """The plan of a configuration, not checked against the rules of plans."""
        plan = self.plans[int(parameters[PLAN])]
        plan = _with_recompute(plan, parameters)
        plan = _with_overlap(plan, self.stack, parameters)
        plan = _with_bucket(plan, parameters)
        order = str(parameters.get("rank_order", AS_IT_IS))
        if order != AS_IT_IS:
            plan = replace(plan, rank_order=_order(order))
        return self._with_layers(plan, parameters)

    def _with_layers(self, plan: Plan, parameters: Parameters) -> Plan:
        """The plan with layers moved between its chunks; no split where that comes to the stack's own."""
        shifts = [int(parameters.get(name, 0)) for name in (_FIRST, _LAST, _SLOPE)]
        chunks = plan.pipeline * plan.virtual_stages
        if chunks == 1 or not any(shifts):
            return plan
        usual = default_layers(self.model, self.stack, plan)
        counts = move_layers(plan.stage_layers or usual, *shifts)
        return replace(plan, stage_layers=None if counts == usual else counts)


def default_layers(model: ModelSpec, stack: Stack, plan: Plan) -> tuple[int, ...]:
    """Layers of each chunk, in model order, where the plan does not say."""
    stages = chunks_of(local_sizes(model, replace(plan, stage_layers=None), stack))
    return tuple(
        stages[number % plan.pipeline][number // plan.pipeline].num_layers
        for number in range(plan.pipeline * plan.virtual_stages)
    )


def move_layers(counts: tuple[int, ...], first: int, last: int, slope: int) -> tuple[int, ...]:
    """Move layers between chunks; their sum stays.

    `first` and `last` layers leave the first and the last chunk (negative: join it) and spread over the others;
    `slope` more are in the last chunk than in the first, in a straight line between. Rounded so that the chunks with
    the largest remainders get what is left; no chunk falls below 0.
    """
    chunks, total = len(counts), sum(counts)
    ends = [0.0] * chunks
    ends[0] -= first
    ends[-1] -= last
    inner = [number for number in range(chunks) if 0 < number < chunks - 1] or list(range(chunks))
    for number in inner:
        ends[number] += (first + last) / len(inner)
    line = [slope * (number / (chunks - 1) - 0.5) for number in range(chunks)]
    wanted = [max(0.0, count + end + rise) for count, end, rise in zip(counts, ends, line, strict=True)]
    scale = total / sum(wanted) if sum(wanted) else 0.0
    wanted = [value * scale for value in wanted] if scale else [total / chunks] * chunks
    moved = [int(value) for value in wanted]
    by_remainder = sorted(range(chunks), key=lambda number: (moved[number] - wanted[number], number))
    for number in by_remainder[: total - sum(moved)]:
        moved[number] += 1
    return tuple(moved)


def plan_space(
    model: ModelSpec,
    machine: Machine,
    stack: Stack,
    plans: Sequence[Plan],
    constraints: Constraints | None = None,
) -> PlanSpace:
    """The space around `plans`, best first. What the constraints fix, or what changes no plan, is not in it."""
    fixed = set((constraints or Constraints()).fixed)
    parameters: dict[str, Parameter] = {PLAN: Choice(tuple(range(len(plans))))}
    for fields, make in _DIMENSIONS:
        if not fixed.intersection(fields):
            parameters |= make(model, stack, plans)
    parameters = {name: found for name, found in parameters.items() if name not in fixed}
    space = PlanSpace(model, stack, tuple(plans), parameters)

    @cache  # most values leave most plans as they are
    def named(plan: Plan) -> Plan | None:
        """The canonical name of a plan; None where it is not legal."""
        legal = not faults_of(model, machine, plan, stack)
        return canonical(model, machine, stack, plan) if legal else None

    choices = {
        name: _distinct(space, named, name, parameter) if isinstance(parameter, Choice) else parameter
        for name, parameter in parameters.items()
    }
    return replace(
        space,
        parameters={name: each for name, each in choices.items() if not _is_single(name, each)},
    )


def _is_single(name: str, parameter: Parameter) -> bool:
    return name != PLAN and isinstance(parameter, Choice) and len(parameter.values) == 1


def _distinct(space: PlanSpace, named: Callable[[Plan], Plan | None], name: str, parameter: Choice) -> Choice:
    """The values of a choice that make other plans than the values before them."""
    if name == PLAN:
        return parameter
    seen: set[tuple[Plan | None, ...]] = set()
    kept = []
    for value in parameter.values:
        made = tuple(
            named(space.plan({**space.start(index), name: value})) for index in range(len(space.plans))
        )
        if any(made) and made not in seen:
            seen.add(made)
            kept.append(value)
    return Choice(tuple(kept))


def _layers(model: ModelSpec, stack: Stack, plans: Sequence[Plan]) -> dict[str, Parameter]:
    chunks = [plan.pipeline * plan.virtual_stages for plan in plans]
    if not stack.supports.uneven_stages or max(chunks) == 1:
        return {}
    smallest = min(number for number in chunks if number > 1)
    most = max(1, min(_MOST_SHIFT, model.num_layers // smallest))
    found: dict[str, Parameter] = {_FIRST: Whole(-most, most), _LAST: Whole(-most, most)}
    if max(chunks) > 2:
        found[_SLOPE] = Whole(-most, most)
    return found


def _recompute(model: ModelSpec, stack: Stack, plans: Sequence[Plan]) -> dict[str, Parameter]:
    kinds = (AS_IT_IS, *stack.supports.recompute)
    found: dict[str, Parameter] = {"recompute": Choice(kinds)}
    if "full" in stack.supports.recompute and stack.supports.recompute_intervals:
        found["recompute_every"] = Whole(1, min(_MOST_INTERVAL, model.num_layers))
    return found


def _cached(model: ModelSpec, stack: Stack, plans: Sequence[Plan]) -> dict[str, Parameter]:
    sharded = any(plan.weight_shards > 1 for plan in plans)
    if stack.communication.shard_unit != "linear" or not sharded:
        return {}
    return {"cached_layers": Whole(0, model.num_layers)}


def _overlap(model: ModelSpec, stack: Stack, plans: Sequence[Plan]) -> dict[str, Parameter]:
    switches = [name for name in Overlap.__dataclass_fields__ if name in stack.supports.overlaps]
    return {f"overlap.{name}": Choice((AS_IT_IS, True, False)) for name in switches}


def _bucket(model: ModelSpec, stack: Stack, plans: Sequence[Plan]) -> dict[str, Parameter]:
    """The size of buckets in powers of two, up to one that holds all weights of a device."""
    shared = [plan.tensor_x * plan.tensor_y * plan.pipeline for plan in plans if _takes_buckets(plan)]
    if not stack.supports.gradient_buckets or not shared:
        return {}
    most = count.parameters(model).total / min(shared)
    return {_BUCKET: Whole(0, 1 + max(1, ceil(log2(most / SMALLEST_BUCKET))))}


def _takes_buckets(plan: Plan) -> bool:
    return plan.zero_stage < 3 and plan.data * plan.context * plan.tensor_z > 1


def _rank_order(model: ModelSpec, stack: Stack, plans: Sequence[Plan]) -> dict[str, Parameter]:
    """Nestings of the dimensions that any plan uses; the others lie outside, where they change nothing."""
    used = [name for name in DEFAULT_RANK_ORDER if any(plan.degree(name) > 1 for plan in plans)]
    if len(used) < 2:
        return {}
    return {"rank_order": Choice((AS_IT_IS, *(",".join(order) for order in permutations(used))))}


_DIMENSIONS: tuple[
    tuple[tuple[str, ...], Callable[[ModelSpec, Stack, Sequence[Plan]], dict[str, Parameter]]], ...
] = (
    (("stage_layers",), _layers),
    (("recompute",), _recompute),
    (("cached_layers",), _cached),
    (("overlap",), _overlap),
    (("gradient_bucket",), _bucket),
    (("rank_order",), _rank_order),
)
"""What is changed on a plan, with the fields that must be free for it."""


def _neutral(name: str, parameter: Parameter, index: int) -> Any:
    if name == PLAN:
        return index
    if isinstance(parameter, Choice):
        return AS_IT_IS
    return {"recompute_every": 1}.get(name, 0)


def _near(name: str, parameter: Parameter) -> Sequence[Value]:
    """Values next to the neutral one; the nestings are too many."""
    if name in (PLAN, "rank_order"):
        return ()
    if isinstance(parameter, Choice):
        return [value for value in parameter.values if value != AS_IT_IS]
    if name == "cached_layers":
        most = int(parameter.most)
        return sorted({most // 4, most // 2, most} - {0})
    near = {"recompute_every": (2, 4), _BUCKET: (4, 6, 8)}.get(name, (1, 2, -1, -2))
    return [value for value in near if parameter.least <= value <= parameter.most]


def _with_recompute(plan: Plan, parameters: Parameters) -> Plan:
    """The plan with another recompute policy; intervals and cached layers apply to full recomputation only."""
    kind = str(parameters.get("recompute", AS_IT_IS))
    if kind not in (AS_IT_IS, plan.recompute):
        plan = replace(plan, recompute=cast(Recompute, kind), recompute_every=1, cached_layers=0)
    if plan.recompute != "full":
        return plan
    every, cached = int(parameters.get("recompute_every", 1)), int(parameters.get("cached_layers", 0))
    return replace(
        plan,
        recompute_every=every if every > 1 else plan.recompute_every,
        cached_layers=cached if cached and plan.weight_shards > 1 else plan.cached_layers,
    )


def _with_overlap(plan: Plan, stack: Stack, parameters: Parameters) -> Plan:
    """The plan with its overlap switches set; None again where that is what the stack does by itself."""
    asked = {
        name: parameters.get(f"overlap.{name}", AS_IT_IS)
        for name in Overlap.__dataclass_fields__
        if parameters.get(f"overlap.{name}", AS_IT_IS) != AS_IT_IS
    }
    if not asked:
        return plan
    by_itself = resolve_overlap(replace(plan, overlap=Overlap()), stack)
    switches = {
        name: None if value == getattr(by_itself, name) else bool(value) for name, value in asked.items()
    }
    return replace(plan, overlap=replace(plan.overlap, **cast(dict[str, Any], switches)))


def _with_bucket(plan: Plan, parameters: Parameters) -> Plan:
    """The plan with buckets of 2^(number - 1) times the smallest; 0 leaves its own."""
    number = int(parameters.get(_BUCKET, 0))
    if not number or not _takes_buckets(plan):
        return plan
    return replace(plan, gradient_bucket=SMALLEST_BUCKET << (number - 1))


def _order(text: str) -> tuple[Dimension, ...]:
    named = cast(list[Dimension], text.split(","))
    return (*named, *(name for name in DEFAULT_RANK_ORDER if name not in named))
