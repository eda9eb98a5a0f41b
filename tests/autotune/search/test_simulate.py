"""The fast path of a search against `predict`: the same step time to the bit."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from strategies import cases

from towtank import Plan, load_machine, load_model, load_stack, predict
from towtank.autotune.search.simulate import StepClock
from towtank.autotune.search.trace_memo import TraceMemo
from towtank.autotune.task import TuningTask
from towtank.simulator.lowering.sizes import local_sizes


def task_for(model, machine, plan, stack):
    return TuningTask(model, load_machine(machine), stack, plan.num_devices, plan.global_batch)


@given(case=cases())
@settings(max_examples=30, deadline=None)
def test_random_plans_take_what_predict_says(case):
    model, machine, plan, stack = case
    clock = StepClock(task_for(model, machine, plan, stack))
    assert clock.seconds(plan) == predict(model, machine, plan, stack=stack).step_time_s


PLANS = {
    "contention": ("gpt3-13b", "selene", "megatron-core", Plan(
        tensor_x=2, pipeline=4, virtual_stages=2, data=4, micro_batch=1, global_batch=64, zero_stage=1)),
    "blocking sends": ("gpt3-13b", "selene", "megatron-2021", Plan(
        tensor_x=2, pipeline=4, data=4, micro_batch=2, global_batch=64, recompute="full", precision="fp16")),
    "uneven stages": ("llama3-8b", "dgx-h100:nodes=8", "megatron-core", Plan(
        tensor_x=2, pipeline=3, data=4, global_batch=24, stage_layers=(10, 12, 10), zero_stage=1)),
    "chunks without layers": ("llama3-8b", "dgx-h100:nodes=8", "megatron-core", Plan(
        tensor_x=2, pipeline=2, virtual_stages=17, data=4, global_batch=64, zero_stage=1, sequence_parallel=True)),
    "shared interfaces": ("gpt-5b", "frontier", "axonn", Plan(
        tensor_x=16, tensor_y=2, tensor_z=4, data=2, micro_batch=2, global_batch=32, recompute="full")),
    "gpipe": ("gpt-5b", "selene", "any", Plan(
        tensor_x=2, pipeline=4, data=2, global_batch=16, schedule="gpipe", zero_stage=2)),
    "experts": ("mixtral-8x7b", "dgx-h100:nodes=8", "megatron-core", Plan(
        tensor_x=2, pipeline=2, data=16, expert=8, global_batch=64, sequence_parallel=True, zero_stage=1)),
    "buckets of gradients": ("llama3-8b", "dgx-h100:nodes=8", "megatron-core", Plan(
        tensor_x=2, pipeline=2, virtual_stages=2, data=16, global_batch=64, zero_stage=1, gradient_bucket=3 * 10**8)),
    "one kernel after the other": ("llama2-7b", "tpu-v5p-pod", "jax-spmd", Plan(
        data=64, zero_stage=3, micro_batch=1, global_batch=64)),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_what_plans_are_made_of(name):
    model, machine, stack, plan = PLANS[name]
    spec, chosen = load_model(model), load_stack(stack)
    clock = StepClock(task_for(spec, machine, plan, chosen))
    assert clock.seconds(plan) == predict(spec, machine, plan, stack=chosen).step_time_s


def test_one_clock_for_plans_of_all_kinds():
    # what one plan leaves behind must not reach another: in both orders, and again
    model, machine, stack = load_model("gpt3-13b"), "selene", load_stack("any")
    base = Plan(data=32, global_batch=64, zero_stage=1)
    changes = [
        {}, {"tensor_x": 2, "data": 16}, {"tensor_y": 2, "data": 16}, {"tensor_z": 2, "data": 16},
        {"pipeline": 4, "data": 8}, {"pipeline": 4, "virtual_stages": 2, "data": 8}, {"micro_batch": 2},
        {"zero_stage": 3}, {"zero_stage": 3, "data_shard": 8}, {"recompute": "full"}, {"zero_stage": 0},
        {"recompute": "full", "recompute_every": 2}, {"context": 2, "data": 16},
        {"tensor_x": 2, "data": 16, "sequence_parallel": True}, {"rank_order": (
            "data", "tensor_x", "tensor_y", "context", "tensor_z", "pipeline"), "tensor_x": 2, "data": 16},
    ]  # fmt: skip
    plans = [replace(base, **change) for change in changes]
    expected = [predict(model, machine, plan, stack=stack).step_time_s for plan in plans]
    clock = StepClock(task_for(model, machine, base, stack))
    assert [clock.seconds(plan) for plan in plans] == expected
    assert [clock.seconds(plan) for plan in plans[::-1]] == expected[::-1]
    assert len(set(expected)) > 12


def test_a_memo_calls_its_function_once_for_what_it_reads():
    model, stack = load_model("tiny-gpt"), load_stack("megatron-core")
    calls = []

    def tokens_if_split(sizes):
        calls.append(sizes)
        return sizes.plan.stride("tensor_x") if sizes.plan.tensor_x > 1 else -sizes.plan.micro_batch

    memo = TraceMemo(tokens_if_split)
    plans = [Plan(micro_batch=m, tensor_x=x, data=d) for d in (1, 2, 4) for x in (1, 2) for m in (1, 3)]
    answers = [memo(local_sizes(model, plan, stack)) for plan in plans]
    assert answers == [1 if plan.tensor_x > 1 else -plan.micro_batch for plan in plans]
    # with x = 1: micro-batches 1 and 3; with x = 2 the strides read the order and y, not the micro-batch
    assert len(calls) == 3
