"""Overlap switches of a plan in Megatron-Core, which has fewer of them."""

from towtank.autotune.export.layout import Layout
from towtank.autotune.export.records import Job, Values
from towtank.simulator.lowering.sizes import resolve_overlap


def gradient_switches(layout: Layout) -> tuple[str, ...]:
    """Overlap switches of a plan that Megatron-Core's one switch for gradients stands for."""
    if layout.zero_stage < 3:
        return ("data_gradients",)
    return ("reduce_scatter", "data_gradients") if layout.replicate > 1 else ("reduce_scatter",)


def parameter_switch(layout: Layout) -> str | None:
    """Overlap switch of a plan that Megatron-Core's switch for parameters stands for; None under DDP."""
    return {0: None, 3: "all_gather"}.get(layout.zero_stage, "parameter_gather")


def overlap_values(job: Job, layout: Layout) -> tuple[Values, list[str], list[str]]:
    """Values of the switches, faults, and notes on what Megatron-Core does by itself."""
    plan, on = job.plan, resolve_overlap(job.plan, job.stack)
    values: Values = {}
    faults: list[str] = []
    notes: list[str] = []
    if layout.data * plan.context > 1:
        wanted = {name: getattr(on, name) for name in gradient_switches(layout)}
        if len(set(wanted.values())) > 1:
            faults.append(
                "overlap.reduce_scatter and overlap.data_gradients are one switch in Megatron-FSDP; set both alike"
            )
        if all(wanted.values()):
            values["overlap_gradients"] = True
        name = parameter_switch(layout)
        if name and getattr(on, name):
            values["overlap_parameters"] = True
            if not all(wanted.values()):
                faults.append(
                    f"overlap.{name} needs the overlap of gradients in Megatron-Core; set "
                    f"{' and '.join(f'overlap.{other}' for other in wanted)} too"
                )
    _tensor_overlap(job, values, faults, notes)
    _pipeline_overlap(job, values, faults, notes)
    _expert_overlap(job, values, faults)
    return values, faults, notes


def _tensor_overlap(job: Job, values: Values, faults: list[str], notes: list[str]) -> None:
    plan, on = job.plan, resolve_overlap(job.plan, job.stack)
    if plan.tensor_x == 1:
        return
    if on.tensor and plan.sequence_parallel:
        values["overlap_tensor"] = True
    elif plan.overlap.tensor:
        faults.append("overlap.tensor: Megatron-Core has it with sequence_parallel only; set that too")
    if plan.overlap.backward_all_reduce is False and not plan.sequence_parallel:
        notes.append(
            "overlap.backward_all_reduce = false: Megatron-Core always runs this all-reduce under the weight "
            "gradient of the layer"
        )


def _pipeline_overlap(job: Job, values: Values, faults: list[str], notes: list[str]) -> None:
    plan, on = job.plan, resolve_overlap(job.plan, job.stack)
    if plan.pipeline == 1:
        return
    if plan.virtual_stages > 1:
        values["overlap_pipeline"] = bool(on.pipeline)
        if not on.pipeline:
            values["no_overlap_pipeline"] = True
            if plan.pipeline == 2:
                faults.append(
                    "overlap.pipeline = false: Megatron-Core interleaves two stages with overlapped sends only; "
                    "set it true, or take more stages"
                )
    elif plan.overlap.pipeline:
        faults.append(
            "overlap.pipeline: Megatron-Core overlaps sends in the interleaved schedule only; "
            "set it false, or virtual_stages > 1"
        )
    elif on.pipeline:
        notes.append(
            "the prediction overlaps sends between stages; Megatron-Core does so in the interleaved schedule only"
        )


def _expert_overlap(job: Job, values: Values, faults: list[str]) -> None:
    plan, on = job.plan, resolve_overlap(job.plan, job.stack)
    if job.model.experts is None or plan.expert == 1 or not on.expert:
        return
    values["overlap_expert"] = True
    if plan.recompute == "full":
        faults.append("overlap.expert: Megatron-Core has it without full recomputation only")
    if plan.pipeline > 1 and plan.virtual_stages == 1:
        faults.append("overlap.expert: with a pipeline Megatron-Core has it between interleaved chunks only")
    if plan.precision in ("fp32", "tf32"):
        faults.append(f"overlap.expert: Megatron-Core has it in 16 bits, not in {plan.precision}")
