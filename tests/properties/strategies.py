"""Random small models and random legal plans for them."""

from dataclasses import replace

from hypothesis import strategies as st

from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.models.records import Attention, Experts, LatentAttention, Mlp, ModelSpec
from towtank.simulator.plan import Overlap, Plan
from towtank.simulator.plan_rules import faults_of
from towtank.simulator.schedules import SCHEDULES
from towtank.simulator.stacks.load import load_stack
from towtank.simulator.stacks.records import Stack

MACHINES = ("perlmutter", "selene", "dgx-h100:nodes=64", "frontier")
STACKS = (
    "megatron-core",
    "megatron-2021",
    "torchtitan",
    "axonn",
    "towtank-executor",
    "nanotron",
    "deepspeed",
)
SMALL = st.sampled_from([1, 1, 2])
DEGREE = st.sampled_from([1, 1, 2, 4])


@st.composite
def models(draw: st.DrawFn, *, experts: bool | None = None) -> ModelSpec:
    """Models of a few layers: dense, grouped, parallel, with windows, experts, latent attention, MTP."""
    latent = draw(st.booleans())
    attention = (
        LatentAttention(8, draw(st.sampled_from([None, 64])), 32, 32, 16, 32)
        if latent
        else Attention(
            8, draw(st.sampled_from([2, 4, 8])), 32, windows=draw(st.sampled_from([(None,), (32, None)]))
        )
    )
    with_experts = draw(st.booleans()) if experts is None else experts
    routed = Experts(
        8, 2, 512, gated=draw(st.booleans()), shared_hidden=draw(st.sampled_from([0, 256])),
        first_dense_layers=draw(SMALL) - 1,
    )  # fmt: skip
    parallel = not with_experts and draw(st.booleans())
    return ModelSpec(
        name="random",
        num_layers=draw(st.sampled_from([4, 8])),
        hidden=256,
        vocab=1024,
        sequence=128,
        attention=attention,
        mlp=Mlp(1024, gated=draw(st.booleans())),
        experts=routed if with_experts else None,
        norm=draw(st.sampled_from(["layernorm", "rmsnorm"])),
        norm_bias=False,
        positions=draw(st.sampled_from(["rope", "alibi"])),
        max_positions=0,
        tied_embeddings=draw(st.booleans()),
        parallel_block=parallel,
        norms_per_layer=draw(st.sampled_from([1, 2])) if parallel else 2,
        mtp_layers=draw(st.sampled_from([0, 0, 1])),
    )


ZOO = st.sampled_from(["tiny-llama", "tiny-gpt", "tiny-moe", "tiny-mla"]).map(load_model)


@st.composite
def _drafts(draw: st.DrawFn) -> Plan:
    pipeline = draw(SMALL)
    virtual = draw(SMALL) if pipeline > 1 else 1
    zero = draw(st.sampled_from([0, 0, 1, 2, 3]))
    data = draw(DEGREE)
    recompute = draw(st.sampled_from(["none", "none", "selective", "full"]))
    expert = draw(st.sampled_from([1, 1, 2, 4]))
    draft = Plan(
        tensor_x=draw(DEGREE),
        tensor_y=draw(SMALL),
        tensor_z=draw(SMALL),
        data=data,
        data_shard=draw(st.sampled_from([None, 1, 2])) if zero and data % 2 == 0 else None,
        zero_stage=zero,
        sequence_parallel=draw(st.booleans()),
        pipeline=pipeline,
        virtual_stages=virtual,
        schedule=draw(st.sampled_from([None, None, *SCHEDULES])),
        context=draw(SMALL),
        context_kind=draw(st.sampled_from(["ring", "all-to-all"])),
        expert=expert,
        micro_batch=draw(SMALL),
        recompute=recompute,
        recompute_every=draw(SMALL) if recompute == "full" else 1,
        cached_layers=draw(st.sampled_from([0, 1, 3])),
        gradient_bucket=draw(st.sampled_from([None, None, 1_000_000, 3_000_000])),
        overlap=Overlap(*(draw(st.sampled_from([None, True, False])) for _ in Overlap.__dataclass_fields__)),
    )
    count = draw(st.sampled_from([1, 2, 4])) * pipeline
    return replace(draft, global_batch=count * draft.micro_batch * draft.data * draft.tensor_z)


def legal(model: ModelSpec, machine_name: str, plan: Plan, stack: Stack) -> bool:
    """Whether the plan keeps every rule."""
    return not faults_of(model, load_machine(machine_name), plan, stack)


def repaired(plan: Plan, model: ModelSpec, stack: Stack) -> Plan:
    """The nearest plan that the stack can run, as far as it is quickly found; most drafts become legal."""
    can = stack.supports
    zero = can.zero_with_pipeline if plan.pipeline > 1 else can.zero_stages
    wrong: dict[str, tuple[bool, dict[str, object]]] = {
        "y": (not can.tensor_y or model.experts is not None, {"tensor_y": 1}),
        "z": (not can.tensor_z, {"tensor_z": 1}),
        "expert": (not can.expert or model.experts is None, {"expert": 1}),
        "context": (plan.context_kind not in can.context, {"context": 1}),
        "pipeline": (not can.pipeline, {"pipeline": 1, "virtual_stages": 1}),
        "virtual": (not can.virtual_stages, {"virtual_stages": 1}),
        "zero": (plan.zero_stage not in zero, {"zero_stage": 0, "data_shard": None}),
        "schedule": (
            plan.schedule not in can.schedules
            or (plan.virtual_stages > 1) != (plan.schedule == "interleaved"),
            {"schedule": None},
        ),
        "split": (not can.sequence_parallel or plan.tensor_x == 1, {"sequence_parallel": False}),
        "recompute": (plan.recompute not in can.recompute, {"recompute": "none", "recompute_every": 1}),
        "interval": (not can.recompute_intervals, {"recompute_every": 1}),
        "cache": (
            plan.recompute not in can.recompute
            or plan.recompute != "full"
            or stack.communication.shard_unit != "linear",
            {"cached_layers": 0},
        ),
    }
    changes: dict[str, object] = {}
    for is_wrong, change in wrong.values():
        changes |= change if is_wrong else {}
    allowed = {name: getattr(plan.overlap, name) for name in can.overlaps}
    changes["overlap"] = Overlap(**allowed)
    chosen = replace(plan, **changes)
    if chosen.expert > 1 and chosen.tensor_x > 1 and not chosen.sequence_parallel:
        chosen = replace(chosen, expert=1)
    if chosen.overlap.expert and not chosen.passes_meet:
        chosen = replace(chosen, overlap=replace(chosen.overlap, expert=None))
    if chosen.gradient_bucket is not None and (chosen.zero_stage == 3 or not can.gradient_buckets):
        chosen = replace(chosen, gradient_bucket=None)
    step = chosen.micro_batch * chosen.data * chosen.tensor_z
    return replace(
        chosen, global_batch=step * chosen.pipeline * max(1, plan.num_micro_batches // plan.pipeline)
    )


@st.composite
def cases(draw: st.DrawFn, *, of=None) -> tuple[ModelSpec, str, Plan, Stack]:
    """A model, the name of a machine, a legal plan and the stack that runs it."""
    model = draw(models() if of is None else of)
    stack = load_stack(draw(st.sampled_from(STACKS)))
    machine = draw(st.sampled_from(MACHINES))
    plan = repaired(draw(_drafts()), model, stack)
    if not legal(model, machine, plan, stack):
        plan = Plan(global_batch=2)  # rare; keeps the share of legal plans at one
    return model, machine, plan, stack
