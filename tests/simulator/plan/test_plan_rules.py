"""Every rule of a plan: broken once each, with the values and what to do in the message."""

import pytest
from lowered import gpt, mla, moe

from towtank.hardware_profiles.load import load_machine
from towtank.simulator.errors import PlanError
from towtank.simulator.models.records import Attention
from towtank.simulator.plan import DEFAULT_RANK_ORDER, Overlap, Plan
from towtank.simulator.plan_rules import check, faults_of
from towtank.simulator.stacks.load import load_stack

MACHINE = "dgx-h100:nodes=8"


def faults(plan, *, model=None, stack="megatron-core", machine=MACHINE, devices=None):
    return faults_of(model or gpt(), load_machine(machine), plan, load_stack(stack), devices)


@pytest.mark.parametrize(
    "plan, words",
    [
        (Plan(data=0), "data = 0, but it must be 1 or more"),
        (Plan(rank_order=("data",) * 6), "rank_order must name each of"),
        (Plan(data_shard=0), "data_shard = 0, but it must be"),
        (Plan(data=128, global_batch=128), "128 devices, but dgx-h100 has 64"),
        (Plan(data=4, global_batch=6), "global_batch = 6 must be a multiple of .* = 4; set global_batch = 8"),
        (Plan(data=4, global_batch=2), "set global_batch = 4"),
        (Plan(sequence=0), "sequence = 0"),
        (Plan(context=3), "sequence = 128 must be a multiple of 6"),
        (Plan(context=16, context_kind="all-to-all"), "splits the 8 heads"),
        (Plan(data=4, data_shard=3, zero_stage=1, global_batch=4), "data_shard = 3 must divide data = 4"),
        (Plan(data=4, data_shard=2, global_batch=4), "zero_stage = 0 shards nothing; set zero_stage"),
        (Plan(recompute_every=2), "needs recompute = full"),
        (Plan(pipeline=8, global_batch=8), "4 layers, too few for pipeline = 8"),
        (Plan(pipeline=2, stage_layers=(4,), global_batch=2), "stage_layers has 1 numbers, .* = 2 chunks"),
        (
            Plan(pipeline=2, stage_layers=(4, 1), global_batch=2),
            "must add up to the 4 layers of .* adds up to 5",
        ),
        (Plan(expert=2, data=2, global_batch=2), "has no experts; set it to 1"),
        (Plan(tensor_y=2), "megatron-core cannot run tensor_y = 2"),
        (
            Plan(tensor_z=2, global_batch=2),
            "megatron-core cannot run tensor_z = 2.*FSDP is data with zero_stage = 3",
        ),
        (Plan(pipeline=2, zero_stage=3, global_batch=2), "cannot run zero_stage = 3 with a pipeline"),
    ],
)
def test_a_broken_rule_is_the_only_fault(plan, words):
    found = faults(plan)
    assert len(found) == 1, found
    with pytest.raises(PlanError, match=words):
        check(gpt(), load_machine(MACHINE), plan, load_stack("megatron-core"))


@pytest.mark.parametrize(
    "plan, model, stack, words",
    [
        (
            Plan(tensor_x=3),
            gpt(),
            "megatron-core",
            "attention heads = 8 must be a multiple of tensor_x = 3; choose",
        ),
        (Plan(zero_stage=4), gpt(), "megatron-core", "zero_stage = 4, but it must be 0, 1, 2 or 3"),
        (
            Plan(tensor_x=2),
            gpt(attention=Attention(8, 3, 32)),
            "megatron-core",
            "key-value heads = 3 and tensor_x",
        ),
        (
            Plan(sequence=256),
            gpt(positions="learned", max_positions=128),
            "megatron-core",
            "table of 128 positions",
        ),
        (
            Plan(expert=3, data=3, global_batch=3),
            moe(),
            "megatron-core",
            "number of experts = 8 must be a multiple",
        ),
        (
            Plan(expert=4, data=2, global_batch=2),
            moe(),
            "megatron-core",
            "must divide the 2 devices of a stage",
        ),
        (Plan(expert=2, tensor_x=2), moe(), "megatron-core", "needs sequence_parallel"),
        (
            Plan(expert=2, data=2, pipeline=2, global_batch=4, overlap=Overlap(expert=True)),
            moe(),
            "megatron-core",
            "with pipeline = 2 and virtual_stages = 1 no two passes meet on a stage; set virtual_stages above 1",
        ),
        (
            Plan(
                pipeline=2, data=2, expert=2, global_batch=4, rank_order=tuple(reversed(DEFAULT_RANK_ORDER))
            ),
            moe(),
            "megatron-core",
            "put pipeline last in rank_order",
        ),
        (
            Plan(tensor_y=2),
            moe(),
            "towtank-executor",
            "need the whole hidden state of a token; set tensor_y = 1",
        ),
        (Plan(pipeline=3, global_batch=3), gpt(), "megatron-2021", "needs stages of equal size"),
        (Plan(precision="fp8"), gpt(), "nanotron", "nanotron cannot run precision = fp8: it has"),
        (Plan(recompute="selective"), gpt(), "nanotron", "cannot run recompute = selective"),
        (Plan(schedule="interleaved", virtual_stages=2), gpt(), "axonn", "virtual_stages = 2"),
        (Plan(overlap=Overlap(pipeline=True)), gpt(), "axonn", "cannot run overlap.pipeline"),
        (Plan(context=2), gpt(), "axonn", "it has no context parallelism"),
        (Plan(context=2, context_kind="all-to-all"), gpt(), "torchtitan", "it has ring"),
        (Plan(recompute="full", recompute_every=2), gpt(), "axonn", "it recomputes every layer or none"),
        (Plan(recompute="selective"), gpt(), "deepspeed", "it has none, full"),
        (Plan(expert=2, data=2, global_batch=2), moe(), "llm-foundry", "it has no expert parallelism"),
    ],
)
def test_rules_of_models_and_stacks(plan, model, stack, words):
    found = faults(plan, model=model, stack=stack)
    assert found
    with pytest.raises(PlanError, match=words):
        check(model, load_machine(MACHINE), plan, load_stack(stack))


def test_devices_that_were_asked_for():
    plan = Plan(tensor_x=4, data=8, global_batch=8)
    (fault,) = faults(plan, devices=64)
    assert fault == "tensor degrees 4 x 1 x 1 x data 8 = 32, but 64 devices were asked; set data = 16"
    assert "use a multiple of 4 devices" in faults(plan, devices=30)[0]
    assert not faults(plan, devices=32)


def test_a_precision_that_the_device_lacks():
    (fault,) = faults(Plan(precision="fp8"), machine="selene")
    assert fault.startswith("precision = fp8, but a100") and "bf16" in fault


def test_all_faults_at_once():
    plan = Plan(tensor_x=3, data=4, global_batch=3, recompute_every=2, zero_stage=5)
    assert len(faults(plan)) >= 4


@pytest.mark.parametrize(
    "plan, model, stack",
    [
        (Plan(), gpt(), "megatron-core"),
        (Plan(tensor_x=8, sequence_parallel=True, pipeline=4, global_batch=8), gpt(), "megatron-core"),
        (Plan(tensor_x=2, tensor_y=2, tensor_z=4, data=4, global_batch=16), mla(), "towtank-executor"),
        (Plan(tensor_x=2, sequence_parallel=True, data=4, expert=8, global_batch=4), moe(), "megatron-core"),
        (Plan(data=64, zero_stage=3, global_batch=64), gpt(), "torchtitan"),
        # exchanges between experts beside another pass: without a pipeline, between chunks, and where there are none
        (Plan(expert=2, data=2, global_batch=2, overlap=Overlap(expert=True)), moe(), "megatron-core"),
        (
            Plan(
                expert=2, data=2, pipeline=2, virtual_stages=2, global_batch=8, overlap=Overlap(expert=True)
            ),
            moe(),
            "megatron-core",
        ),
        (Plan(pipeline=2, global_batch=2, overlap=Overlap(expert=True)), gpt(), "megatron-core"),
    ],
)
def test_legal_plans(plan, model, stack):
    assert faults(plan, model=model, stack=stack) == []
