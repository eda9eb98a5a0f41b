"""What is searched: every dimension of the space, its usual values, and all of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from towtank.autotune.task import TuningTask
from towtank.simulator.plan import DEFAULT_RANK_ORDER, Overlap
from towtank.simulator.plan import Dimension as Degree

SWITCHES = tuple(Overlap.__dataclass_fields__)
"""Overlap switches."""

USUAL_RANK_ORDERS: tuple[tuple[Degree, ...], ...] = (
    DEFAULT_RANK_ORDER,
    ("tensor_y", "tensor_x", "context", "pipeline", "tensor_z", "data"),
    ("tensor_y", "tensor_x", "tensor_z", "data", "context", "pipeline"),
    ("tensor_y", "tensor_x", "pipeline", "context", "tensor_z", "data"),
    ("tensor_x", "tensor_y", "context", "tensor_z", "data", "pipeline"),
    ("tensor_z", "data", "tensor_y", "tensor_x", "context", "pipeline"),
)  # fmt: skip
"""Orders of a stack that has all: tensor ranks in the node, then context, data or stages; last, shards in the node."""

Values = Callable[[TuningTask], tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Dimension:
    """One dimension of the space."""

    name: str
    """Field of Plan, or `overlap.` and a switch."""
    every: Values
    """All values, the canonical one of plans that it makes no difference to first."""
    usual: Values
    """Values that are searched unless a constraint names the dimension."""
    text: str
    """What is usual, for people; empty where it is all legal values."""


def divisors(number: int) -> tuple[int, ...]:
    """Divisors of a positive number, ascending."""
    small = [each for each in range(1, int(number**0.5) + 1) if number % each == 0]
    return tuple(sorted({*small, *(number // each for each in small)}))


def _of_devices(task: TuningTask) -> tuple[int, ...]:
    return divisors(task.devices)


def _experts(task: TuningTask) -> tuple[int, ...]:
    experts = task.model.experts
    return divisors(experts.num_experts) if experts else (1,)


def _expert_tensors(task: TuningTask) -> tuple[int, ...]:
    experts = task.model.experts
    return tuple(each for each in divisors(experts.hidden) if task.devices % each == 0) if experts else (1,)


def _micro_batches(task: TuningTask) -> tuple[int, ...]:
    return divisors(task.global_batch)


def _few_micro_batches(task: TuningTask) -> tuple[int, ...]:
    return tuple(each for each in divisors(task.global_batch) if each & (each - 1) == 0)


def _virtual_stages(task: TuningTask) -> tuple[int, ...]:
    return tuple(range(1, (task.model.num_layers + 2) // 2 + 1))


def _recompute(task: TuningTask) -> tuple[str, ...]:
    return task.stack.supports.recompute


def _usual_recompute(task: TuningTask) -> tuple[str, ...]:
    """All but what frees no memory: the core of a fused attention keeps no scores."""
    kernels, has = task.stack.kernels, task.stack.supports.recompute
    moot = kernels.selective_recompute == "core" and kernels.attention != "unfused"
    return tuple(each for each in has if each != "selective" or not moot)


def _every_layer(task: TuningTask) -> tuple[int, ...]:
    return tuple(range(1, task.model.num_layers + 1))


def _few_layers(task: TuningTask) -> tuple[int, ...]:
    return tuple(each for each in (1, 2) if each <= task.model.num_layers)


def _cached_layers(task: TuningTask) -> tuple[int, ...]:
    has = task.stack.communication.shard_unit == "linear"
    return tuple(range(task.model.num_layers + 1)) if has else (0,)


def _quarters(task: TuningTask) -> tuple[int, ...]:
    layers = task.model.num_layers
    has = task.stack.communication.shard_unit == "linear"
    return tuple(sorted({layers * part // 4 for part in range(5)})) if has else (0,)


def _precisions(task: TuningTask) -> tuple[str, ...]:
    peaks = task.machine.device.peak_flop_per_s
    return tuple(each for each in task.stack.supports.precisions if each in peaks)


def _sixteen_bits(task: TuningTask) -> tuple[str, ...]:
    has = _precisions(task)
    return next(((each,) for each in ("bf16", "fp16", "fp32") if each in has), has)


def _context_kinds(task: TuningTask) -> tuple[str, ...]:
    return ("ring", "all-to-all")


def _rank_orders(task: TuningTask) -> tuple[tuple[Degree, ...], ...]:
    orders = task.stack.supports.rank_orders
    return tuple(permutations(DEFAULT_RANK_ORDER)) if orders == "all" else orders


def _usual_rank_orders(task: TuningTask) -> tuple[tuple[Degree, ...], ...]:
    orders = task.stack.supports.rank_orders
    return USUAL_RANK_ORDERS if orders == "all" else orders


def _schedules(task: TuningTask) -> tuple[str, ...]:
    return task.stack.supports.schedules


def _usual_schedules(task: TuningTask) -> tuple[str, ...]:
    has = task.stack.supports.schedules
    return tuple(each for each in has if each != "gpipe" or "1f1b" not in has)


def _constant(*values: Any) -> Values:
    return lambda task: values


def _switch(name: str) -> Dimension:
    def every(task: TuningTask) -> tuple[bool | None, ...]:
        return (None, True, False) if name in task.stack.supports.overlaps else (None, False)

    def usual(task: TuningTask) -> tuple[bool | None, ...]:
        could = name in task.stack.supports.overlaps and name not in task.stack.communication.overlaps
        return (None, True) if could else (None,)

    return Dimension(
        f"overlap.{name}", every, usual, "as the stack does it; on, too, where it is off by itself"
    )


DIMENSIONS: tuple[Dimension, ...] = (
    *(Dimension(name, _of_devices, _of_devices, "") for name in DEFAULT_RANK_ORDER),
    Dimension("context_kind", _context_kinds, _context_kinds, ""),
    Dimension("expert", _experts, _experts, ""),
    Dimension("expert_tensor", _expert_tensors, _expert_tensors, ""),
    Dimension("zero_stage", _constant(0, 1, 2, 3), _constant(0, 1, 2, 3), ""),
    Dimension("data_shard", _of_devices, _of_devices, "all of data, or whole nodes of it"),
    Dimension("rank_order", _rank_orders, _usual_rank_orders, "those of the stack, a handful where it has all"),
    Dimension("sequence_parallel", _constant(False, True), _constant(False, True), ""),
    Dimension("micro_batch", _micro_batches, _few_micro_batches, "1, 2, 3, 4 and powers of two"),
    Dimension("virtual_stages", _virtual_stages, _virtual_stages, "chunks that share the layers, or up to two more, evenly"),
    Dimension("schedule", _schedules, _usual_schedules, "no GPipe where there is 1F1B, which takes as long in less memory"),
    Dimension("recompute", _recompute, _usual_recompute, "all but selective where it recomputes a fused attention, which frees nothing"),
    Dimension("recompute_every", _every_layer, _few_layers, "1 and 2"),
    Dimension("cached_layers", _cached_layers, _quarters, "none, a quarter, half, three quarters and all of the layers"),
    *(_switch(name) for name in SWITCHES),
    Dimension("precision", _precisions, _sixteen_bits, "bf16; the widest of 16 bits that device and stack have"),
)  # fmt: skip
"""All dimensions of the space."""

BY_NAME = {each.name: each for each in DIMENSIONS}


def values(task: TuningTask, name: str) -> tuple[Any, ...]:
    """Values of one dimension that the search starts from, under the constraints; legal or not."""
    constraints, dimension = task.constraints, BY_NAME[name]
    if name in constraints.fixed:
        found: Sequence[Any] = constraints.fixed[name]
    elif constraints.lifts(name):
        found = dimension.every(task)
    else:
        found = dimension.usual(task)
    return tuple(each for each in found if not isinstance(each, int) or constraints.within(name, each))
