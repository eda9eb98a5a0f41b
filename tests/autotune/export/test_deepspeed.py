"""DeepSpeed JSON: the product of its batch sizes, and what it cannot say."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from towtank.autotune.export.deepspeed import translate
from towtank.autotune.export.records import ExportError, Job
from towtank.autotune.export.targets import export
from towtank.autotune.reading.sources import import_plan
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Overlap, Plan
from towtank.simulator.stacks.load import load_stack


def document(made) -> dict:
    return json.loads(translate(made).files[0].text)


@pytest.mark.parametrize(
    ("fields", "total", "micro", "steps"),
    [
        ({"data": 16, "micro_batch": 2, "global_batch": 128}, 128, 2, 4),
        # devices of the tensor group hold the same sequences: 8 data-parallel devices of 16
        ({"data": 8, "tensor_x": 2, "micro_batch": 2, "global_batch": 64}, 64, 2, 4),
        ({"data": 4, "context": 4, "context_kind": "all-to-all", "global_batch": 8}, 8, 1, 2),
        ({"tensor_z": 16, "stack": "axonn", "global_batch": 32}, 32, 1, 2),
    ],
)
def test_batch_sizes_multiply(job, fields, total, micro, steps):
    found = document(job(**fields))
    assert (
        found["train_batch_size"],
        found["train_micro_batch_size_per_gpu"],
        found["gradient_accumulation_steps"],
    ) == (total, micro, steps)


def test_sections(job):
    found = document(
        job(stack="deepspeed", tensor_x=2, data=4, zero_stage=2, global_batch=4, gradient_precision="fp32")
    )
    assert found["tensor_parallel"] == {"autotp_size": 2}
    assert found["bf16"] == {"enabled": True}
    assert found["zero_optimization"]["stage"] == 2
    assert found["data_types"] == {"grad_accum_dtype": "fp32"} and found["communication_data_type"] == "fp32"
    assert "sequence_parallel_size" not in found and "expert_parallel" not in found


def test_experts_and_sequences(job):
    moe = document(
        job("mixtral-8x7b", stack="megatron-core", expert=8, data=16, zero_stage=1, global_batch=16)
    )
    assert moe["expert_parallel"] == {"enabled": True, "autoep_size": 8, "expert_tensor_parallel_size": 1}
    ulysses = document(job(context=4, context_kind="all-to-all", data=2, zero_stage=2, global_batch=2))
    assert ulysses["sequence_parallel_size"] == 4
    # under Ulysses this key goes before communication_data_type, and its default is another
    assert ulysses["seq_parallel_communication_data_type"] == "fp32"


def test_without_zero_gradients_are_what_the_multiplies_are(job):
    """DeepSpeed raises NotImplementedError for any other mix of the two there."""
    made = job(data=8, global_batch=8)  # Megatron-Core reduces in fp32
    assert document(made)["data_types"] == {"grad_accum_dtype": "bf16"}
    assert any("not in the fp32 of megatron-core" in note for note in translate(made).notes)
    assert document(job(data=8, global_batch=8, zero_stage=1))["data_types"] == {"grad_accum_dtype": "fp32"}
    with pytest.raises(ExportError, match=r"gradient_precision = fp32 without ZeRO: .* in bf16 there"):
        translate(job(data=8, global_batch=8, gradient_precision="fp32"))
    with pytest.raises(ExportError, match=r"bf16 \(what deepspeed does\) without ZeRO: .* in fp32 there"):
        translate(job(stack="deepspeed", data=8, global_batch=8, precision="fp32"))


@pytest.mark.parametrize(("precision", "sent"), [("bf16", "bf16"), ("fp16", "fp16")])
def test_16_bits_of_a_stack_are_those_of_the_multiplies(job, precision, sent):
    """The stack deepspeed reduces in bf16 where it computes in bf16."""
    found = document(job(stack="deepspeed", data=8, zero_stage=1, global_batch=8, precision=precision))
    assert (found["communication_data_type"], found["data_types"]["grad_accum_dtype"]) == (sent, sent)


FAULTS = {
    "pipeline": ({"pipeline": 2}, "pipeline = 2"),
    "y": ({"tensor_y": 2, "stack": "axonn"}, "tensor_y = 2"),
    "ZeRO 3 with AutoTP": ({"tensor_x": 2, "data": 4, "zero_stage": 3}, "ZeRO 3 with tensor_x = 2"),
    "hybrid sharding": (
        {"data": 4, "zero_stage": 3, "data_shard": 2},
        "hybrid sharding (2 shards, 2 replicas)",
    ),
    "z with replicas": (
        {"tensor_z": 2, "data": 4, "stack": "axonn"},
        "hybrid sharding (2 shards, 4 replicas)",
    ),
    "ring": ({"context": 2}, "context_kind = ring"),
    "sequence parallel": ({"tensor_x": 2, "sequence_parallel": True}, "sequence_parallel"),
    "fp8": ({"precision": "fp8"}, "precision = fp8"),
    "selective": ({"recompute": "selective"}, "recompute of parts"),
    "both": ({"tensor_x": 2, "context": 2, "context_kind": "all-to-all"}, "do not combine"),
    "overlap without ZeRO": ({"data": 4, "overlap": Overlap(data_gradients=True)}, "under ZeRO only"),
    **{
        name: ({"overlap": Overlap(**{name: True})}, f"overlap.{name}: DeepSpeed's JSON cannot switch it on")
        for name in ("parameter_gather", "tensor", "backward_all_reduce", "pipeline", "expert")
    },
}


@pytest.mark.parametrize(("fields", "phrase"), FAULTS.values(), ids=list(FAULTS))
def test_what_it_cannot_say(job, fields, phrase):
    with pytest.raises(ExportError) as caught:
        translate(job(**{"global_batch": 8, **fields}))
    assert len(caught.value.faults) == 1
    assert phrase in str(caught.value)


def test_all_reasons_at_once(job):
    with pytest.raises(ExportError) as caught:
        translate(job(pipeline=2, context=2, precision="fp8", recompute="selective", global_batch=8))
    assert len(caught.value.faults) == 4


@settings(max_examples=40, deadline=None)
@given(
    tensor=st.sampled_from([1, 2, 4]), context=st.sampled_from([1, 2]), data=st.sampled_from([1, 2, 8]),
    zero=st.integers(0, 3), micro=st.integers(1, 3), steps=st.integers(1, 4),
    overlap=st.sampled_from([None, True, False]), precision=st.sampled_from(["bf16", "fp16", "fp32"]),
    gradients=st.sampled_from([None, "fp32"]),
)  # fmt: skip
def test_round_trip(tensor, context, data, zero, micro, steps, overlap, precision, gradients):
    stack = load_stack("deepspeed")
    switch = "reduce_scatter" if zero == 3 else "data_gradients"
    usual = switch in stack.communication.overlaps
    assume(zero or overlap is None)
    assume(overlap is not usual)  # what the stack does anyway is not written into a plan
    plan = Plan(
        tensor_x=tensor, context=context, context_kind="all-to-all" if context > 1 else "ring", data=data,
        zero_stage=zero, micro_batch=micro, global_batch=micro * steps * data, precision=precision,
        gradient_precision=gradients, overlap=Overlap() if overlap is None else Overlap(**{switch: overlap}),
    )  # fmt: skip
    name = "dgx-h100:nodes=64"
    try:
        exported = export(Job(load_model("llama3-8b"), load_machine(name), plan, stack, name), "deepspeed")
    except ExportError:
        assume(False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ds.json"
        path.write_text(exported.files[0].text)
        found = import_plan(path, devices=plan.num_devices)
    assert (found.source, found.plan, found.ignored) == ("deepspeed", plan, ())


def test_buckets_of_gradients_and_weights_have_one_size(job):
    zero = document(job(stack="deepspeed", data=8, zero_stage=1, global_batch=8, gradient_bucket=10**8))[
        "zero_optimization"
    ]
    assert (zero["reduce_bucket_size"], zero["allgather_bucket_size"]) == (10**8, 10**8)
    with pytest.raises(ExportError, match="DeepSpeed's JSON has buckets under ZeRO only"):
        translate(job(stack="deepspeed", data=8, global_batch=8, gradient_bucket=10**8))
