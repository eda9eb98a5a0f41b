"""Tables of random legal plans."""

import random
from dataclasses import fields, replace

import numpy as np

from towtank import load_machine, load_model, load_stack
from towtank.autotune.space.table import PlanTable
from towtank.autotune.task import TuningTask
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.plan import DEFAULT_RANK_ORDER, Overlap, Plan
from towtank.simulator.plan_rules import faults_of

DIMENSIONS = ("tensor_x", "tensor_y", "tensor_z", "context", "data", "pipeline")
ORDERS = (
    DEFAULT_RANK_ORDER,
    ("tensor_z", "tensor_y", "tensor_x", "context", "data", "pipeline"),
    ("data", "tensor_x", "tensor_y", "context", "tensor_z", "pipeline"),
    ("pipeline", "tensor_y", "tensor_x", "data", "context", "tensor_z"),
)


def task_of(
    model: str | ModelSpec, machine: str, stack: str, devices: int, batch: int, sequence: int | None = None
) -> TuningTask:
    """A task by names."""
    spec = model if isinstance(model, ModelSpec) else load_model(model)
    return TuningTask(spec, load_machine(machine), load_stack(stack), devices, batch, sequence)


def primes(number: int) -> list[int]:
    """Prime factors of a number."""
    found, factor = [], 2
    while number > 1:
        while number % factor == 0:
            found.append(factor)
            number //= factor
        factor += 1
    return found


def draft(task: TuningTask, draw: random.Random) -> Plan:
    """A plan with as many devices as asked, legal or not."""
    degrees = dict.fromkeys(DIMENSIONS, 1)
    weights = [draw.choice((0, 1, 3)) + 0.1 for _ in DIMENSIONS]
    for prime in primes(task.devices):
        degrees[draw.choices(DIMENSIONS, weights)[0]] *= prime
    can = task.stack.supports
    if not can.tensor_y or task.model.experts is not None:
        degrees["data"] *= degrees.pop("tensor_y")
    if not can.tensor_z:
        degrees["data"] *= degrees.pop("tensor_z")
    pipeline = degrees["pipeline"]
    zero = draw.choice(can.zero_with_pipeline if pipeline > 1 else can.zero_stages)
    recompute = draw.choice(can.recompute)
    experts = task.model.experts is not None and can.expert
    split = degrees["tensor_x"] > 1 and can.sequence_parallel
    return Plan(
        **degrees,
        data_shard=draw.choice([None, degrees["data"] // 2 or 1]) if zero else None,
        zero_stage=zero,
        sequence_parallel=split and draw.random() < 0.6,
        virtual_stages=draw.choice([1, 1, 2, 3]) if pipeline > 1 and can.virtual_stages else 1,
        schedule=draw.choice([None, None, "gpipe"]) if "gpipe" in can.schedules else None,
        context_kind=draw.choice(can.context or ("ring",)),
        expert=draw.choice([1, 2, 4, 8]) if experts else 1,
        expert_tensor=draw.choice([1, 1, 2]) if experts and can.expert_tensor else 1,
        micro_batch=draw.choice([1, 1, 2, 4]),
        global_batch=task.global_batch,
        sequence=task.sequence,
        recompute=recompute,
        recompute_every=draw.choice([1, 1, 2]) if recompute == "full" else 1,
        cached_layers=draw.choice([0, 0, 3])
        if recompute == "full" and task.stack.communication.shard_unit == "linear"
        else 0,
        precision=draw.choice(
            [name for name in ("bf16", "bf16", "fp16", "fp8") if name in can.precisions and
             name in task.machine.device.peak_flop_per_s]
        ),
        overlap=Overlap(**{name: draw.choice([None, None, True, False]) for name in can.overlaps}),
        rank_order=draw.choice(ORDERS),
    )  # fmt: skip


def plans(task: TuningTask, count: int, seed: int = 0, tries: int = 200) -> list[Plan]:
    """Up to `count` random legal plans."""
    draw, found = random.Random(seed), []
    for _ in range(tries * count):
        plan = draft(task, draw)
        if not faults_of(task.model, task.machine, plan, task.stack, task.devices):
            found.append(plan)
        if len(found) == count:
            break
    return found


def table_of(found: list[Plan]) -> PlanTable:
    """Plans as columns."""
    base = found[0]
    names = [field.name for field in fields(Plan)]
    choices = {name: tuple(dict.fromkeys(getattr(plan, name) for plan in found)) for name in names}
    choices = {name: values for name, values in choices.items() if len(values) > 1}
    codes = {
        name: np.array([values.index(getattr(plan, name)) for plan in found], np.int16)
        for name, values in choices.items()
    }
    table = PlanTable(replace(base), choices, codes)
    assert all(table.plan(row) == plan for row, plan in enumerate(found))
    return table


PROBLEMS = {
    "dense": ("llama3-8b", "dgx-h100:nodes=8", "megatron-core", 64, 128),
    "unfused": ("gpt3-175b", "selene", "megatron-2021", 96, 96),
    "grid": ("gpt-20b", "perlmutter", "axonn", 32, 64),
    "experts": ("mixtral-8x7b", "dgx-h100:nodes=8", "megatron-core", 32, 64),
    "fsdp": ("llama3-8b", "dgx-h100:nodes=8", "torchtitan", 64, 128),
    "host": ("llama3-8b", "dgx-h100:nodes=8", "nanotron", 32, 64),
    "logits": ("gpt3-175b", "selene", "megatron-deepspeed", 96, 96),
    "executor": ("tiny-moe", "perlmutter", "towtank-executor", 8, 32),
}
"""Model, machine, stack, devices, sequences of one step."""
