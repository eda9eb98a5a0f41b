"""Recipes of Megatron Bridge: the same values as the arguments of Megatron-LM, in its fields."""

import pytest

from towtank.autotune.export.bridge import translate
from towtank.autotune.export.records import ExportError


def settings(made) -> dict[str, str]:
    lines = [
        line.strip() for line in translate(made).files[0].text.splitlines() if line.startswith("    cfg.")
    ]
    return {name.removeprefix("cfg."): value for name, _, value in (line.partition(" = ") for line in lines)}


def subset(found, wanted) -> bool:
    return {name: found.get(name) for name in wanted} == wanted


def test_interleaving_counts_chunks_of_a_rank(job):
    found = settings(job(pipeline=4, virtual_stages=2, global_batch=8))
    assert subset(
        found,
        {
            "model.pipeline_model_parallel_size": "4",
            "model.virtual_pipeline_model_parallel_size": "2",
            "model.overlap_p2p_comm": "True",
            "model.batch_p2p_comm": "False",
        },
    )


def test_uneven_stages(job):
    found = settings(job("llama3.1-405b", pipeline=4, global_batch=4))
    assert found["model.pipeline_model_parallel_layout"] == '"Et*31|t*32|t*32|t*31L"'
    assert "model.virtual_pipeline_model_parallel_size" not in found


def test_sharding(job):
    found = settings(job(data=16, zero_stage=3, data_shard=8, global_batch=16))
    assert subset(
        found,
        {
            "ddp.use_megatron_fsdp": "True",
            "dist.use_megatron_fsdp": "True",
            "ddp.data_parallel_sharding_strategy": '"optim_grads_params"',
            "ddp.num_distributed_optimizer_instances": "2",
            "ddp.megatron_fsdp_main_grads_dtype": "torch.float32",
            "checkpoint.ckpt_format": '"fsdp_dtensor"',
        },
    )
    plain = settings(job(data=16, global_batch=16))
    assert subset(
        plain, {"ddp.use_distributed_optimizer": "False", "optimizer.use_distributed_optimizer": "False"}
    )


@pytest.mark.parametrize(
    ("fields", "recipe", "wanted"),
    [
        ({"precision": "bf16"}, "bf16_mixed", {"mixed_precision.grad_reduce_in_fp32": "True"}),
        ({"gradient_precision": "bf16"}, "bf16_mixed", {"mixed_precision.grad_reduce_in_fp32": "False"}),
        ({"precision": "fp8"}, "bf16_with_fp8_current_scaling_mixed",
         {"mixed_precision.fp8_param_gather": "False", "mixed_precision.first_last_layers_bf16": "False"}),
        ({"precision": "nvfp4"}, "bf16_with_nvfp4_mixed", {"mixed_precision.fp4_param_gather": "False"}),
    ],
)  # fmt: skip
def test_precision(job, fields, recipe, wanted):
    found = settings(job(machine="dgx-b200:nodes=1", **fields))
    assert found["mixed_precision"] == f'get_mixed_precision_config("{recipe}")'
    assert subset(found, wanted)


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ("llama3-8b", {"model.activation_func": "F.silu", "model.num_query_groups": "8",
                       "model.share_embeddings_and_output_weights": "False", "tokenizer.vocab_size": "128256"}),
        ("gpt3-175b", {"model.activation_func": "F.gelu", "model.add_bias_linear": "True",
                       "model.share_embeddings_and_output_weights": "True"}),
        ("deepseek-v3", {"model": "MLAModelProvider()", "model.q_lora_rank": "1536",
                         "model.moe_layer_freq": "([0]*3+[1]*58)"}),
        ("deepseek-v2-lite", {"model.q_lora_rank": "None"}),
        ("gpt-oss-20b", {"model.window_size": "(128, 0)", "model.softmax_type": '"learnable"'}),
    ],
)  # fmt: skip
def test_models(job, model, wanted):
    made = job(model)
    compile(translate(made).files[0].text, "recipe", "exec")
    assert subset(settings(made), wanted)


def test_what_it_cannot_run(job):
    with pytest.raises(ExportError) as caught:
        translate(job("bloom-7b1", precision="fp32", pipeline=2, schedule="gpipe", global_batch=2))
    text = str(caught.value)
    for phrase in ("precision = fp32", "schedule = gpipe", "ALiBi", "a norm after the embedding"):
        assert phrase in text
