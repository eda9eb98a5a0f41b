"""Plans for software built on Megatron-Core: values by our keys, whatever the names of the options.

Facts are those of megatron-core 0.19.2 (arguments.py `validate_args`, transformer_config.py, distributed).
"""

from dataclasses import replace

from towtank.autotune.export.environment import TF32
from towtank.autotune.export.family_overlap import overlap_values
from towtank.autotune.export.layout import Layout, layout_of, node_faults, order_faults
from towtank.autotune.export.records import Job, Values
from towtank.simulator.plan import Plan
from towtank.simulator.stacks.load import load_stack
from towtank.simulator.stacks.rules import stack_faults

NARROW = {
    "fp8": {"fp8": "hybrid", "fp8_recipe": "tensorwise"},
    "mxfp8": {"fp8": "e4m3", "fp8_recipe": "mxfp8"},
    "nvfp4": {"fp4": "e2m1", "fp4_recipe": "nvfp4"},
}
SHARDING = {2: "optim_grads", 3: "optim_grads_params"}
CONTEXT = {"ring": "p2p", "all-to-all": "a2a"}


def plan_values(job: Job, reference: str) -> tuple[Values, list[str], list[str]]:
    """Values of the plan's options, faults, and notes; `reference`: the stack that says what the software has."""
    plan = job.plan
    if plan.tensor_y > 1:
        faults = [f"tensor_y = {plan.tensor_y}: Megatron-Core splits no input features; set tensor_y = 1"]
        return {}, faults + node_faults(job), []
    layout, faults = layout_of(job)
    overlap, overlap_faults, notes = overlap_values(job, layout)
    faults += [
        *_stack_faults(job, layout, reference),
        *_order_faults(job, layout),
        *node_faults(job),
        *_precision_faults(job, layout),
        *_recompute_faults(job, layout),
        *overlap_faults,
    ]
    if plan.pipeline > 1 and plan.schedule_name == "gpipe":
        faults.append("schedule = gpipe: Megatron-Core pipelines run 1F1B; set schedule = 1f1b")
    if plan.cached_layers:
        faults.append(
            f"cached_layers = {plan.cached_layers}: only AxoNN keeps gathered weights by layer; set it to 0"
        )
    if plan.gradient_bucket is not None and layout.zero_stage >= 2:
        faults.append(
            f"gradient_bucket = {plan.gradient_bucket}: Megatron-FSDP sends whole layers; leave it out, or set "
            "zero_stage = 1"
        )
    values: Values = {
        **_parallelism(job, layout),
        **_sharding(layout, plan),
        **_batch(job),
        **_recompute(plan, layout),
        **_precision(job, layout),
        **overlap,
    }
    return values, faults, notes + _notes(job, layout)


def _stack_faults(job: Job, layout: Layout, reference: str) -> list[str]:
    plan = replace(
        job.plan,
        tensor_z=1,
        data=layout.data,
        data_shard=layout.shard if layout.zero_stage else None,
        zero_stage=layout.zero_stage,
        schedule=None,
    )
    return stack_faults(load_stack(reference), plan)


def _order_faults(job: Job, layout: Layout) -> list[str]:
    """Megatron-FSDP asserts that the second order of Megatron-Core is off; the stack's own rules know both."""
    if layout.zero_stage < 2:
        return []
    return order_faults(job.plan, "Megatron-FSDP", ("tensor_x", "context", "tensor_z", "data", "pipeline"))


def pipeline_before_data(plan: Plan) -> bool:
    """Whether stages are nearer neighbours than replicas (`--use-tp-pp-dp-mapping`)."""
    order = plan.rank_order
    replicas = [order.index(name) for name in ("tensor_z", "data") if plan.degree(name) > 1]
    return plan.pipeline > 1 and bool(replicas) and order.index("pipeline") < min(replicas)


def _parallelism(job: Job, layout: Layout) -> Values:
    plan = job.plan
    values: Values = {"tensor_x": plan.tensor_x, "pipeline": plan.pipeline, "context": plan.context}
    if plan.sequence_parallel and plan.tensor_x > 1:
        values["sequence_parallel"] = True
    if plan.context > 1:
        values["context_kind"] = CONTEXT[plan.context_kind]
    if job.model.experts is not None:
        values |= {"expert": plan.expert, "expert_tensor": plan.expert_tensor}
    if plan.pipeline > 1:
        values |= _stages(job, layout)
    if pipeline_before_data(plan):
        values["pipeline_before_data"] = True
    return values


def _stages(job: Job, layout: Layout) -> Values:
    """Layers per virtual stage where all are alike, else where every layer lies."""
    mtp = job.model.mtp_layers
    if layout.even and not mtp:
        virtual = job.plan.virtual_stages
        return (
            {"layers_per_virtual_stage": layout.chunk_layers[0], "virtual_stages": virtual}
            if virtual > 1
            else {}
        )
    return {"stage_layers": stage_text(layout.chunk_layers, mtp)}


def stage_text(chunk_layers: tuple[int, ...], mtp_layers: int = 0) -> str:
    """Layers of each chunk in model order in Megatron-Core's letters, such as `Et*3|t*4|t*3L`.

    E: embedding, t: layer, m: layer for multi-token prediction, L: head and loss; `|` ends a chunk.
    """
    letters = [f"t*{count}" if count > 1 else "t" * count for count in chunk_layers]
    letters[0] = "E" + letters[0]
    letters[-1] += "m" * mtp_layers + "L"
    return "|".join(letters)


def _sharding(layout: Layout, plan: Plan) -> Values:
    values: Values = {} if plan.gradient_bucket is None else {"gradient_bucket": plan.gradient_bucket}
    if layout.zero_stage == 0:
        return values
    values["distributed_optimizer"] = True
    if layout.zero_stage >= 2:
        values |= {
            "fsdp": True,
            "sharding": SHARDING[layout.zero_stage],
            "checkpoint_format": "fsdp_dtensor",
        }
    if layout.replicate > 1:
        values["replicas"] = layout.replicate
    return values


def _batch(job: Job) -> Values:
    longest = job.model.max_positions if job.model.positions == "learned" else 0
    return {
        "micro_batch": job.plan.micro_batch,
        "global_batch": job.plan.global_batch,
        "sequence": job.sequence,
        "max_positions": max(job.sequence, longest),
    }


def _recompute(plan: Plan, layout: Layout) -> Values:
    if plan.recompute == "none":
        return {}
    if plan.recompute == "selective":
        return {"recompute": "selective"}
    if plan.recompute_every == 1:
        return {"recompute": "full", "recompute_method": "uniform", "recompute_layers": 1}
    layers = layout.chunk_layers[0] // plan.recompute_every
    return {"recompute": "full", "recompute_method": "block", "recompute_layers": layers}


def _recompute_faults(job: Job, layout: Layout) -> list[str]:
    every = job.plan.recompute_every
    if job.plan.recompute != "full" or every == 1:
        return []
    if any(count != layout.chunk_layers[0] or count % every for count in layout.chunk_layers):
        return [
            f"recompute_every = {every}: Megatron-Core recomputes the same number of layers in every stage, but the "
            f"stages have {', '.join(map(str, sorted(set(layout.chunk_layers))))} layers; choose a divisor of them"
        ]
    return []


def gradient_precision(job: Job) -> str:
    """Precision in which gradients are kept and reduced."""
    return job.plan.gradient_precision or job.stack.communication.gradient_precision


def _precision(job: Job, layout: Layout) -> Values:
    plan = job.plan
    values: Values = dict(NARROW.get(plan.precision, {}))
    if plan.precision in NARROW or plan.precision == "bf16":
        values["bf16"] = True
    elif plan.precision == "fp16":
        values["fp16"] = True
    gradients = gradient_precision(job)
    if gradients == "fp32" and plan.precision not in ("fp32", "tf32"):
        values["gradients_fp32"] = True
    elif gradients == "bf16":
        values["gradients_bf16"] = True
    if layout.zero_stage >= 2:
        values |= {"fsdp_gradients": gradients, "fsdp_gradients_sent": gradients}
        if plan.master_precision != "fp32":
            values["fsdp_master"] = plan.master_precision
    return values


def _precision_faults(job: Job, layout: Layout) -> list[str]:
    plan, faults = job.plan, []
    if plan.master_precision == "none" or (plan.master_precision == "bf16" and layout.zero_stage < 2):
        faults.append(
            f"master_precision = {plan.master_precision}: Megatron-Core keeps a master copy in fp32 "
            f"(in bf16 under Megatron-FSDP only); set master_precision = fp32"
        )
    gradients = gradient_precision(job)
    working = "fp16" if plan.precision == "fp16" else "fp32" if plan.precision in ("fp32", "tf32") else "bf16"
    if gradients not in ("fp32", working):
        whose = "" if plan.gradient_precision else f" (what {job.stack.name} does)"
        faults.append(
            f"gradient_precision = {gradients}{whose} under precision = {plan.precision}: Megatron-Core reduces "
            f"gradients in {' or in '.join(dict.fromkeys(('fp32', working)))}; set that"
        )
    return faults


def _notes(job: Job, layout: Layout) -> list[str]:
    plan, notes = job.plan, []
    if plan.tensor_z > 1:
        notes.append(
            f"tensor_z = {plan.tensor_z} is written as fully sharded data parallelism: {layout.shard} shards, "
            f"{layout.replicate} replicas"
        )
    if plan.recompute == "full" and plan.recompute_every > 1:
        notes.append(
            f"recompute_every = {plan.recompute_every}: the first {layout.chunk_layers[0] // plan.recompute_every} "
            "layers of each stage are recomputed, as many as planned but not the same ones"
        )
    if plan.recompute == "selective" and job.stack.kernels.selective_recompute != "core":
        notes.append(
            "recompute = selective: Megatron-Core recomputes the core of attention, not every second multiply"
        )
    if plan.precision in ("fp32", "tf32"):
        notes.append(f"{plan.precision}: chosen by the environment, {TF32}")
    return notes
