"""Plans as arguments of Megatron-LM's `pretrain_gpt.py`."""

from towtank.autotune.export.environment import precision_variables
from towtank.autotune.export.family import plan_values
from towtank.autotune.export.family_model import model_values
from towtank.autotune.export.names import Names, names_of
from towtank.autotune.export.records import Command, ExportError, Job, Translated, Values, is_on
from towtank.autotune.export.text import array, option

TARGET = "megatron"
_PROGRAM = "pretrain_gpt.py"

_MODEL = (
    "num_layers", "hidden", "ffn", "heads", "grouped_queries", "kv_heads", "head_dim", "qk_norm", "window",
    "window_skip", "softmax", "latent", "q_rank", "kv_rank", "nope_head_dim", "rope_head_dim", "value_head_dim",
    "positions", "max_positions", "normalization", "gated", "no_bias", "qkv_bias", "untied", "attention_dropout",
    "hidden_dropout", "mtp_layers", "num_experts", "top_k", "expert_ffn", "expert_layers", "shared_ffn",
    "shared_gate", "expert_bias", "router_score", "capacity", "grouped_experts", "dispatcher",
)  # fmt: skip
_PARALLEL = (
    "tensor_x", "sequence_parallel", "context", "context_kind", "pipeline", "layers_per_virtual_stage",
    "stage_layers", "pipeline_before_data", "expert", "expert_tensor", "distributed_optimizer", "fsdp", "sharding",
    "replicas", "checkpoint_format", "overlap_gradients", "overlap_parameters", "gradient_bucket",
    "overlap_tensor", "no_overlap_pipeline", "overlap_expert",
)  # fmt: skip
_TRAINING = (
    "micro_batch", "global_batch", "sequence", "recompute", "recompute_method", "recompute_layers", "bf16", "fp16",
    "fp8", "fp8_recipe", "fp4", "fp4_recipe", "gradients_fp32", "gradients_bf16", "fsdp_gradients",
    "fsdp_gradients_sent", "fsdp_master",
)  # fmt: skip
_RUN = ("vocab", "vocab_multiple", "tokenizer", "mock_data", "iterations", "learning_rate")


def translate(job: Job) -> Translated:
    """The plan as a command of Megatron-LM.

    Raises:
        ExportError: every reason why Megatron-LM cannot run the plan as it was predicted.
    """
    names = names_of(TARGET)
    model, model_faults, model_notes = model_values(job)
    values, faults, notes = plan_values(job, names.stack)
    if faults + model_faults:
        raise ExportError(faults + model_faults, f"export to {TARGET}")
    values |= model | {"mock_data": True, "iterations": 20, "learning_rate": 1e-4}
    setup = [
        *array("MODEL_ARGS", _entries(names, values, _MODEL)),
        *array("PARALLEL_ARGS", _entries(names, values, _PARALLEL)),
        *array("TRAINING_ARGS", _entries(names, values, _TRAINING)),
        "# Yours to replace: data, length of the run and optimizer are no part of a plan.",
        *array("RUN_ARGS", _entries(names, values, _RUN)),
    ]
    expanded = " ".join(
        f'"${{{name}[@]}}"' for name in ("MODEL_ARGS", "PARALLEL_ARGS", "TRAINING_ARGS", "RUN_ARGS")
    )
    command = Command(environment(job, values), tuple(setup), f'{_PROGRAM} {expanded} "$@"')
    return Translated(TARGET, command, notes=tuple(model_notes + notes))


def _entries(names: Names, values: Values, keys: tuple[str, ...]) -> list[str]:
    """Options that are on, in the order of `keys`."""
    return [option(names[key], values[key]) for key in keys if is_on(values, key)]


def environment(job: Job, values: Values) -> tuple[tuple[str, str], ...]:
    """Variables that Megatron-Core asks for.

    One connection makes kernels start in the order of their calls, which tensor and context parallelism need before
    Blackwell; Megatron-FSDP and the overlap of experts need several.
    """
    connections = "32" if values.get("fsdp") or values.get("overlap_expert") else "1"
    return (("CUDA_DEVICE_MAX_CONNECTIONS", connections), *precision_variables(job.plan.precision))
