"""Arguments of Megatron-LM, worked out by hand, and what it cannot run."""

import pytest

from towtank.autotune.export.family import plan_values, stage_text
from towtank.autotune.export.megatron import translate
from towtank.autotune.export.records import ExportError
from towtank.autotune.export.targets import export
from towtank.autotune.reading.arguments import read_arguments


def options(made) -> dict[str, object]:
    translated = translate(made)
    text = "\n".join([*translated.command.setup, f"torchrun {translated.command.program}"])
    return dict(read_arguments(text, ("--num-layers",), {}, "made").options)


def subset(found, wanted) -> bool:
    return {name: found.get(name) for name in wanted} == wanted


def absent(found, *names) -> bool:
    return not set(names) & set(found)


def test_interleaving_counts_layers_of_a_virtual_stage(job):
    # 32 layers on 4 stages of 2 chunks: 4 layers in each
    found = options(
        job(tensor_x=2, sequence_parallel=True, pipeline=4, virtual_stages=2, data=2, global_batch=16)
    )
    assert subset(
        found,
        {
            "--tensor-model-parallel-size": "2",
            "--sequence-parallel": True,
            "--pipeline-model-parallel-size": "4",
            "--num-layers-per-virtual-pipeline-stage": "4",
            "--micro-batch-size": "1",
            "--global-batch-size": "16",
            "--seq-length": "8192",
        },
    )
    assert absent(found, "--pipeline-model-parallel-layout", "--no-overlap-p2p-communication")


def test_uneven_stages_are_written_out(job):
    found = options(
        job("llama3.1-405b", tensor_x=8, sequence_parallel=True, pipeline=4, data=2, global_batch=8)
    )
    # 126 on 4: 32 each are 128, less one on the first and the last
    assert found["--pipeline-model-parallel-layout"] == "Et*31|t*32|t*32|t*31L"


@pytest.mark.parametrize(
    ("chunks", "mtp", "text"),
    [
        ((3, 4, 3), 0, "Et*3|t*4|t*3L"),
        ((0, 1, 2, 1), 0, "E|t|t*2|tL"),
        ((4, 3), 1, "Et*4|t*3mL"),
        ((2,), 2, "Et*2mmL"),
    ],
)
def test_layout(chunks, mtp, text):
    # the whole of a single chunk is both the first and the last
    assert stage_text(chunks, mtp) == text


@pytest.mark.parametrize(
    ("fields", "wanted", "without"),
    [
        (
            {},
            {},
            ["--use-distributed-optimizer", "--use-megatron-fsdp", "--num-distributed-optimizer-instances"],
        ),
        ({"zero_stage": 1}, {"--use-distributed-optimizer": True}, ["--use-megatron-fsdp"]),
        (
            {"zero_stage": 1, "data_shard": 4},
            {"--num-distributed-optimizer-instances": "4"},
            ["--use-megatron-fsdp"],
        ),
        (
            {"zero_stage": 2},
            {"--use-megatron-fsdp": True, "--data-parallel-sharding-strategy": "optim_grads"},
            ["--num-distributed-optimizer-instances"],
        ),
        (
            {"zero_stage": 3, "data_shard": 8},
            {
                "--use-megatron-fsdp": True,
                "--data-parallel-sharding-strategy": "optim_grads_params",
                "--num-distributed-optimizer-instances": "2",
                "--ckpt-format": "fsdp_dtensor",
            },
            [],
        ),
    ],
)
def test_sharding(job, fields, wanted, without):
    found = options(job(data=16, global_batch=16, **fields))
    assert subset(found, wanted) and absent(found, *without)


def test_z_is_hybrid_sharding(job):
    found = options(job(stack="axonn", tensor_z=8, data=4, global_batch=32))
    assert subset(
        found,
        {
            "--data-parallel-sharding-strategy": "optim_grads_params",
            "--num-distributed-optimizer-instances": "4",
            "--micro-batch-size": "1",
        },
    )


@pytest.mark.parametrize(
    ("fields", "wanted", "without"),
    [
        (
            {"precision": "bf16"},
            {"--bf16": True, "--accumulate-allreduce-grads-in-fp32": True},
            ["--fp8-format"],
        ),
        ({"precision": "fp16"}, {"--fp16": True, "--accumulate-allreduce-grads-in-fp32": True}, ["--bf16"]),
        ({"precision": "fp8"}, {"--bf16": True, "--fp8-format": "hybrid", "--fp8-recipe": "tensorwise"}, []),
        ({"precision": "mxfp8"}, {"--bf16": True, "--fp8-format": "e4m3", "--fp8-recipe": "mxfp8"}, []),
        (
            {"precision": "nvfp4"},
            {"--bf16": True, "--fp4-format": "e2m1", "--fp4-recipe": "nvfp4"},
            ["--fp8-format"],
        ),
        ({"precision": "fp32"}, {}, ["--bf16", "--fp16", "--accumulate-allreduce-grads-in-fp32"]),
        (
            {"gradient_precision": "bf16"},
            {"--grad-reduce-in-bf16": True},
            ["--accumulate-allreduce-grads-in-fp32"],
        ),
    ],
)
def test_precision(job, fields, wanted, without):
    found = options(job(machine="dgx-b200:nodes=8", data=8, global_batch=8, **fields))
    assert subset(found, wanted) and absent(found, *without)


@pytest.mark.parametrize(
    ("fields", "wanted", "without"),
    [
        ({"recompute": "none"}, {}, ["--recompute-granularity"]),
        ({"recompute": "selective"}, {"--recompute-granularity": "selective"}, ["--recompute-method"]),
        (
            {"recompute": "full"},
            {
                "--recompute-granularity": "full",
                "--recompute-method": "uniform",
                "--recompute-num-layers": "1",
            },
            [],
        ),
        # every second of the 16 layers of a stage: 8
        (
            {"recompute": "full", "recompute_every": 2, "pipeline": 2},
            {"--recompute-method": "block", "--recompute-num-layers": "8"},
            [],
        ),
    ],
)
def test_recomputation(job, fields, wanted, without):
    found = options(job(data=4, global_batch=8, **fields))
    assert subset(found, wanted) and absent(found, *without)


def test_experts_split_by_tensor_only_where_planned(job):
    moe = {"model": "mixtral-8x7b", "tensor_x": 2, "sequence_parallel": True, "data": 8, "global_batch": 8}
    found = options(job(expert=8, **moe))
    # without the option Megatron-LM would split each expert by the tensor degree
    assert subset(
        found,
        {
            "--expert-model-parallel-size": "8",
            "--expert-tensor-parallel-size": "1",
            "--num-experts": "8",
            "--moe-router-topk": "2",
            "--moe-ffn-hidden-size": "14336",
        },
    )
    assert options(job(expert=4, expert_tensor=2, **moe))["--expert-tensor-parallel-size"] == "2"
    assert absent(options(job()), "--expert-tensor-parallel-size", "--num-experts")


def test_dispatcher_of_the_stack(job):
    moe = {"model": "mixtral-8x7b", "expert": 8, "data": 8, "global_batch": 8}
    assert options(job(**moe))["--moe-token-dispatcher-type"] == "alltoall"
    assert options(job(stack="megatron-core-flex", **moe))["--moe-token-dispatcher-type"] == "flex"


@pytest.mark.parametrize(("kind", "word"), [("ring", "p2p"), ("all-to-all", "a2a")])
def test_context(job, kind, word):
    found = options(job(context=4, context_kind=kind, data=2, global_batch=2))
    assert subset(found, {"--context-parallel-size": "4", "--cp-comm-type": word})


def test_overlap(job):
    # the stack overlaps gradients and parameters, not the collectives of the tensor group
    usual = options(job(tensor_x=2, sequence_parallel=True, data=4, zero_stage=1, global_batch=4))
    assert subset(usual, {"--overlap-grad-reduce": True, "--overlap-param-gather": True})
    assert absent(usual, "--tp-comm-overlap")
    from towtank.simulator.plan import Overlap

    off = Overlap(data_gradients=False, parameter_gather=False, tensor=True)
    changed = options(
        job(tensor_x=2, sequence_parallel=True, data=4, zero_stage=1, global_batch=4, overlap=off)
    )
    assert absent(changed, "--overlap-grad-reduce", "--overlap-param-gather")
    assert changed["--tp-comm-overlap"] is True


def test_stages_nearer_than_replicas(job):
    order = ("tensor_y", "tensor_x", "context", "pipeline", "tensor_z", "data")
    made = job(tensor_x=2, pipeline=2, data=2, global_batch=4, rank_order=order)
    assert options(made)["--use-tp-pp-dp-mapping"] is True
    assert absent(options(job(tensor_x=2, pipeline=2, data=2, global_batch=4)), "--use-tp-pp-dp-mapping")


LATENT = {
    "--multi-latent-attention": True,
    "--q-lora-rank": "1536",
    "--kv-lora-rank": "512",
    "--qk-head-dim": "128",
    "--qk-pos-emb-head-dim": "64",
    "--v-head-dim": "128",
    "--moe-layer-freq": "([0]*3+[1]*58)",
    "--moe-shared-expert-intermediate-size": "2048",
    "--mtp-num-layers": "1",
}
WINDOWS = {
    "--window-size": "128,0",
    "--window-attn-skip-freq": "2",
    "--softmax-type": "learnable",
    "--num-query-groups": "8",
    "--kv-channels": "64",
}


@pytest.mark.parametrize(
    ("model", "wanted", "without"),
    [
        ("deepseek-v3", LATENT, ["--group-query-attention", "--add-qkv-bias"]),
        ("gpt-oss-120b", WINDOWS, ["--disable-bias-linear"]),
        ("qwen2.5-7b", {"--disable-bias-linear": True, "--add-qkv-bias": True}, ["--qk-layernorm"]),
        ("qwen3-8b", {"--qk-layernorm": True, "--kv-channels": None, "--swiglu": True}, ["--add-qkv-bias"]),
        ("gpt3-175b", {"--position-embedding-type": "learned_absolute", "--max-position-embeddings": "2048"},
         ["--swiglu", "--untie-embeddings-and-output-weights", "--disable-bias-linear"]),
        # experts in every second layer from the second on: no integer says so
        ("llama4-maverick", {"--moe-layer-freq": f"[{','.join(['0,1'] * 24)}]"}, []),
    ],
)  # fmt: skip
def test_models(job, model, wanted, without):
    found = options(job(model, data=8, global_batch=8))
    assert subset(found, wanted) and absent(found, *without)


FAULTS = {
    "y": ({"stack": "axonn", "tensor_y": 2}, ["tensor_y = 2"]),
    "gpipe": ({"pipeline": 2, "schedule": "gpipe"}, ["schedule = gpipe"]),
    "cached layers": (
        {"stack": "axonn", "tensor_z": 2, "cached_layers": 2, "recompute": "full"},
        ["cached_layers = 2"],
    ),
    "master": ({"master_precision": "bf16"}, ["master_precision = bf16"]),
    "gradients": ({"gradient_precision": "fp16"}, ["gradient_precision = fp16 under precision = bf16"]),
    "part of a node": ({"data": 12, "global_batch": 12}, ["12 devices do not fill nodes of 8"]),
    "rank order": (
        {
            "stack": "any",
            "tensor_x": 2,
            "data": 2,
            "rank_order": ("data", "tensor_x", "tensor_y", "context", "tensor_z", "pipeline"),
        },
        ["megatron-core cannot run rank_order"],
    ),
    "every second of uneven stages": (
        {"pipeline": 3, "recompute": "full", "recompute_every": 2, "global_batch": 6},
        ["recompute_every = 2"],
    ),
    "ZeRO 3 with a pipeline": (
        {"stack": "torchtitan", "data": 4, "pipeline": 2, "zero_stage": 3},
        ["with a pipeline"],
    ),
}


@pytest.mark.parametrize(("fields", "phrases"), FAULTS.values(), ids=list(FAULTS))
def test_what_megatron_cannot_run(job, fields, phrases):
    with pytest.raises(ExportError) as caught:
        translate(job(**{"global_batch": 8, **fields}))
    assert len(caught.value.faults) == 1
    for phrase in phrases:
        assert phrase in str(caught.value)


def test_gradients_that_the_stack_reduces_in_another_precision(job):
    with pytest.raises(
        ExportError, match=r"bf16 \(what deepspeed does\) under precision = fp16: .* fp32 or in fp16"
    ):
        translate(job(stack="deepspeed", data=8, global_batch=8, precision="fp16"))


SWITCHES = {
    "parameters without gradients": (
        {"data": 4, "zero_stage": 1}, {"data_gradients": False, "parameter_gather": True},
        "needs the overlap of gradients",
    ),
    "one switch for two": (
        {"data": 4, "zero_stage": 3, "data_shard": 2}, {"reduce_scatter": True, "data_gradients": False},
        "one switch",
    ),
    "tensor without sequence parallelism": ({"tensor_x": 2}, {"tensor": True}, "with sequence_parallel only"),
    "sends without interleaving": ({"pipeline": 2}, {"pipeline": True}, "interleaved schedule only"),
    "two stages without overlap": ({"pipeline": 2, "virtual_stages": 2}, {"pipeline": False}, "two stages"),
    "experts under recomputation": (
        {"model": "mixtral-8x7b", "expert": 8, "data": 8, "recompute": "full"}, {"expert": True},
        "full recomputation",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "switches", "phrase"), SWITCHES.values(), ids=list(SWITCHES))
def test_switches_that_megatron_lacks(job, fields, switches, phrase):
    from towtank.simulator.plan import Overlap

    _, faults, _ = plan_values(job(global_batch=8, overlap=Overlap(**switches), **fields), "megatron-core")
    assert len(faults) == 1 and phrase in faults[0]


def test_what_it_does_by_itself_is_a_note(job):
    from towtank.simulator.plan import Overlap

    _, faults, notes = plan_values(
        job(tensor_x=2, overlap=Overlap(backward_all_reduce=False)), "megatron-core"
    )
    assert faults == [] and "always runs this all-reduce" in notes[0]


@pytest.mark.parametrize(
    "model", ["bloom-176b", "gpt-neox-20b", "gemma2-9b", "apertus-8b", "mpt-30b-released"]
)
def test_models_that_megatron_lacks(job, model):
    with pytest.raises(ExportError, match=model):
        translate(job(model))


def test_all_reasons_at_once(job):
    made = job(
        "gpt-neox-20b",
        data=12,
        pipeline=1,
        master_precision="none",
        gradient_precision="fp16",
        global_batch=12,
    )
    with pytest.raises(ExportError) as caught:
        translate(made)
    assert len(caught.value.faults) == 4


def test_connections(job):
    usual = translate(job(tensor_x=2, sequence_parallel=True)).command.environment
    sharded = translate(job(data=8, zero_stage=3, global_batch=8)).command.environment
    assert dict(usual) == {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}
    assert dict(sharded) == {"CUDA_DEVICE_MAX_CONNECTIONS": "32"}


def test_buckets_of_gradients_have_an_option(job):
    assert options(job(data=16, global_batch=16, zero_stage=1, gradient_bucket=40_000_000))[
        "--ddp-bucket-size"
    ] == ("40000000")
    assert absent(options(job(data=16, global_batch=16, zero_stage=1)), "--ddp-bucket-size")
    with pytest.raises(ExportError, match=r"gradient_bucket = 40000000: Megatron-FSDP sends whole layers"):
        translate(job(data=16, global_batch=16, zero_stage=2, gradient_bucket=40_000_000))


def test_a_bucket_is_a_setting_of_megatron_bridge_and_none_of_torchtitan(job):
    made = job(data=16, global_batch=16, zero_stage=1, gradient_bucket=40_000_000)
    assert "    cfg.ddp.bucket_size = 40000000\n" in export(made, "megatron-bridge").files[0].text
    for target, message in (
        ("torchtitan", "gradient_bucket = 40000000: torchtitan chooses buckets itself"),
        ("megatron-axonn", "axonn cannot run gradient_bucket = 40000000"),
    ):
        with pytest.raises(ExportError, match=message):
            export(made, target)
