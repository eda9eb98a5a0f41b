"""Plans as DeepSpeed JSON.

train_batch_size = train_micro_batch_size_per_gpu x gradient_accumulation_steps x data-parallel devices, where tensor
and sequence-parallel devices do not count (deepspeed/runtime/config.py). The file says nothing about the model, the
length of sequences, recomputation and pipelines: those belong to the program that reads it.
"""

import json
import shlex
from typing import Any

from towtank.autotune.export.layout import Layout, layout_of, node_faults, order_faults
from towtank.autotune.export.names import Names, names_of
from towtank.autotune.export.records import Command, ExportError, File, Job, Translated
from towtank.simulator.lowering.sizes import resolve_overlap
from towtank.simulator.plan import Dimension, Plan

TARGET = "deepspeed"
_PROGRAM = "train.py"
_16_BITS = ("bf16", "fp16")
_NOT_OVERLAPPED = ("parameter_gather", "tensor", "backward_all_reduce", "pipeline", "expert")
"""Overlap switches of a plan that no key of the JSON stands for."""


def translate(job: Job, name: str = "deepspeed.json") -> Translated:
    """The plan as a JSON file `name` and the command that hands it to the user's program.

    Raises:
        ExportError: every reason why DeepSpeed cannot run the plan as it was predicted.
    """
    names = names_of(TARGET)
    if job.plan.tensor_y > 1:
        faults = [f"tensor_y = {job.plan.tensor_y}: DeepSpeed splits no input features; set tensor_y = 1"]
        raise ExportError(faults + _plan_faults(job.plan), f"export to {TARGET}")
    layout, faults = layout_of(job)
    faults += _faults(job, layout)
    if faults:
        raise ExportError(faults, f"export to {TARGET}")
    text = json.dumps(document(job, layout, names), indent=2) + "\n"
    command = Command((), (), f'{_PROGRAM} --deepspeed --deepspeed_config {shlex.quote(name)} "$@"')
    return Translated(TARGET, command, (File(name, text),), tuple(_notes(job, layout)))


def document(job: Job, layout: Layout, names: Names) -> dict[str, Any]:
    """What the JSON file holds."""
    plan, on = job.plan, resolve_overlap(job.plan, job.stack)
    content: dict[str, Any] = {
        names["global_batch"]: plan.global_batch,
        names["micro_batch"]: plan.micro_batch,
        names["micro_batches"]: plan.num_micro_batches,
    }
    if plan.precision in _16_BITS:
        content[plan.precision] = {"enabled": True}
    if plan.master_precision == "bf16":
        content["bf16"]["bf16_master_weights_and_grads"] = True
    gradients = _gradients(job, layout)
    content[names["data_types"]] = {names["gradients_kept"]: gradients}
    content[names["gradients_sent"]] = gradients
    zero: dict[str, Any] = {names["zero_stage"]: layout.zero_stage}
    if layout.zero_stage:
        overlap = on.reduce_scatter if layout.zero_stage == 3 else on.data_gradients
        zero |= {names["overlap"]: overlap, "contiguous_gradients": True, "reduce_scatter": True}
    if plan.gradient_bucket is not None:
        zero |= {names["gradient_bucket"]: plan.gradient_bucket, names["gather_bucket"]: plan.gradient_bucket}
    content[names["zero"]] = zero
    if plan.tensor_x > 1:
        content[names["tensor"]] = {names["tensor_x"]: plan.tensor_x}
    if plan.context > 1:
        content[names["sequence_parallel_size"]] = plan.context
        content[names["gradients_sent_context"]] = gradients  # goes before the other one under Ulysses
    if plan.expert > 1:
        content[names["experts"]] = {
            "enabled": True,
            names["expert"]: plan.expert,
            names["expert_tensor"]: plan.expert_tensor,
        }
    return content


def _gradients(job: Job, layout: Layout) -> str:
    """Precision in which gradients are kept and sent.

    Where a stack has 16 bits, they are those of the multiplies. Without ZeRO, DeepSpeed has no other precision than
    that of the multiplies (runtime/engine.py, `_do_optimizer_sanity_check`).
    """
    usual, working = job.stack.communication.gradient_precision, job.plan.precision
    if job.plan.gradient_precision is not None:
        return job.plan.gradient_precision
    return working if working in _16_BITS and (usual in _16_BITS or not layout.zero_stage) else usual


def _plan_faults(plan: Plan) -> list[str]:
    """Faults that need no layout."""
    faults = []
    if plan.pipeline > 1:
        faults.append(
            f"pipeline = {plan.pipeline}: DeepSpeed's JSON has no pipeline (its stages are built by the program, "
            "PipelineModule); set pipeline = 1"
        )
    if plan.sequence_parallel and plan.tensor_x > 1:
        faults.append(
            "sequence_parallel: AutoTP has no sequence parallelism over the tensor group; set it false"
        )
    if plan.context > 1 and plan.context_kind != "all-to-all":
        faults.append(
            "context_kind = ring: DeepSpeed splits sequences by all-to-all (Ulysses); set all-to-all"
        )
    if plan.precision not in ("fp32", "tf32", *_16_BITS):
        faults.append(
            f"precision = {plan.precision}: DeepSpeed's JSON has bf16, fp16 and fp32; set one of them"
        )
    if plan.recompute == "selective" or plan.recompute_every > 1:
        faults.append(
            "recompute of parts: programs for DeepSpeed recompute all layers or none; set full or none"
        )
    if plan.cached_layers:
        faults.append(f"cached_layers = {plan.cached_layers}: only AxoNN has this; set it to 0")
    faults += [
        f"overlap.{name}: DeepSpeed's JSON cannot switch it on; set it false or leave it out"
        for name in _NOT_OVERLAPPED
        if getattr(plan.overlap, name)
    ]
    return faults


def _faults(job: Job, layout: Layout) -> list[str]:
    plan = job.plan
    order: tuple[Dimension, ...] = ("tensor_x", "context", "tensor_z", "data")
    faults = _plan_faults(plan) + node_faults(job)
    if plan.pipeline == 1:
        faults += order_faults(plan, "DeepSpeed", order)
    if layout.zero_stage == 3 and plan.tensor_x > 1:
        faults.append(
            f"ZeRO 3 with tensor_x = {plan.tensor_x}: DeepSpeed documents AutoTP training with ZeRO 0, 1 and 2; "
            "lower zero_stage or set tensor_x = 1"
        )
    if plan.overlap.data_gradients and not layout.zero_stage:
        faults.append(
            "overlap.data_gradients: DeepSpeed overlaps the reduction of gradients under ZeRO only (overlap_comm); "
            "set it false, or zero_stage = 1"
        )
    if plan.gradient_bucket is not None and not layout.zero_stage:
        faults.append(
            f"gradient_bucket = {plan.gradient_bucket}: DeepSpeed's JSON has buckets under ZeRO only; leave it out, "
            "or set zero_stage = 1"
        )
    if layout.zero_stage and layout.replicate > 1:
        faults.append(
            f"hybrid sharding ({layout.shard} shards, {layout.replicate} replicas): DeepSpeed dropped MiCS, and "
            "zero_hpz_partition_size only adds a second copy of the weights; set data_shard = null (tensor_z = 1)"
        )
    if plan.tensor_x > 1 and plan.context > 1:
        faults.append("tensor_x with context: DeepSpeed's AutoTP and Ulysses do not combine; set one to 1")
    if plan.expert > 1 and layout.zero_stage == 3 and (plan.context > 1 or plan.expert_tensor > 1):
        faults.append("expert with ZeRO 3 has neither context nor expert_tensor in DeepSpeed; set both to 1")
    return faults + _precision_faults(job, layout)


def _precision_faults(job: Job, layout: Layout) -> list[str]:
    plan, faults = job.plan, []
    if plan.master_precision == "none" or (
        plan.master_precision == "bf16" and not (plan.precision == "bf16" and layout.zero_stage)
    ):
        faults.append(
            f"master_precision = {plan.master_precision}: DeepSpeed keeps fp32, or bf16 under bf16 "
            "and ZeRO; set fp32"
        )
    gradients, working = _gradients(job, layout), plan.precision if plan.precision in _16_BITS else "fp32"
    if plan.master_precision == "bf16" and gradients == "fp32":
        faults.append("master_precision = bf16 keeps gradients in bf16 too; set gradient_precision = bf16")
    if not layout.zero_stage and gradients != working:
        whose = "" if plan.gradient_precision else f" (what {job.stack.name} does)"
        faults.append(
            f"gradient_precision = {gradients}{whose} without ZeRO: DeepSpeed keeps and reduces gradients in "
            f"{working} there, as it computes; set gradient_precision = {working}, or zero_stage = 1"
        )
    return faults


def _notes(job: Job, layout: Layout) -> list[str]:
    plan, model = job.plan, job.model
    heads = getattr(model.attention, "kv_heads", model.attention.heads)
    shape = (
        f"{model.num_layers} layers, hidden {model.hidden}, {model.attention.heads} heads, {heads} key-value heads, "
        f"feed-forward {model.mlp.hidden}, vocabulary {model.vocab}"
    )
    if model.experts is not None:
        experts = model.experts
        shape += f", {experts.num_experts} experts of {experts.hidden}, {experts.top_k} a token"
    recompute = "gradient checkpointing on" if plan.recompute == "full" else "gradient checkpointing off"
    notes = [f"{_PROGRAM} is your program: {shape}; sequences of {job.sequence} tokens, {recompute}"]
    if plan.tensor_z > 1:
        notes.append(f"tensor_z = {plan.tensor_z} is written as ZeRO 3 over {layout.shard} devices")
    if plan.context > 1:
        notes.append("Ulysses needs the groups that your program registers (deepspeed.initialize with mpu)")
    usual, gradients = job.stack.communication.gradient_precision, _gradients(job, layout)
    if plan.gradient_precision is None and usual == "fp32" and gradients in _16_BITS:
        notes.append(
            f"gradients are kept and reduced in {gradients}, as DeepSpeed does without ZeRO, and not in the fp32 of "
            f"{job.stack.name} that was predicted: compare with gradient_precision = {gradients}"
        )
    if layout.zero_stage == 3:
        on = resolve_overlap(plan, job.stack)
        if not on.all_gather:
            notes.append("overlap.all_gather = false: DeepSpeed prefetches weights by itself")
    if plan.precision in ("fp32", "tf32"):
        notes.append(f"{plan.precision}: your program chooses it (torch.set_float32_matmul_precision)")
    return notes
