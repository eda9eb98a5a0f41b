"""Plans as a Python recipe of torchtitan, which is configured by functions.

Facts are those of torchtitan 0.3.0: config/configs.py, distributed/parallel_dims.py (pp, dp_replicate, dp_shard, cp,
tp from the outermost to the innermost; weights are sharded over dp_shard x cp), trainer.py (local_batch_size counts
the sequences of a data-parallel rank in one accumulation step; a pipeline splits it into micro-batches).
"""

import shlex
import sys
from collections.abc import Sequence

from towtank.autotune.export.layout import Layout, layout_of, node_faults, order_faults
from towtank.autotune.export.names import Names, names_of
from towtank.autotune.export.records import Command, ExportError, File, Job, Translated
from towtank.autotune.export.text import python
from towtank.autotune.export.torchtitan_models import Shipped, built_lines, modules, shipped
from towtank.simulator.lowering.sizes import resolve_overlap
from towtank.simulator.plan import Dimension, Plan

TARGET = "torchtitan"
FUNCTION = "towtank_plan"
"""Name of the configuration function in the recipe."""
_ORDER: tuple[Dimension, ...] = ("tensor_x", "context", "tensor_z", "data", "pipeline")
_SCHEDULES = {"1f1b": "1F1B", "interleaved": "Interleaved1F1B", "gpipe": "GPipe"}
_CONVERTERS = {
    "fp8": "Float8LinearConverter",
    "mxfp8": "MXFP8LinearConverter",
    "nvfp4": "NVFP4LinearConverter",
}
_CHECKPOINTING = {"none": "None", "selective": "SelectiveAC.Config()", "full": "FullAC.Config()"}
_BY_ITSELF = ("data_gradients", "reduce_scatter", "all_gather")


def translate(job: Job, name: str = "torchtitan_recipe.py") -> Translated:
    """The plan as a recipe `name` and the command that trains by it.

    Raises:
        ExportError: every reason why torchtitan cannot run the plan as it was predicted.
    """
    names, plan = names_of(TARGET), job.plan
    model, faults = shipped(job.model)
    if plan.tensor_y > 1:
        faults.append(f"tensor_y = {plan.tensor_y}: torchtitan splits no input features; set tensor_y = 1")
        raise ExportError(faults + _plan_faults(plan), f"export to {TARGET}")
    module = name.removesuffix(".py")
    if "." in module or module in {*modules(), *sys.stdlib_module_names, "torch", "torchtitan"}:
        faults.append(
            f"{name}: torchtitan imports the recipe by this name, which is taken or has a dot; choose another"
        )
    layout, layout_faults = layout_of(job)
    faults += layout_faults + _faults(job, layout)
    if faults or model is None:
        raise ExportError(faults, f"export to {TARGET}")
    command = Command((), (), f'-m torchtitan.train --module {shlex.quote(module)} --config {FUNCTION} "$@"')
    text = "\n".join(_recipe(job, layout, names, model)) + "\n"
    return Translated(TARGET, command, (File(name, text),), tuple(_notes(job, layout)))


def _recipe(job: Job, layout: Layout, names: Names, model: Shipped) -> list[str]:
    converter = _CONVERTERS.get(job.plan.precision)
    registry = f"torchtitan.models.{model.module}"
    imports = [
        *([f"from torchtitan.components.quantization import {converter}"] if converter else []),
        *_checkpointing_import(job.plan),
        f"from {registry} import model_registry",
        f"from {registry}.config_registry import {model.config}",
    ]
    if model.built:
        imports = ["from dataclasses import replace", "", *imports, "from torchtitan.models import llama3"]
    if job.model.mtp_layers:
        imports += [
            "from torchtitan.models.common.config_utils import decoder_vocab_size",
            f"from {registry} import MTPLoss",
        ]
    return [
        *imports,
        "",
        "",
        *_some_layers(job.plan),
        f"def {FUNCTION}():",
        f'    """{job.model.name} by the plan; data, optimizer and number of steps are yours to replace."""',
        f"    cfg = {model.config}()",
        *_model_lines(job, model, converter),
        *(f"    cfg.training.{names[key]} = {python(value)}" for key, value in _training(job).items()),
        *_parallelism(job, layout, names),
        *(
            ["    FullAC._wrap_block = some_layers(FullAC._wrap_block)"]
            if job.plan.recompute_every > 1
            else []
        ),
        f"    cfg.activation_checkpoint = {_CHECKPOINTING[job.plan.recompute]}",
        *_compile(job, converter),
        "    return cfg",
    ]


def _some_layers(plan: Plan) -> list[str]:
    """Function of the recipe that leaves layers out of checkpointing, which torchtitan has for all or for none."""
    if plan.recompute_every == 1:
        return []
    return [
        "def some_layers(wrap_block):",
        f'    """Checkpointing of one layer in {plan.recompute_every}, the first one included."""',
        "",
        "    def wrap(self, module, *, base_fqn=None):",
        f'        again = int(base_fqn.removeprefix("layers.")) % {plan.recompute_every} == 0',
        "        return wrap_block(self, module, base_fqn=base_fqn) if again else module",
        "",
        "    return wrap",
        "",
        "",
    ]


def _checkpointing_import(plan: Plan) -> list[str]:
    name = _CHECKPOINTING[plan.recompute].partition(".")[0]
    return [] if name == "None" else [f"from torchtitan.distributed.activation_checkpoint import {name}"]


def _model_lines(job: Job, model: Shipped, converter: str | None) -> list[str]:
    mtp = job.model.mtp_layers
    convert = f"{converter}.Config(model_compile_enabled=True)" if converter else ""
    if model.built:
        lines = [f'    spec = model_registry("{model.flavor}")', *built_lines(job.model)]
        if converter:
            lines.append(f"    spec.model = {convert}.build().convert(spec.model)")
        return [*lines, "    cfg.model_spec = spec"]
    more = (f", converters=[{convert}]" if converter else "") + (f", num_mtp_layers={mtp}" if mtp else "")
    lines = [f'    cfg.model_spec = model_registry("{model.flavor}"{more})']
    if mtp:
        lines.append("    cfg.loss = MTPLoss.Config(global_vocab_size=decoder_vocab_size(cfg.model_spec))")
    return lines


def _training(job: Job) -> dict[str, object]:
    plan = job.plan
    local = plan.micro_batch * (plan.num_micro_batches if plan.pipeline > 1 else 1)
    wide = plan.precision in ("fp32", "tf32")
    settings: dict[str, object] = {
        "sequence": job.sequence,
        "local_batch": local,
        "global_batch": plan.global_batch,
        "dtype": "float32",
        "precision": "float32" if wide else "bfloat16",
        "gradient_precision": "float32",
    }
    if plan.pipeline > 1 or plan.expert > 1:
        settings["no_graphs"] = True
    return settings


def _parallelism(job: Job, layout: Layout, names: Names) -> list[str]:
    plan = job.plan
    settings: dict[str, object] = {
        "tensor_x": plan.tensor_x,
        "sequence_parallel": plan.sequence_parallel,
        "context": plan.context,
        "shard": layout.shard,
        "replicate": layout.replicate,
        "reshard": _reshard(job, layout),
        "expert": plan.expert,
        "pipeline": plan.pipeline,
    }
    if plan.tensor_x == 1:
        del settings["sequence_parallel"]
    lines = [f"    cfg.parallelism.{names[key]} = {python(value)}" for key, value in settings.items()]
    if plan.pipeline > 1:
        lines.append(f'    cfg.parallelism.{names["schedule"]} = "{_SCHEDULES[plan.schedule_name]}"')
        lines.append(f"    cfg.parallelism.{names['micro_batch']} = {plan.micro_batch}")
        lines += _stage_lines(layout.chunk_layers, names["stage_layers"])
    return lines


def _reshard(job: Job, layout: Layout) -> str:
    """When gathered weights are freed: after the forward pass of a layer, or not before its backward pass."""
    if layout.zero_stage != 3:
        return "never"
    return "never" if job.plan.pipeline > 1 and job.stack.communication.pipeline_keeps_gathered else "always"


def _stage_lines(chunk_layers: Sequence[int], option: str) -> list[str]:
    """Modules of each chunk in model order."""
    parts, first = [], 0
    for number, count in enumerate(chunk_layers):
        ends = ['["tok_embeddings"]'] if number == 0 else []
        if count:
            ends.append(f'[f"layers.{{i}}" for i in range({first}, {first + count})]')
        if number == len(chunk_layers) - 1:
            ends.append('["norm", "lm_head"]')
        parts.append(" + ".join(ends) or "[]")
        first += count
    return [f"    cfg.parallelism.{option} = [", *(f"        {part}," for part in parts), "    ]"]


def _compile(job: Job, converter: str | None) -> list[str]:
    """Switches of compilation that the plan decides; some configurations to start from have them on."""
    async_tensor = resolve_overlap(job.plan, job.stack).tensor and job.plan.tensor_x > 1
    needed = ["    cfg.compile.enable = True"] if async_tensor or converter else []
    return [*needed, f"    cfg.compile.enable_async_tensor_parallel = {async_tensor}"]


def _plan_faults(plan: Plan) -> list[str]:
    """Faults that need no layout."""
    faults = []
    if plan.precision == "fp16":
        faults.append("precision = fp16: torchtitan trains in bf16, fp32 or narrower formats; set bf16")
    if plan.gradient_precision not in (None, "fp32"):
        faults.append(
            f"gradient_precision = {plan.gradient_precision}: torchtitan reduces gradients in fp32; set that"
        )
    if plan.master_precision != "fp32":
        faults.append(
            f"master_precision = {plan.master_precision}: torchtitan keeps fp32, or everything in bf16; set fp32"
        )
    if plan.gradient_bucket is not None:
        faults.append(
            f"gradient_bucket = {plan.gradient_bucket}: torchtitan chooses buckets itself; leave it out"
        )
    if plan.cached_layers:
        faults.append(f"cached_layers = {plan.cached_layers}: only AxoNN has this; set it to 0")
    if plan.context > 1 and plan.context_kind != "ring":
        faults.append(
            "context_kind = all-to-all: torchtitan passes keys and values on; set context_kind = ring"
        )
    if plan.expert_tensor > 1:
        faults.append(f"expert_tensor = {plan.expert_tensor}: torchtitan does not split experts; set it to 1")
    faults += [
        f"overlap.{name}: torchtitan does not overlap it; set it false"
        for name in ("parameter_gather", "backward_all_reduce", "expert")
        if getattr(plan.overlap, name)
    ]
    return faults


def _faults(job: Job, layout: Layout) -> list[str]:
    plan = job.plan
    faults = [*_plan_faults(plan), *order_faults(plan, "torchtitan", _ORDER), *node_faults(job)]
    if layout.zero_stage == 1:
        faults.append("zero_stage = 1: torchtitan shards gradients with the states; set zero_stage = 2")
    if layout.zero_stage == 0 and plan.context > 1:
        faults.append(
            f"context = {plan.context} with zero_stage = 0: torchtitan shards weights over context; "
            "set zero_stage = 3"
        )
    if plan.expert > 1 and (layout.shard * plan.context * plan.tensor_x) % plan.expert:
        faults.append(
            f"expert = {plan.expert} must divide shards {layout.shard} x context {plan.context} x tensor_x "
            f"{plan.tensor_x} in torchtitan: replicas hold experts of their own"
        )
    if not all(layout.chunk_layers):
        faults.append(
            "a pipeline chunk without layers: torchtitan wants one in each; choose other stage_layers"
        )
    if plan.gradient_precision is None and job.stack.communication.gradient_precision != "fp32":
        faults.append(
            f"{job.stack.name} reduces gradients in {job.stack.communication.gradient_precision}, torchtitan in "
            "fp32; set gradient_precision = fp32"
        )
    return faults


def _notes(job: Job, layout: Layout) -> list[str]:
    plan = job.plan
    tokens = plan.micro_batch * job.sequence
    notes = [
        "batches count sequences; releases after 0.3 count tokens: num_tokens_per_microbatch_per_dp_rank = "
        f"{tokens}, num_tokens_per_train_step = {plan.global_batch * job.sequence}, "
        f"max_context_length = {job.sequence}"
    ]
    if plan.tensor_z > 1:
        notes.append(
            f"tensor_z = {plan.tensor_z} is written as fully sharded data parallelism: {layout.shard} shards, "
            f"{layout.replicate} replicas"
        )
    notes += [
        f"overlap.{name} = false: torchtitan overlaps it by itself"
        for name in _BY_ITSELF
        if getattr(plan.overlap, name) is False and layout.data > 1
    ]
    if plan.recompute_every > 1:
        notes.append(
            f"recompute_every = {plan.recompute_every}: torchtitan {names_of(TARGET).release.split()[-1]} has no "
            "option for it; the recipe leaves the other layers out of FullAC"
        )
    if plan.pipeline > 1 and (resolve_overlap(plan, job.stack).pipeline or plan.overlap.pipeline is False):
        notes.append("sends between stages: their overlap is PyTorch's and has no switch")
    if job.model.experts is not None and job.model.experts.imbalance == 1:
        notes.append("experts are predicted with equal load; cfg.debug.moe_force_load_balance forces it")
    if plan.context > 1:
        notes.append(
            "context: with FlexAttention torchtitan gathers keys and values where a ring was predicted"
        )
    if plan.precision == "tf32":
        notes.append("tf32: set by your program, torch.set_float32_matmul_precision")
    return notes
