"""All legal plans of a task, each once, as columns."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import overload

import numpy as np

from towtank.autotune.errors import TuningError
from towtank.autotune.space import degrees, execution, names, sharding
from towtank.autotune.space.draft import Draft, Mask, concatenated
from towtank.autotune.space.legality import Tally, nothing_legal, task_faults
from towtank.autotune.space.steps import Step, product_of
from towtank.autotune.space.switches import SWITCH_STEPS, joined
from towtank.autotune.space.table import PlanTable
from towtank.autotune.task import TuningTask
from towtank.simulator.plan import Plan

STEPS: tuple[Step, ...] = (
    Step(("tensor_x",), product_of("tensor_x"), degrees.tensor_x),
    Step(("tensor_y",), product_of("tensor_y"), degrees.tensor_y),
    Step(("pipeline",), product_of("pipeline"), degrees.pipeline),
    Step(("context", "context_kind"), product_of("context", "context_kind"), degrees.context),
    Step(("tensor_z",), product_of("tensor_z"), degrees.tensor_z),
    Step(("data",), product_of("data"), degrees.data),
    Step(("expert", "expert_tensor"), product_of("expert", "expert_tensor"), degrees.experts),
    Step(("zero_stage", "data_shard"), sharding.zero_options, sharding.zero),
    Step(("rank_order",), product_of("rank_order"), sharding.rank_order),
    Step(("sequence_parallel",), product_of("sequence_parallel"), execution.sequence_parallel),
    Step(("micro_batch",), product_of("micro_batch"), execution.micro_batch),
    Step(("virtual_stages", "schedule"), execution.chunk_options, execution.chunks),
    Step(("precision",), product_of("precision"), execution.precision),
    *SWITCH_STEPS,
    Step(("recompute", "recompute_every", "cached_layers"), execution.recompute_options, execution.recompute),
)
"""All steps, in the order in which the space grows."""

_NAMES: dict[str, tuple[Callable[[TuningTask, Draft], Mask], ...]] = {
    "zero_stage": (names.own_zero_stage,),
    "rank_order": (names.own_shards, names.own_order),
}
"""What leaves out other names of the same plan, after the step that sets a field."""

MOST_PLANS = 20_000_000
"""Rows that a search can hold: about a gigabyte."""

_BLOCK, _LARGEST_MASK = 1 << 18, 1 << 26
"""Rows that one step extends at once, and rows times options, so that masks stay small."""


_DECIDE_COMPUTE = (
    "tensor_x", "tensor_y", "pipeline", "context", "tensor_z", "data", "expert", "sequence_parallel", "micro_batch",
    "precision",
)  # fmt: skip
"""First fields of the steps after which the compute of a micro-batch is known, but for recomputation."""


def legal_plans(task: TuningTask) -> PlanTable:
    """Every legal plan of the space, under the constraints, each by its canonical name only.

    Raises:
        TuningError: the task or a constraint can have no plan, no plan is legal (with the rules that leave none), or
        there are more than MOST_PLANS.
    """
    found = listed(task, lambda: True)
    assert found is not None  # nothing stops it
    return found


def listed(task: TuningTask, going: Callable[[], bool]) -> PlanTable | None:
    """All legal plans as `legal_plans`, or None once `going()` is false.

    Raises:
        TuningError: as `legal_plans`.
    """
    _check(task)
    draft = Draft()
    for place, step in enumerate(STEPS):
        grown = _grown(task, draft, step, going)
        if grown is None:
            return None
        draft = grown
        if draft.num_rows == 0:
            raise TuningError([nothing_legal(task, _tallies(task, STEPS[: place + 1]))])
    return _table(task, joined(draft))


def sampled(task: TuningTask, most: int, seed: int) -> tuple[PlanTable | None, bool]:
    """At most so many legal plans, each drawn as likely as any other, and whether they are all that there are.

    None where the draw meets a dead end.

    Raises:
        TuningError: the task or a constraint can have no plan.
    """
    draw, whole = np.random.default_rng(seed), True

    def thin(draft: Draft) -> Draft:
        nonlocal whole
        if draft.num_rows <= most:
            return draft
        whole = False
        return draft.take(np.sort(draw.choice(draft.num_rows, most, replace=False)))

    return _thinned(task, thin), whole


GRID = ("tensor_x", "tensor_y", "pipeline", "context", "tensor_z", "data", "expert", "expert_tensor")
"""Degrees of a plan."""


def on_grid_of(task: TuningTask, plan: Plan) -> PlanTable | None:
    """All plans of the space with the degrees of one of them."""

    def thin(draft: Draft) -> Draft:
        for name in GRID:
            values = draft.choices.get(name, ())
            if len(values) > 1:
                draft = draft.take(draft.code(name) == values.index(getattr(plan, name)))
        return draft

    return _thinned(task, thin)


def _thinned(task: TuningTask, thin: Callable[[Draft], Draft]) -> PlanTable | None:
    """The plans that grow out of the rows which `thin` leaves after each step; None if there are none."""
    _check(task)
    draft = Draft()
    for step in STEPS:
        draft = thin(_grown(task, draft, step))
        if draft.num_rows == 0:
            return None
    return _table(task, joined(draft))


def outline(task: TuningTask) -> PlanTable:
    """Legal combinations of the dimensions that decide compute, each with the other fields as a plan has them
    unless said otherwise, on one stage; a few that no legal plan has may be among them."""
    draft = Draft()
    for step in STEPS:
        if step.names[0] in _DECIDE_COMPUTE:
            draft = _grown(task, draft, step)
    left_out = {name: draft.choices[name] for name in draft.choices if name != "pipeline"}
    codes = {name: each for name, each in draft.codes.items() if name != "pipeline"}
    return _table(task, Draft(draft.num_rows, left_out, codes))


def _check(task: TuningTask) -> None:
    if faults := task_faults(task):
        raise TuningError(faults)


@overload
def _grown(task: TuningTask, draft: Draft, step: Step) -> Draft: ...
@overload
def _grown(task: TuningTask, draft: Draft, step: Step, going: Callable[[], bool]) -> Draft | None: ...
def _grown(
    task: TuningTask, draft: Draft, step: Step, going: Callable[[], bool] | None = None
) -> Draft | None:
    """The rows with each option of a step that its rules allow, each plan by one name; None if `going()` is false."""
    options = step.options(task)
    block = max(1, min(_BLOCK, _LARGEST_MASK // max(1, len(options))))
    parts, total = [], 0
    for start in range(0, draft.num_rows, block):
        if going is not None and not going():
            return None
        part = draft.take(slice(start, start + block)) if draft.num_rows > block else draft
        keep = np.ones((part.num_rows, len(options)), np.bool_)
        for _, held in step.rules(task, part, options):
            keep &= held
        total += int(keep.sum())
        if total > MOST_PLANS:
            raise TuningError([_too_many(step)])
        part = part.expand(step.names, options, keep)
        for own in _NAMES.get(step.names[0], ()):
            part = part.take(own(task, part))
        parts.append(part)
    return concatenated(parts) if parts else draft


def _tallies(task: TuningTask, steps: tuple[Step, ...]) -> Iterator[Tally]:
    """What each rule leaves out, step by step."""
    draft = Draft()
    for step in steps:
        options = step.options(task)
        shape = (draft.num_rows, len(options))
        keep, broken = np.ones(shape, np.bool_), {}
        for text, held in step.rules(task, draft, options):
            keep &= held
            broken[text] = int((~np.broadcast_to(held, shape)).sum())
        yield Tally(step.names, draft, shape[0] * shape[1], int(keep.sum()), broken)
        draft = _grown(task, draft, step)


def _too_many(step: Step) -> str:
    return (
        f"the space has more than {MOST_PLANS:,} plans (at {', '.join(step.names)}); fix or limit dimensions, as in "
        f"--fix sequence_parallel=true --max micro_batch=8, or free fewer"
    )


def _table(task: TuningTask, draft: Draft) -> PlanTable:
    """Columns of what differs between rows (and of tensor_x, so that there is one); the rest is in the base."""
    differs = [name for name, each in draft.choices.items() if len(each) > 1 or name == "tensor_x"]
    shared = {name: each[0] for name, each in draft.choices.items() if name not in differs}
    base = replace(Plan(global_batch=task.global_batch, sequence=_sequence(task)), **shared)
    return PlanTable(
        base,
        {name: draft.choices[name] for name in differs},
        {name: draft.code(name) for name in differs},
    )


def _sequence(task: TuningTask) -> int | None:
    return None if task.sequence == task.model.sequence else task.sequence
