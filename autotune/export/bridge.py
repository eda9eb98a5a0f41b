"""Plans as a Python recipe of Megatron Bridge, on top of its plain GPT recipe."""

import shlex

from towtank.autotune.export.family import plan_values
from towtank.autotune.export.family_model import model_values
from towtank.autotune.export.megatron import environment
from towtank.autotune.export.names import names_of
from towtank.autotune.export.records import Command, ExportError, File, Job, Translated, Values
from towtank.autotune.export.text import python

TARGET = "megatron-bridge"

_PLAN = (
    "micro_batch", "global_batch", "tensor_x", "sequence_parallel", "context", "context_kind", "pipeline",
    "virtual_stages", "stage_layers", "expert", "expert_tensor", "sequence", "data_sequence", "recompute",
    "recompute_method", "recompute_layers", "distributed_optimizer", "optimizer_sharded", "replicas",
    "fsdp", "job_fsdp", "sharding", "checkpoint_format", "pipeline_before_data", "gradient_bucket",
    "overlap_gradients", "overlap_parameters", "overlap_optimizer_parameters", "overlap_tensor", "overlap_pipeline",
    "batch_pipeline", "overlap_expert",
    "fsdp_gradients", "fsdp_gradients_sent", "fsdp_master",
)  # fmt: skip
_MODEL = (
    "num_layers", "hidden", "ffn", "heads", "kv_heads", "head_dim", "qk_norm", "window", "window_skip", "softmax",
    "q_rank", "kv_rank", "nope_head_dim", "rope_head_dim", "value_head_dim", "positions",
    "normalization", "gated", "activation", "bias", "qkv_bias", "tied", "attention_dropout", "hidden_dropout",
    "mtp_layers", "num_experts", "top_k", "expert_ffn", "expert_layers", "shared_ffn", "shared_gate", "expert_bias",
    "router_score", "capacity", "grouped_experts", "dispatcher", "vocab", "vocab_multiple",
)  # fmt: skip
_MIXED = {
    "bf16": "bf16_mixed",
    "fp16": "fp16_mixed",
    "fp8": "bf16_with_fp8_current_scaling_mixed",
    "mxfp8": "bf16_with_mxfp8_mixed",
    "nvfp4": "bf16_with_nvfp4_mixed",
}
_TYPES = {"fp32": "torch.float32", "bf16": "torch.bfloat16", "fp16": "torch.float16"}
_AS_CODE = {
    "activation",
    "q_rank",
    "window",
    "window_skip",
    "expert_layers",
    "fsdp_gradients",
    "fsdp_gradients_sent",
    "fsdp_master",
}


def translate(job: Job, name: str = "megatron_bridge.py") -> Translated:
    """The plan as a program `name` that torchrun starts.

    Raises:
        ExportError: every reason why Megatron-Core cannot run the plan as it was predicted.
    """
    names = names_of(TARGET)
    model, model_faults, model_notes = model_values(job)
    values, faults, notes = plan_values(job, names.stack)
    if job.plan.precision not in _MIXED:
        faults.append(f"precision = {job.plan.precision}: recipes of Megatron Bridge have 16 bits or fewer")
    if faults + model_faults:
        raise ExportError(faults + model_faults, f"export to {TARGET}")
    settings = _plan(values) | _model(model)
    lines = [
        f"    cfg.{names[key]} = {_code(key, settings[key])}" for key in (*_MODEL, *_PLAN) if key in settings
    ]
    lines += _precision(job)
    latent = bool(model.get("latent"))
    head = [
        *_IMPORTS,
        *([_LATENT] if latent else []),
        *_REST,
        *(["    cfg.model = MLAModelProvider()"] if latent else []),
    ]
    text = "\n".join([*head, *lines, *_FOOT]) + "\n"
    command = Command(environment(job, values), (), f'{shlex.quote(name)} "$@"')
    return Translated(TARGET, command, (File(name, text),), tuple(model_notes + notes))


_IMPORTS = ("import torch", "import torch.nn.functional as F", "")
_LATENT = "from megatron.bridge.models.mla_provider import MLAModelProvider"
_REST = (
    "from megatron.bridge.recipes.gpt import vanilla_gpt_pretrain_config",
    "from megatron.bridge.training.gpt_step import forward_step",
    "from megatron.bridge.training.mixed_precision import get_mixed_precision_config",
    "from megatron.bridge.training.pretrain import pretrain",
    "",
    "",
    "def config():",
    '    """Plain GPT recipe with model and plan; data, optimizer and length of the run are yours to replace."""',
    "    cfg = vanilla_gpt_pretrain_config()",
)
_FOOT = (
    "    return cfg",
    "",
    "",
    'if __name__ == "__main__":',
    "    pretrain(config=config(), forward_step_func=forward_step)",
)


def _code(key: str, value: object) -> str:
    return str(value) if key in _AS_CODE else python(value)


def _plan(values: Values) -> Values:
    settings = dict(values)
    settings["data_sequence"] = values["sequence"]
    if "overlap_pipeline" in values:
        settings["batch_pipeline"] = not values["overlap_pipeline"]
    if "virtual_stages" in settings and settings["virtual_stages"] == 1:
        del settings["virtual_stages"]
    settings["distributed_optimizer"] = settings["optimizer_sharded"] = bool(
        values.get("distributed_optimizer")
    )
    if values.get("fsdp"):
        settings["job_fsdp"] = True
    for switch in ("overlap_gradients", "overlap_parameters", "overlap_tensor", "overlap_expert"):
        settings.setdefault(switch, False)
    settings["overlap_optimizer_parameters"] = settings["overlap_parameters"]
    for key in ("fsdp_gradients", "fsdp_gradients_sent", "fsdp_master"):
        if key in settings:
            settings[key] = _TYPES[str(settings[key])]
    return settings


def _model(values: Values) -> Values:
    settings: Values = {
        key: value for key, value in values.items() if key not in ("gated", "no_bias", "untied")
    }
    settings["bias"] = not values.get("no_bias", False)
    settings["tied"] = not values.get("untied", False)
    settings["gated"] = bool(values.get("gated"))
    if "kv_rank" in settings:
        settings.setdefault("q_rank", "None")  # the recipe's own default is 512
    settings["activation"] = "F.silu" if values.get("gated") else "F.gelu"
    if "window" in settings:
        settings["window"] = f"({str(settings['window']).replace(',', ', ')})"
    return settings


def _precision(job: Job) -> list[str]:
    gradients = job.plan.gradient_precision or job.stack.communication.gradient_precision
    lines = [
        f'    cfg.mixed_precision = get_mixed_precision_config("{_MIXED[job.plan.precision]}")',
        f"    cfg.mixed_precision.grad_reduce_in_fp32 = {gradients == 'fp32'}",
    ]
    if job.plan.precision in ("fp8", "mxfp8", "nvfp4"):
        narrow = "fp4_param_gather" if job.plan.precision == "nvfp4" else "fp8_param_gather"
        lines.append(f"    cfg.mixed_precision.{narrow} = False")
        if job.plan.precision == "fp8":
            lines.append("    cfg.mixed_precision.first_last_layers_bf16 = False")
        if job.plan.precision == "mxfp8":
            lines.append("    cfg.mixed_precision.reuse_grad_buf_for_mxfp8_param_ag = False")
    return lines
