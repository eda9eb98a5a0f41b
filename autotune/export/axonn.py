"""Plans as arguments of Megatron-AxoNN's `pretrain_gpt.py`.

Roles, not letters, decide which degree is which: AxoNN's rows split output features (our x, all-reduce in the
backward pass), its columns input features (our y, all-reduce in the forward pass), its depth the batch (our z). Its
micro-batch is that of a data-parallel group and is split over depth, so it is ours times z.
"""

from towtank.autotune.export.environment import TF32, precision_variables
from towtank.autotune.export.layout import chunk_layers, node_faults, order_faults
from towtank.autotune.export.names import Names, names_of
from towtank.autotune.export.records import Command, ExportError, Job, Translated, Values, is_on
from towtank.autotune.export.text import array, option
from towtank.simulator.lowering.sizes import resolve_overlap
from towtank.simulator.models.records import Attention, ModelSpec
from towtank.simulator.plan import Dimension, Plan
from towtank.simulator.stacks.load import load_stack
from towtank.simulator.stacks.rules import stack_faults

TARGET = "megatron-axonn"
ORDER: tuple[Dimension, ...] = ("tensor_y", "tensor_x", "tensor_z", "pipeline", "data")
"""Its ranks from the innermost to the outermost."""
OVERLAPS = ("backward_all_reduce", "reduce_scatter", "all_gather")
_EVERY_LAYER = 2
"""Caching level at which all linear layers of a cached layer keep their weights."""

_MODEL = (
    "num_layers", "hidden", "ffn", "heads", "grouped_queries", "kv_heads", "head_dim", "positions", "max_positions",
    "normalization", "gated", "no_bias", "untied", "attention_dropout", "hidden_dropout",
)  # fmt: skip
_PARALLEL = (
    "tensor_x", "tensor_y", "tensor_z", "pipeline", *OVERLAPS, "cached_layers", "caching_level", "backend",
)  # fmt: skip
_TRAINING = (
    "micro_batch", "global_batch", "sequence", "recompute", "recompute_method", "recompute_layers", "bf16", "fp16",
    "gradients_fp32", "flash_attention", "no_fused_gradients", "amd",
)  # fmt: skip
_RUN = ("vocab_multiple", "iterations", "learning_rate")


def translate(job: Job) -> Translated:
    """The plan as a command of Megatron-AxoNN.

    Raises:
        ExportError: every reason why Megatron-AxoNN cannot run the plan as it was predicted.
    """
    names = names_of(TARGET)
    faults = _faults(job, names)
    if faults:
        raise ExportError(faults, f"export to {TARGET}")
    values = _model(job) | _plan(job) | {"iterations": 20, "learning_rate": 1e-4, "backend": "nccl"}
    setup = [
        *array("MODEL_ARGS", _entries(names, values, _MODEL)),
        *array("PARALLEL_ARGS", _entries(names, values, _PARALLEL)),
        *array("TRAINING_ARGS", _entries(names, values, _TRAINING)),
        "# Yours to replace or add: data, tokenizer, length of the run and optimizer are no part of a plan.",
        *array("RUN_ARGS", _entries(names, values, _RUN)),
    ]
    expanded = " ".join(
        f'"${{{name}[@]}}"' for name in ("MODEL_ARGS", "PARALLEL_ARGS", "TRAINING_ARGS", "RUN_ARGS")
    )
    command = Command(
        (("CUDA_DEVICE_MAX_CONNECTIONS", "1"), *precision_variables(job.plan.precision)),
        tuple(setup),
        f'pretrain_gpt.py {expanded} "$@"',
        by_slurm=True,
    )
    return Translated(TARGET, command, notes=tuple(_notes(job)))


def _entries(names: Names, values: Values, keys: tuple[str, ...]) -> list[str]:
    return [option(names[key], values[key]) for key in keys if is_on(values, key)]


def _plan(job: Job) -> Values:
    plan, on = job.plan, resolve_overlap(job.plan, job.stack)
    values: Values = {
        "tensor_x": plan.tensor_x,
        "tensor_y": plan.tensor_y,
        "tensor_z": plan.tensor_z,
        "pipeline": plan.pipeline,
        "micro_batch": plan.micro_batch * plan.tensor_z,
        "global_batch": plan.global_batch,
        "sequence": job.sequence,
    }
    values |= {name: True for name in OVERLAPS if getattr(on, name)}
    if plan.recompute == "full":
        values |= {"recompute": "full", "recompute_method": "uniform", "recompute_layers": 1}
    if plan.cached_layers:
        values |= {"cached_layers": plan.cached_layers, "caching_level": _EVERY_LAYER}
    if plan.precision in ("bf16", "fp16"):
        values[plan.precision] = True
    if _gradients(job) == "fp32" and plan.precision == "fp16":
        values["gradients_fp32"] = True
    if job.stack.kernels.attention in ("flash2", "best"):
        values["flash_attention"] = True
    if _on_amd(job):
        values |= {"no_fused_gradients": True, "amd": True}
    return values


def _on_amd(job: Job) -> bool:
    """Whether its kernels for CUDA only must be off (examples/run_axonn_amd.sh)."""
    return job.machine.device.vendor == "AMD"


def _gradients(job: Job) -> str:
    return job.plan.gradient_precision or job.stack.communication.gradient_precision


def _model(job: Job) -> Values:
    model = job.model
    learned = model.positions == "learned"
    values: Values = {
        "num_layers": model.num_layers,
        "hidden": model.hidden,
        "ffn": model.mlp.hidden,
        "heads": model.attention.heads,
        "positions": "learned_absolute" if learned else "rope",
        "max_positions": max(job.sequence, model.max_positions if learned else 0),
        "normalization": "RMSNorm" if model.norm == "rmsnorm" else "LayerNorm",
        "vocab_multiple": job.stack.vocabulary_multiple,
        "gated": model.mlp.gated,
        "no_bias": not model.mlp.bias,
        "untied": not model.tied_embeddings,
    }
    attention = model.attention
    if isinstance(attention, Attention) and attention.kv_heads != attention.heads:
        values |= {"grouped_queries": True, "kv_heads": attention.kv_heads}
    if isinstance(attention, Attention) and attention.head_dim * attention.heads != model.hidden:
        values["head_dim"] = attention.head_dim
    if not job.stack.kernels.dropout:
        values |= {"attention_dropout": 0.0, "hidden_dropout": 0.0}
    return values


def _faults(job: Job, names: Names) -> list[str]:
    plan = job.plan
    faults = [
        *stack_faults(load_stack(names.stack), plan),
        *(order_faults(plan, "Megatron-AxoNN", ORDER) if plan.context == 1 else ()),
        *node_faults(job),
        *_model_faults(job.model),
        *_memory_faults(job),
    ]
    if plan.pipeline > 1 and plan.schedule_name == "gpipe":
        faults.append("schedule = gpipe: pipelines of Megatron-AxoNN run 1F1B; set schedule = 1f1b")
    if len(set(chunk_layers(job))) > 1:
        faults.append("stages of unequal size: Megatron-AxoNN gives each stage the same number of layers")
    return faults


def _memory_faults(job: Job) -> list[str]:
    plan, faults = job.plan, []
    if plan.recompute_every > 1:
        faults.append(
            f"recompute_every = {plan.recompute_every}: AxoNN recomputes every layer or none; set it to 1"
        )
    if plan.master_precision != "fp32":
        faults.append(
            f"master_precision = {plan.master_precision}: Megatron-AxoNN keeps it in fp32; set that"
        )
    working = {"bf16": "fp32", "fp16": "fp16"}.get(plan.precision, "fp32")
    if _gradients(job) not in ("fp32", working):
        faults.append(
            f"gradient precision {_gradients(job)}: Megatron-AxoNN reduces them in "
            f"{' or '.join(sorted({'fp32', working}))} under {plan.precision}"
        )
    return faults


def _model_faults(model: ModelSpec) -> list[str]:
    lacks = {
        "experts": model.experts is not None,
        "latent attention": not isinstance(model.attention, Attention),
        "ALiBi positions": model.positions == "alibi",
        "attention and feed-forward part side by side": model.parallel_block,
        "norms of queries and keys": getattr(model.attention, "qk_norm", False),
        "attention windows": getattr(model.attention, "windows", (None,)) != (None,),
        "attention sinks": getattr(model.attention, "sinks", False),
        "multi-token prediction": model.mtp_layers > 0,
        "other norms than two a layer and one before the head": model.norms_per_layer != 2
        or not model.final_norm
        or model.embedding_norm,
        "a bias of the head": model.head_bias,
        "LayerNorms without bias": model.norm == "layernorm" and not model.norm_bias,
        "a learned activation function": model.mlp.activation_parameters > 0,
        "biases in some linear layers only": model.mlp.bias != getattr(model.attention, "output_bias", False)
        or model.mlp.bias != getattr(model.attention, "qkv_bias", False),
    }
    return [f"{model.name} has {what}, which Megatron-AxoNN lacks" for what, has in lacks.items() if has]


def _notes(job: Job) -> list[str]:
    plan: Plan = job.plan
    notes = ["the vocabulary comes from the tokenizer: " + f"{job.model.vocab} entries were predicted"]
    if plan.tensor_z > 1:
        notes.append(
            f"the micro-batch of Megatron-AxoNN is that of a data-parallel group: {plan.micro_batch} sequences a "
            f"device x z = {plan.tensor_z}"
        )
    if not job.model.tied_embeddings:
        notes.append(
            "untied embeddings: the branch main of Megatron-AxoNN asserts them off, others have them"
        )
    if plan.precision in ("fp32", "tf32"):
        notes.append(f"{plan.precision}: chosen by the environment, {TF32}")
    if _on_amd(job) and job.stack.kernels.fused_gradient_accumulation:
        notes.append(
            "AMD: kernels of their own add up the weight gradients, which the prediction leaves to the multiplies"
        )
    if plan.pipeline > 1:
        notes.append("published runs of Megatron-AxoNN have one pipeline stage")
    return notes
