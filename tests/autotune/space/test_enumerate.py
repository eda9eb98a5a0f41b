"""The space: rows are legal, limits and constraints hold, and an empty space says why."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from towtank.autotune.constraints import Constraints
from towtank.autotune.errors import TuningError
from towtank.autotune.space import enumerate as enumerate_
from towtank.autotune.space.canonical import canonical
from towtank.autotune.space.enumerate import legal_plans
from towtank.autotune.space.table import PlanTable
from towtank.autotune.task import TuningTask
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Plan
from towtank.simulator.plan_rules import faults_of
from towtank.simulator.predict import predict
from towtank.simulator.stacks.load import load_stack


def _task(model: str, machine: str, stack: str, devices: int, batch: int, **constraints) -> TuningTask:
    return TuningTask(
        load_model(model), load_machine(machine), load_stack(stack), devices, batch,
        constraints=Constraints(**constraints),
    )  # fmt: skip


def _rows(table: PlanTable, *names: str) -> set[tuple[Any, ...]]:
    return set(zip(*(table.column(name).tolist() for name in names), strict=True))


def test_a_space_worked_out_by_hand() -> None:
    # 4 devices, heads 8, 4 layers, batch 4: under llm-c (no tensor z, y, pipeline or context; ZeRO 0 and 1; recompute
    # none or full; no sequence parallelism; the host fixes one row of each pair (tensor_x, data))
    task = _task(
        "tiny-gpt", "selene", "llm-c", 4, 4,
        fixed={"recompute": ("none",), "micro_batch": (1,), "overlap.data_gradients": (None,)},
    )  # fmt: skip
    found = _rows(legal_plans(task), "tensor_x", "data", "zero_stage", "micro_batch")
    assert found == {(1, 4, 0, 1), (1, 4, 1, 1), (2, 2, 0, 1), (2, 2, 1, 1), (4, 1, 0, 1)}


def test_the_published_plan_of_megatron_1t_is_in_the_space() -> None:
    # Narayanan et al., SC'21, table 1: tensor 8, pipeline 64, micro-batch 1, full recompute
    task = _task("megatron-1t", "selene", "any", 3072, 3072, fixed={"tensor_x": (8, 16)})
    published = Plan(
        tensor_x=8, pipeline=64, data=6, micro_batch=1, global_batch=3072, recompute="full", precision="bf16"
    )
    table = legal_plans(task)
    wanted = canonical(task.model, task.machine, task.stack, published)
    rows = np.ones(table.num_rows, np.bool_)
    for name in (
        "tensor_x",
        "pipeline",
        "data",
        "micro_batch",
        "zero_stage",
        "virtual_stages",
        "recompute_every",
    ):
        rows &= table.column(name) == getattr(wanted, name)
    assert wanted in {table.take(rows).plan(row) for row in range(int(rows.sum()))}
    assert table.num_rows > 100_000


@pytest.mark.parametrize(
    ("model", "machine", "stack", "devices", "batch"),
    [
        ("llama3-405b", "dgx-h100:nodes=64", "any", 512, 128),
        ("deepseek-v3", "dgx-h100:nodes=8", "any", 64, 64),
        ("mixtral-8x7b", "dgx-h100:nodes=4", "megatron-core", 32, 64),
        ("gpt3-175b", "frontier", "axonn", 256, 256),
        ("llama3-8b", "dgx-h100:nodes=8", "torchtitan", 64, 128),
    ],
)
def test_rows_of_large_spaces_are_legal_and_within_the_usual_limits(
    model, machine, stack, devices, batch
) -> None:
    task = _task(model, machine, stack, devices, batch)
    table = legal_plans(task)
    node, sequence = task.machine.node.devices, task.model.sequence
    for row in np.random.default_rng(1).integers(0, table.num_rows, 60):
        plan = table.plan(int(row))
        assert faults_of(task.model, task.machine, plan, task.stack, devices) == []
        assert canonical(task.model, task.machine, task.stack, plan) == plan
        assert plan.tensor_y == 1 or plan.tensor_x * plan.tensor_y <= 8 * node
        assert plan.context == 1 or sequence // plan.context >= 1024
        assert plan.micro_batch == 1 or plan.micro_batch * sequence // plan.context <= 65_536
        assert plan.expert_tensor in (1, plan.tensor_x)
        inner = plan.tensor_x * plan.tensor_y * plan.context * plan.tensor_z
        assert plan.data_shard is None or inner * plan.data_shard == node


def test_constraints_hold_in_every_row_and_widen_what_is_usual() -> None:
    task = _task(
        "llama3-8b", "dgx-h100:nodes=8", "any", 64, 64,
        fixed={"tensor_x": (4, 8), "overlap.tensor": (True,), "zero_stage": (3,), "sequence_parallel": (True,)},
        least={"data": 2}, most={"pipeline": 2, "data_shard": 4},
    )  # fmt: skip
    table = legal_plans(task)
    assert set(table.column("tensor_x")) == {4, 8}
    assert set(table.column("pipeline")) == {1, 2}
    assert table.column("data").min() >= 2
    plans = [table.plan(row) for row in range(0, table.num_rows, 7)]
    assert {plan.overlap.tensor for plan in plans} == {True}
    assert {plan.shard_degree for plan in plans} == {1, 2, 4}
    assert (table.column("micro_batch") * 8192 // table.column("context")).max() == 65_536
    most = {"pipeline": 2, "micro_batch": 32, "context": 1}
    wide = legal_plans(replace(task, constraints=replace(task.constraints, most=most)))
    assert (wide.column("micro_batch") * 8192).max() == 32 * 8192


def test_blocks_change_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    task = _task("tiny-gpt", "selene", "any", 4, 8, free=frozenset({"recompute_every", "cached_layers"}))
    whole = legal_plans(task)
    monkeypatch.setattr(enumerate_, "_LARGEST_MASK", 100)
    parts = legal_plans(task)
    assert [parts.plan(row) for row in range(parts.num_rows)] == [
        whole.plan(row) for row in range(whole.num_rows)
    ]


def test_exchanges_between_experts_overlap_only_where_chunks_interleave() -> None:
    limits = Constraints(
        {"pipeline": (2,), "expert": (4,), "overlap.expert": (True,), "virtual_stages": (1, 2)},
        free=frozenset({"virtual_stages"}),
    )
    task = replace(_task("mixtral-8x7b", "dgx-h100:nodes=1", "megatron-core", 8, 32), constraints=limits)
    assert set(legal_plans(task).column("virtual_stages").tolist()) == {2}
    one = replace(limits, fixed={**limits.fixed, "virtual_stages": (1,)})
    with pytest.raises(
        TuningError, match=r"overlap\.expert = true needs virtual_stages above 1 in a pipeline"
    ):
        legal_plans(replace(task, constraints=one))


def test_what_is_left_out_for_being_no_better_is_no_better() -> None:
    model, machine, stack = load_model("tiny-gpt"), load_machine("selene"), load_stack("megatron-core")
    plan = Plan(tensor_x=2, data=2, global_batch=16, micro_batch=2)
    usual, gpipe, selective = (
        predict(model, machine, each, stack=stack)
        for each in (plan, replace(plan, schedule="gpipe"), replace(plan, recompute="selective"))
    )
    assert gpipe.step_time_s == pytest.approx(usual.step_time_s, rel=1e-9)
    assert gpipe.peak_memory_bytes >= usual.peak_memory_bytes
    assert selective.step_time_s >= usual.step_time_s
    assert selective.peak_memory_bytes >= usual.peak_memory_bytes


def test_the_space_of_a_device_without_bf16_is_in_fp16() -> None:
    table = legal_plans(_task("gpt2-xl", "dgx-v100", "megatron-core", 8, 8))
    assert set(table.column("precision")) == {"fp16"}
    with pytest.raises(TuningError, match=r"precision = bf16 is in no plan of .*; it may be .*fp16"):
        legal_plans(_task("gpt2-xl", "dgx-v100", "megatron-core", 8, 8, fixed={"precision": ("bf16",)}))


def test_what_leaves_no_plan_is_said() -> None:
    # 3,067 is prime: no degree can take it but data, and 3,072 sequences do not divide so
    with pytest.raises(TuningError) as caught:
        legal_plans(_task("megatron-1t", "selene", "any", 3067, 3072))
    text = str(caught.value)
    assert "on 3,067 devices with global_batch = 3,072 is legal under any" in text
    assert "tensor_x, 1 of 2 left: tensor_x divides the 160 attention heads (1)" in text
    assert "data, 0 of 2 left: " in text
    assert "data x tensor_z divides the global batch 3,072 (1)" in text
    assert "the nearest global batch for a grid that is left is 3,067, a multiple of 3,067" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"devices": 0}, "devices = 0, but it must be 1 or more"),
        ({"global_batch": 10**30}, "global_batch = 10{30}, but it must be 2147483647 or less"),
        ({"sequence": 2**40}, "sequence = 1099511627776, but it must be 2147483647 or less"),
        ({"devices": 100_000}, "100,000 devices were asked, but selene has 4,480"),
        ({"sequence": 4096}, "sequence = 4096, but megatron-1t has a learned table of 2048 positions"),
        (
            {"constraints": Constraints({"tensor_x": (7,)})},
            "tensor_x = 7 is in no plan of .* under any; it may be 1, 2, 4",
        ),
        ({"constraints": Constraints({"expert": (2,)})}, "expert = 2 is in no plan of .*; it may be 1"),
        (
            {"constraints": Constraints(free=frozenset({"tensorx"}))},
            "unknown dimension tensorx; did you mean 'tensor_x'",
        ),
        (
            {"constraints": Constraints(most={"data": 1}, least={"pipeline": 129})},
            "pipeline = 192 or 256 .* it may be 1, 2",
        ),
        (
            {"constraints": Constraints({"schedule": ("interleaved",), "virtual_stages": (1,)})},
            "virtual_stages, schedule: the constraints leave no values that go together",
        ),
        (
            {"constraints": Constraints({"tensor_x": (8,), "data": (1024,)})},
            "the other degrees leave data = 1, 2, 3, ",
        ),
    ],
)
def test_a_task_that_can_have_no_plan_is_an_error(change, words) -> None:
    with pytest.raises(TuningError, match=words):
        legal_plans(replace(_task("megatron-1t", "selene", "any", 3072, 3072), **change))
