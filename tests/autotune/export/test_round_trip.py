"""What is exported and read again is the same plan, over legal plans of the target."""

import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from towtank.autotune.export.records import ExportError, Job
from towtank.autotune.export.targets import export
from towtank.autotune.reading.sources import import_plan
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.lowering.sizes import resolve_overlap
from towtank.simulator.lowering.stages import layer_counts
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import DEFAULT_RANK_ORDER, Overlap, Plan
from towtank.simulator.stacks.load import load_stack

MACHINE = "dgx-b200:nodes=512"
INSIDE = ("tensor_y", "tensor_x", "context", "pipeline", "tensor_z", "data")
POWER = st.sampled_from([1, 2, 4])


@st.composite
def megatron_plans(draw: st.DrawFn) -> tuple[str, Plan]:
    """Plans in Megatron-Core's own words: no x or z, and nothing said that its stack does anyway."""
    model = draw(st.sampled_from(["llama3-8b", "mixtral-8x7b", "gpt-5b"]))
    tensor, pipeline, context = draw(POWER), draw(POWER), draw(POWER)
    data, micro, steps = draw(st.sampled_from([1, 2, 8])), draw(st.integers(1, 2)), draw(st.integers(1, 4))
    zero = draw(st.sampled_from([0, 0, 1, 1, 2, 3]))
    experts = model == "mixtral-8x7b"
    virtual = draw(st.sampled_from([1, 1, 2])) if pipeline > 1 else 1
    recompute = draw(st.sampled_from(["none", "selective", "full"]))
    plan = Plan(
        tensor_x=tensor, pipeline=pipeline, context=context, data=data, virtual_stages=virtual, zero_stage=zero,
        sequence_parallel=tensor > 1 and (experts or draw(st.booleans())),
        data_shard=draw(st.sampled_from([None, data // 2])) if zero and data > 2 else None,
        context_kind=draw(st.sampled_from(["ring", "all-to-all"])) if context > 1 else "ring",
        expert=draw(st.sampled_from([1, 2, 8])) if experts else 1,
        expert_tensor=draw(st.sampled_from([1, tensor])) if experts else 1,
        micro_batch=micro, global_batch=micro * steps * data * pipeline,
        sequence=draw(st.sampled_from([None, 1024])),
        recompute=recompute, recompute_every=draw(st.sampled_from([1, 2])) if recompute == "full" else 1,
        precision=draw(st.sampled_from(["bf16", "fp16", "fp8", "mxfp8", "nvfp4", "fp32", "tf32"])),
        gradient_precision=draw(st.sampled_from([None, None, "bf16", "fp16"])),
        gradient_bucket=draw(st.sampled_from([None, 40_000_000])) if zero < 2 else None,
        rank_order=draw(st.sampled_from([DEFAULT_RANK_ORDER, *([INSIDE] if min(data, pipeline) > 1 else [])])),
    )  # fmt: skip
    if pipeline > 1 and draw(st.booleans()):
        plan = replace(plan, stage_layers=_uneven(model, pipeline * virtual))
    return model, plan


def _uneven(model: str, chunks: int) -> tuple[int, ...]:
    counts = list(layer_counts(load_model(model).num_layers, chunks, None))
    return (counts[0] - 1, *counts[1:-1], counts[-1] + 1)


def _with_switches(job: Job, draw: st.DataObject) -> Job:
    """Some switches set to what the stack does not do."""
    usual = resolve_overlap(job.plan, job.stack)
    names = draw.draw(st.sets(st.sampled_from(sorted(Overlap.__dataclass_fields__)), max_size=2))
    changed = replace(Overlap(), **{name: not getattr(usual, name) for name in names})
    return replace(job, plan=replace(job.plan, overlap=changed))


def _meaningless(job: Job) -> set[str]:
    """Switches that concern nothing in this plan, so that no option of Megatron-LM can hold them."""
    plan = job.plan
    none = set(Overlap.__dataclass_fields__)
    if plan.data * plan.context > 1:
        none -= {"reduce_scatter", "all_gather"} if plan.zero_stage == 3 else {"data_gradients"}
        none -= {"parameter_gather"} if plan.zero_stage in (1, 2) else set()
        none -= {"data_gradients"} if plan.zero_stage == 3 and plan.replicate_degree > 1 else set()
    if plan.tensor_x > 1 and plan.sequence_parallel:
        none -= {"tensor"}
    if plan.virtual_stages > 1:
        none -= {"pipeline"}
    if plan.expert > 1:
        none -= {"expert"}
    return none


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(megatron_plans(), st.data())
def test_megatron(made, draw):
    model, plan = made
    job = _with_switches(
        Job(load_model(model), load_machine(MACHINE), plan, load_stack("megatron-core"), MACHINE), draw
    )
    switches = {name for name in Overlap.__dataclass_fields__ if getattr(job.plan.overlap, name) is not None}
    assume(not switches & _meaningless(job))
    try:
        text = export(job, "megatron").files[0].text
    except ExportError:
        assume(False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.sh"
        path.write_text(text)
        found = import_plan(path)
        again = import_plan(path, "megatron", model=load_model(model), devices=plan.num_devices)
    assert found.plan == job.plan
    assert found.model == model
    assert again.plan == job.plan
