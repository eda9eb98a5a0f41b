"""Plans one step away from a plan, on the same devices with the same batch."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, get_args

from towtank.simulator.lowering.sizes import resolve_overlap
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.plan import Overlap, Plan, Recompute
from towtank.simulator.stacks.records import Stack

_DEGREES = ("tensor_x", "tensor_y", "tensor_z", "context", "data", "pipeline")
"""Their product is the number of devices: what one loses another gains."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A plan one step away, and that step, such as `tensor_x 8 -> 4, data 8 -> 16`."""

    change: str
    plan: Plan


def neighbours(model: ModelSpec, stack: Stack, plan: Plan) -> list[Neighbour]:
    """Plans one step away: a factor moved between two degrees, another degree changed, or a switch flipped.

    Devices, batch, sequence and precisions stay. Plans are not checked; none comes twice, nor the plan itself. A plan
    with a count below 1 has no neighbours.
    """
    if min(plan.num_devices, plan.micro_batch, plan.virtual_stages, plan.expert, plan.expert_tensor) < 1:
        return []
    found = {plan: Neighbour("", plan)}
    for other in _plans(model, stack, plan):
        found.setdefault(other, Neighbour(change(plan, other, stack), other))
    return list(found.values())[1:]


def change(plan: Plan, other: Plan, stack: Stack, other_stack: Stack | None = None) -> str:
    """Fields in which two plans differ, such as `tensor_x 8 -> 4, data 8 -> 16`; what is in force, not what is
    written. `other_stack` None: both run under `stack`."""
    old, new = in_force(plan, stack), in_force(other, other_stack or stack)
    if plan.schedule_name == "interleaved" or other.schedule_name == "interleaved":
        old["schedule"] = new["schedule"] = None  # virtual_stages says it
    return ", ".join(
        f"{name} {word(old[name])} -> {word(new[name])}" for name in old if old[name] != new[name]
    )


def in_force(plan: Plan, stack: Stack) -> dict[str, Any]:
    """Every field, and every switch under `overlap.`, with what is taken where the plan says nothing."""
    values = {field.name: getattr(plan, field.name) for field in fields(plan) if field.name != "overlap"}
    values["schedule"] = plan.schedule_name
    values["data_shard"] = "all" if plan.data_shard in (None, plan.data) else plan.data_shard
    values["gradient_precision"] = plan.gradient_precision or stack.communication.gradient_precision
    overlap = resolve_overlap(plan, stack)
    return values | {f"overlap.{field.name}": getattr(overlap, field.name) for field in fields(Overlap)}


def word(value: Any) -> str:
    """A value of `in_force` as text."""
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _plans(model: ModelSpec, stack: Stack, plan: Plan) -> Iterator[Plan]:
    yield from _moved_degrees(plan)
    yield from _other_degrees(model, plan)
    yield from _switches(model, plan)
    yield from _overlaps(stack, plan)
    yield from _rank_orders(plan)


def _moved_degrees(plan: Plan) -> Iterator[Plan]:
    for donor in _DEGREES:
        for prime in prime_factors(getattr(plan, donor)):
            for taker in _DEGREES:
                if taker != donor:
                    moved = {
                        donor: getattr(plan, donor) // prime,
                        taker: getattr(plan, taker) * prime,
                    }
                    yield _repaired(plan, replace(plan, **moved))


def _repaired(before: Plan, plan: Plan) -> Plan:
    """The plan without what has no meaning under its new degrees."""
    changes: dict[str, Any] = {}
    if plan.pipeline != before.pipeline:
        changes["stage_layers"] = None
    if plan.pipeline == 1:
        changes |= {"virtual_stages": 1, "schedule": None}
    if plan.sequence_parallel and plan.tensor_x == 1:
        changes["sequence_parallel"] = False
    if plan.context == 1:
        changes["context_kind"] = "ring"
    if before.data_shard == before.data:
        changes["data_shard"] = plan.data
    return replace(plan, **changes)


def _other_degrees(model: ModelSpec, plan: Plan) -> Iterator[Plan]:
    """Degrees that do not count devices."""
    for name in ("micro_batch", "expert", "expert_tensor"):
        if name != "micro_batch" and model.experts is None:
            continue
        value = getattr(plan, name)
        for other in (value * 2, *(value // prime for prime in prime_factors(value))):
            yield replace(plan, **{name: other})
    if plan.pipeline > 1:
        most = max(1, model.num_layers // plan.pipeline)
        chunks = [number for number in range(1, most + 1) if most % number == 0]
        for other in _beside(plan.virtual_stages, chunks):
            yield replace(plan, virtual_stages=other, schedule=None, stage_layers=None)
    if plan.zero_stage and plan.data > 1:
        shard = plan.shard_degree
        for other in _beside(shard, [size for size in range(1, plan.data + 1) if plan.data % size == 0]):
            yield replace(plan, data_shard=None if other == plan.data else other)


def _beside(value: int, choices: list[int]) -> list[int]:
    """The choices next to a value on either side."""
    lower, higher = [c for c in choices if c < value], [c for c in choices if c > value]
    return lower[-1:] + higher[:1]


def _switches(model: ModelSpec, plan: Plan) -> Iterator[Plan]:
    for recompute in get_args(Recompute):
        yield replace(plan, recompute=recompute, recompute_every=1, cached_layers=0)
    if plan.recompute == "full":
        for every in {plan.recompute_every * 2, max(1, plan.recompute_every // 2)}:
            yield replace(plan, recompute_every=every)
        for cached in (0, model.num_layers):
            yield replace(plan, cached_layers=cached)
    for stage in range(4):
        yield replace(plan, zero_stage=stage, data_shard=plan.data_shard if stage else None)
    if plan.tensor_x > 1:
        yield replace(plan, sequence_parallel=not plan.sequence_parallel)
    if plan.context > 1:
        yield replace(plan, context_kind="ring" if plan.context_kind == "all-to-all" else "all-to-all")
    if plan.pipeline > 1 and plan.virtual_stages == 1:
        yield replace(plan, schedule="1f1b" if plan.schedule_name == "gpipe" else "gpipe")


def _overlaps(stack: Stack, plan: Plan) -> Iterator[Plan]:
    switches = resolve_overlap(plan, stack)
    for field in fields(Overlap):
        flipped = not getattr(switches, field.name)
        yield replace(plan, overlap=replace(plan.overlap, **{field.name: flipped}))


def _rank_orders(plan: Plan) -> Iterator[Plan]:
    """Neighbouring dimensions of more than one rank change places."""
    real = [name for name in plan.rank_order if plan.degree(name) > 1]
    for inner, outer in pairwise(real):
        swap = {inner: outer, outer: inner}
        yield replace(plan, rank_order=tuple(swap.get(name, name) for name in plan.rank_order))


def prime_factors(value: int) -> list[int]:
    """Different prime factors, the smallest first."""
    found, divisor = [], 2
    while value > 1:
        if divisor * divisor > value:
            divisor = value
        if value % divisor == 0:
            found.append(divisor)
            while value % divisor == 0:
                value //= divisor
        divisor += 1
    return found
