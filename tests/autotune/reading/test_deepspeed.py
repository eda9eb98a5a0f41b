"""DeepSpeed JSON as a plan: two of the three batch sizes give the third."""

import json

import pytest

from towtank.autotune.reading.records import ReadingError
from towtank.autotune.reading.sources import import_plan
from towtank.simulator.plan import Overlap, Plan


@pytest.fixture
def read(tmp_path):
    def reading(data, devices=16, **more):
        path = tmp_path / "ds.json"
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return import_plan(path, "deepspeed", devices=devices, **more)

    return reading


@pytest.mark.parametrize(
    ("sizes", "micro", "total"),
    [
        ({"train_batch_size": 64, "train_micro_batch_size_per_gpu": 2}, 2, 64),
        ({"train_batch_size": 64, "gradient_accumulation_steps": 2}, 2, 64),
        ({"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 3}, 2, 96),
        ({"train_batch_size": 32}, 2, 32),
        ({"train_micro_batch_size_per_gpu": 4}, 4, 64),
    ],
)
def test_batch_sizes(read, sizes, micro, total):
    plan = read(sizes).plan
    assert (plan.micro_batch, plan.global_batch, plan.data) == (micro, total, 16)


def test_sections(read):
    found = read(
        {
            "train_micro_batch_size_per_gpu": 1,
            "bf16": {"enabled": True},
            "zero_optimization": {"stage": 2, "overlap_comm": True, "allgather_bucket_size": 5e8},
            "tensor_parallel": {"autotp_size": 4},
            "gradient_clipping": 1.0,
            "data_types": {"grad_accum_dtype": "fp32"},
        }
    )
    assert found.plan == Plan(
        tensor_x=4, data=4, zero_stage=2, global_batch=4, gradient_precision="fp32",
        overlap=Overlap(data_gradients=True),
    )  # fmt: skip
    assert found.ignored == ("zero_optimization.allgather_bucket_size 500000000.0", "gradient_clipping 1.0")


@pytest.mark.parametrize(
    ("section", "wanted"),
    [
        ({"zero_optimization": {"stage": 3}}, {"zero_stage": 3, "overlap": Overlap()}),
        (
            {"zero_optimization": {"stage": 3, "overlap_comm": False}},
            {"overlap": Overlap(reduce_scatter=False)},
        ),
        ({"zero_optimization": True}, {"zero_stage": 1}),
        ({"sequence_parallel_size": 4}, {"context": 4, "context_kind": "all-to-all", "data": 4}),
        ({"expert_parallel": {"enabled": True, "autoep_size": 8}}, {"expert": 8}),
        ({"expert_parallel": {"enabled": False, "autoep_size": 8}}, {"expert": 1}),
        ({"fp16": {"enabled": True}}, {"precision": "fp16"}),
        ({"tensor_parallel": {"autotp_size": 0}}, {"tensor_x": 1}),
        # without a key, gradients travel as the multiplies compute: bf16 is what the stack does
        ({}, {"precision": "fp32", "gradient_precision": "fp32"}),
        ({"bf16": {"enabled": True}}, {"precision": "bf16", "gradient_precision": None}),
        ({"fp16": {"enabled": True}}, {"precision": "fp16", "gradient_precision": None}),
        ({"torch_autocast": {"enabled": True, "dtype": "bfloat16"}}, {"precision": "bf16"}),
        ({"torch_autocast": {"enabled": True, "dtype": "float16"}}, {"precision": "fp16"}),
        ({"bf16": {"enabled": True}, "sequence_parallel_size": 2, "communication_data_type": "bf16",
          "seq_parallel_communication_data_type": "fp32"}, {"gradient_precision": "fp32"}),
        ({"bf16": {"enabled": True}, "communication_data_type": "bf16",
          "seq_parallel_communication_data_type": "fp32"}, {"gradient_precision": None}),
        ({"zero_optimization": {"stage": 3, "mics_shard_size": 4}}, {"zero_stage": 3, "data": 16, "data_shard": 4}),
        ({"zero_optimization": {"stage": 3, "mics_shard_size": -1}}, {"zero_stage": 3, "data_shard": None}),
    ],
)  # fmt: skip
def test_values(read, section, wanted):
    plan = read({"train_micro_batch_size_per_gpu": 1, **section}).plan
    assert {name: getattr(plan, name) for name in wanted} == wanted


FAULTS = {
    "no devices": ({"train_batch_size": 8}, None, ["--devices N"]),
    "product": (
        {"train_batch_size": 100, "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 2}, 16,
        ["100 must be", "2 x gradient_accumulation_steps 2 x 16", "= 64"],
    ),
    "auto": ({"train_micro_batch_size_per_gpu": "auto"}, 16, ["is auto", "write the number"]),
    "no batch": ({"bf16": {"enabled": True}}, 16, ["neither train_batch_size nor"]),
    "stage": ({"train_batch_size": 16, "zero_optimization": {"stage": 4}}, 16, ["4 must be 0, 1, 2 or 3"]),
    "degrees": ({"train_batch_size": 16, "tensor_parallel": {"autotp_size": 3}}, 16,
                ["3 x sequence_parallel_size 1"]),
    "shards": ({"train_batch_size": 16, "zero_optimization": {"stage": 3, "mics_shard_size": 3}}, 16,
               ["mics_shard_size 3 does not divide the data-parallel degree 16"]),
    "depth": ("[" * 100_000, 16, ["nests too deeply"]),
    "not JSON": ("{", 16, ["is not JSON"]),
    "a list": ("[]", 16, ["JSON object"]),
}  # fmt: skip


@pytest.mark.parametrize(("data", "devices", "phrases"), FAULTS.values(), ids=list(FAULTS))
def test_what_is_no_plan(read, data, devices, phrases):
    with pytest.raises(ReadingError) as caught:
        read(data, devices)
    for phrase in phrases:
        assert phrase in str(caught.value)


def test_what_changes_the_run_is_noted(read):
    zero = {"stage": 3, "offload_optimizer": {"device": "cpu"}, "zero_hpz_partition_size": 8}
    notes = read(
        {"train_micro_batch_size_per_gpu": 1, "zero_optimization": zero, "pipeline": {"stages": 2}}
    ).notes
    assert any("offload_optimizer" in note for note in notes)
    assert any("zero_hpz_partition_size" in note for note in notes)
    assert any("--set pipeline=N" in note for note in notes)


@pytest.mark.parametrize(
    ("zero", "bucket", "ignored"),
    [
        ({"stage": 1, "reduce_bucket_size": 5e8, "allgather_bucket_size": 5e8}, 500_000_000, 0),
        ({"stage": 2, "reduce_bucket_size": 200000000}, 200_000_000, 0),
        ({"stage": 1, "reduce_bucket_size": 5e8, "allgather_bucket_size": 2e8}, 500_000_000, 1),
        ({"stage": 1, "reduce_bucket_size": "auto"}, None, 1),
        ({"stage": 3, "reduce_bucket_size": 5e8}, None, 1),
        ({"stage": 0, "reduce_bucket_size": 5e8}, None, 1),
    ],
)
def test_buckets(read, zero, bucket, ignored):
    found = read({"train_micro_batch_size_per_gpu": 1, "zero_optimization": zero})
    assert found.plan.gradient_bucket == bucket
    assert len(found.ignored) == ignored
