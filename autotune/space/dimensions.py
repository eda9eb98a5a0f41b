"""What is searched: every dimension of the space, its usual values, and all of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal

from towtank.autotune.task import TuningTask
from towtank.simulator.plan import DEFAULT_RANK_ORDER, Overlap
from towtank.simulator.plan import Dimension as Degree
from towtank.simulator.stacks.records import Stack

SWITCHES = tuple(Overlap.__dataclass_fields__)
"""Overlap switches."""

USUAL_RANK_ORDERS: tuple[tuple[Degree, ...], ...] = (
    DEFAULT_RANK_ORDER,
    ("tensor_y", "tensor_x", "context", "pipeline", "tensor_z", "data"),
    ("tensor_y", "tensor_x", "tensor_z", "data", "context", "pipeline"),
    ("tensor_y", "tensor_x", "pipeline", "context", "tensor_z", "data"),
    ("tensor_x", "tensor_y", "context", "tensor_z", "data", "pipeline"),
    ("tensor_z", "data", "tensor_y", "tensor_x", "context", "pipeline"),
)
"""Orders that are searched where a stack has all: tensor ranks innermost, beside them in the node context, data or
pipeline; x inside of y; and shards inside of the tensor ranks (AxoNN's runs for SC'24 could have depth innermost)."""

LARGEST_COUNT = 2**31 - 1
"""Devices, sequences of a step, tokens of a sequence and degrees at most: products of two of them are 64-bit
integers."""

MOST_TENSOR_NODES = 8
"""Nodes that the ranks of x and y fill at most, unless a constraint names tensor_y."""

LEAST_TOKENS = 1024
"""Tokens of a sequence that context parallelism leaves a device, unless a constraint names context."""

MOST_TOKENS = 65_536
"""Tokens of a micro-batch on a device at most, unless a constraint names micro_batch; one sequence may be longer."""

MOST_UNEVEN = 1.1
"""Layers of the largest chunk over the mean where virtual stages are uneven, unless a constraint names them."""

Kind = Literal["count", "switch", "name", "order"]
Values = Callable[[TuningTask], tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Dimension:
    """One dimension of the space."""

    name: str
    """Field of Plan, or `overlap.` and a switch."""
    kind: Kind
    every: Values
    """All values that some plan on the devices may have; the first one where it makes no difference."""
    usual: Values
    """Values that are searched unless a constraint names the dimension."""
    text: str
    """What is usual, for people."""


def divisors(number: int) -> tuple[int, ...]:
    """Divisors of a positive number, ascending."""
    small = [each for each in range(1, int(number**0.5) + 1) if number % each == 0]
    return tuple(sorted({*small, *(number // each for each in small)}))


def _of_devices(task: TuningTask) -> tuple[int, ...]:
    return divisors(task.devices)


def _experts(task: TuningTask) -> tuple[int, ...]:
    experts = task.model.experts
    has = experts is not None and task.stack.supports.expert
    return divisors(experts.num_experts) if has and experts else (1,)


def _expert_tensors(task: TuningTask) -> tuple[int, ...]:
    experts = task.model.experts
    if experts is None or not task.stack.supports.expert_tensor:
        return (1,)
    return tuple(each for each in divisors(experts.hidden) if task.devices % each == 0)


def _context_kinds(task: TuningTask) -> tuple[str, ...]:
    has = task.stack.supports.context
    return tuple(kind for kind in ("ring", "all-to-all") if kind in has) or ("ring",)


def _zero_stages(task: TuningTask) -> tuple[int, ...]:
    return tuple(sorted(task.stack.supports.zero_stages))


def rank_orders(stack: Stack) -> tuple[tuple[Degree, ...], ...]:
    """Orders that a stack can run, those that name others first."""
    orders = stack.supports.rank_orders
    if orders != "all":
        return orders
    return tuple(dict.fromkeys((*USUAL_RANK_ORDERS, *permutations(DEFAULT_RANK_ORDER))))


def _rank_orders(task: TuningTask) -> tuple[tuple[Degree, ...], ...]:
    return rank_orders(task.stack)


def _usual_rank_orders(task: TuningTask) -> tuple[tuple[Degree, ...], ...]:
    orders = task.stack.supports.rank_orders
    return USUAL_RANK_ORDERS if orders == "all" else orders


def _sequence_parallel(task: TuningTask) -> tuple[bool, ...]:
    return (False, True) if task.stack.supports.sequence_parallel else (False,)


def _micro_batches(task: TuningTask) -> tuple[int, ...]:
    return divisors(task.global_batch)


def _powers_of_two(task: TuningTask) -> tuple[int, ...]:
    return tuple(each for each in divisors(task.global_batch) if each & (each - 1) == 0)


def _virtual_stages(task: TuningTask) -> tuple[int, ...]:
    most = (task.model.num_layers + 2) // 2 if task.stack.supports.virtual_stages else 1
    return tuple(range(1, most + 1))


def _schedules(task: TuningTask) -> tuple[str, ...]:
    has = task.stack.supports.schedules
    return tuple(each for each in ("1f1b", "interleaved", "gpipe") if each in has)


def _recompute(task: TuningTask) -> tuple[str, ...]:
    return task.stack.supports.recompute


def _usual_recompute(task: TuningTask) -> tuple[str, ...]:
    kernels, has = task.stack.kernels, _recompute(task)
    frees_nothing = kernels.selective_recompute == "core" and kernels.attention != "unfused"
    return tuple(each for each in has if each != "selective" or not frees_nothing)


def _every_layer(task: TuningTask) -> tuple[int, ...]:
    return tuple(range(1, 1 + (task.model.num_layers if task.stack.supports.recompute_intervals else 1)))


def _one_or_two(task: TuningTask) -> tuple[int, ...]:
    return _every_layer(task)[:2]


def _cached_layers(task: TuningTask) -> tuple[int, ...]:
    gathers_linears = task.stack.communication.shard_unit == "linear"
    return tuple(range(task.model.num_layers + 1)) if gathers_linears else (0,)


def _quarters(task: TuningTask) -> tuple[int, ...]:
    return tuple(sorted({_cached_layers(task)[-1] * part // 4 for part in range(5)}))


def _precisions(task: TuningTask) -> tuple[str, ...]:
    peaks = task.machine.device.peak_flop_per_s
    return tuple(each for each in task.stack.supports.precisions if each in peaks)


def _usual_precision(task: TuningTask) -> tuple[str, ...]:
    has = _precisions(task)
    return next(((each,) for each in ("bf16", "fp16", "fp32") if each in has), has)


def _switch(name: str) -> Dimension:
    def every(task: TuningTask) -> tuple[bool | None, ...]:
        return (None, True, False) if name in task.stack.supports.overlaps else (None, False)

    def usual(task: TuningTask) -> tuple[bool | None, ...]:
        could = name in task.stack.supports.overlaps and name not in task.stack.communication.overlaps
        return (None, True) if could else (None,)

    return Dimension(
        f"overlap.{name}", "switch", every, usual, "as the stack does; also on where that is off"
    )


def _all(name: str, kind: Kind, every: Values) -> Dimension:
    return Dimension(name, kind, every, every, "all that are legal")


DIMENSIONS: tuple[Dimension, ...] = (
    _all("tensor_x", "count", _of_devices),
    Dimension("tensor_y", "count", _of_devices, _of_devices, f"tensor_x x tensor_y within {MOST_TENSOR_NODES} nodes"),
    Dimension("tensor_z", "count", _of_devices, _of_devices, "fills one node, where the rest is FSDP over data"),
    Dimension("context", "count", _of_devices, _of_devices, f"at least {LEAST_TOKENS:,} tokens on each device"),
    _all("data", "count", _of_devices),
    _all("pipeline", "count", _of_devices),
    _all("context_kind", "name", _context_kinds),
    _all("expert", "count", _experts),
    Dimension("expert_tensor", "count", _expert_tensors, _expert_tensors, "1 or tensor_x"),
    _all("zero_stage", "count", _zero_stages),
    Dimension("data_shard", "count", _of_devices, _of_devices, "all of data, or what fills one node (HSDP)"),
    Dimension("rank_order", "order", _rank_orders, _usual_rank_orders, "those of the stack; six where it has all"),
    _all("sequence_parallel", "switch", _sequence_parallel),
    Dimension(
        "micro_batch", "count", _micro_batches, _powers_of_two,
        f"powers of two, up to {MOST_TOKENS:,} tokens on a device",
    ),
    Dimension(
        "virtual_stages", "count", _virtual_stages, _virtual_stages,
        "those that share the layers (or two more) evenly; 2 and 4 within a tenth",
    ),
    Dimension("schedule", "name", _schedules, _schedules, "no gpipe without a pipeline: 1f1b in more memory"),
    Dimension("recompute", "name", _recompute, _usual_recompute, "no selective with fused attention: frees nothing"),
    Dimension("recompute_every", "count", _every_layer, _one_or_two, "1 and 2"),
    Dimension("cached_layers", "count", _cached_layers, _quarters, "none, a quarter, half, three quarters, all"),
    *(_switch(name) for name in SWITCHES),
    Dimension("precision", "name", _precisions, _usual_precision, "bf16; fp16 where the device has no bf16"),
)  # fmt: skip
"""All dimensions of the space."""

BY_NAME = {each.name: each for each in DIMENSIONS}


def _place_in(every: tuple[Any, ...]) -> Callable[[Any], int]:
    return lambda value: every.index(value) if value in every else len(every)


def values(task: TuningTask, name: str) -> tuple[Any, ...]:
    """Values of one dimension that the search starts from, under the constraints; legal or not."""
    constraints, dimension = task.constraints, BY_NAME[name]
    found: Iterable[Any]
    if name in constraints.fixed:
        found = sorted(constraints.fixed[name], key=_place_in(dimension.every(task)))
    elif constraints.lifts(name):
        found = dimension.every(task)
    else:
        found = dimension.usual(task)
    if dimension.kind == "count" and name != "data_shard":
        found = tuple(each for each in found if constraints.within(name, each))
    return tuple(dict.fromkeys(found))
