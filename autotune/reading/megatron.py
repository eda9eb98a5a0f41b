"""Arguments of Megatron-LM as a plan, the inverse of the export.

Facts are those of megatron-core 0.19.2 (`validate_args` and the defaults of the options).
"""

from dataclasses import replace
from typing import Literal

from towtank.autotune.export.family import CONTEXT, SHARDING
from towtank.autotune.export.names import names_of
from towtank.autotune.reading.arguments import Arguments
from towtank.autotune.reading.megatron_stages import Stages, stages
from towtank.autotune.reading.overlap import overlap
from towtank.autotune.reading.precision import precision, with_tf32
from towtank.autotune.reading.records import Imported, Options, ReadingError
from towtank.autotune.reading.shapes import model_of
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.plan import DEFAULT_RANK_ORDER, Dimension, Plan
from towtank.simulator.plan_rules import SMALLEST_BUCKET
from towtank.simulator.stacks.records import Stack

SOURCE = "megatron"
_NAMES = names_of(SOURCE)
_STAGES_INSIDE: tuple[Dimension, ...] = ("tensor_y", "tensor_x", "context", "pipeline", "tensor_z", "data")
_DESTINATIONS = {"--fp8-format": "fp8", "--fp4-format": "fp4"}
_NO_DEFAULT_SWITCH = "--no-overlap-p2p-communication"
_LAUNCH = {"rank", "local_rank", "data_parallel_size", "transformer_pipeline_model_parallel_size"}
_OUTER_SHARDING = "--outer-dp-sharding-strategy"
_OLD_RECOMPUTE = "--checkpoint-activations"
_NO_PLAN = ("--tensor-parallel-num-weight-shards", "--expert-tensor-parallel-num-weight-shards")


def read(
    arguments: Arguments, stack: Stack, devices: int | None, model: ModelSpec | None, subject: str
) -> Imported:
    """The plan in arguments of Megatron-LM; `devices` and `model` say what the file does not.

    What the plan leaves to `stack` stays open where the arguments say the same.

    Raises:
        ReadingError: every reason why they are no plan.
    """
    options = Options(_by_option(arguments))
    name, found = model_of(options, model)
    world = devices or arguments.devices
    if world is None:
        options.faults.append("how many devices the job has is not said; give --devices N")
    plan = with_tf32(arguments, _plan(options, stack, world, found or model))
    for option in _NO_PLAN:
        if (shards := options.number(option)) is not None and shards > plan.tensor_x:
            options.faults.append(
                f"{option} {shards}: weights sharded in the tensor group are no part of a plan"
            )
    if options.faults:
        raise ReadingError(options.faults, subject)
    ignored = tuple(
        option for option in options.unused() if option.split()[0].removeprefix("--") not in _LAUNCH
    )
    return Imported(SOURCE, plan, name, ignored, tuple(options.notes))


def known_options() -> tuple[str, ...]:
    """Names that tell a command of Megatron-LM from others in a script."""
    return tuple(_NAMES.names.values())


def _by_option(arguments: Arguments) -> dict[str, object]:
    """Values by option, also where the file names destinations."""
    if not arguments.dumped:
        return dict(arguments.options)
    options = {
        _DESTINATIONS.get(name, name.removeprefix("--").replace("-", "_")): name for name in known_options()
    }
    values: dict[str, object] = {}
    for key, value in arguments.options.items():
        if key == "overlap_p2p_comm":
            values[_NO_DEFAULT_SWITCH] = value is False
        elif key == "virtual_pipeline_model_parallel_size":
            values["--num-virtual-stages-per-pipeline-rank"] = value
        else:
            values[options.get(key, f"--{key.replace('_', '-')}")] = value
    if values.get("--num-virtual-stages-per-pipeline-rank"):
        values.pop("--num-layers-per-virtual-pipeline-stage", None)
    return values


def _plan(options: Options, stack: Stack, devices: int | None, model: ModelSpec | None) -> Plan:
    tensor, context = _degree(options, "tensor_x"), _degree(options, "context")
    pipeline = _degree(options, "pipeline")
    others = tensor * context * pipeline
    world = devices or others
    if world % others:
        options.faults.append(
            f"tensor {tensor} x context {context} x pipeline {pipeline} = {others} does not divide {world} devices; "
            "give the devices of the job with --devices"
        )
    data = max(1, world // others)
    split = stages(options, pipeline, model)
    plan = Plan(
        tensor_x=tensor,
        context=context,
        pipeline=pipeline,
        data=data,
        sequence_parallel=options.on(_NAMES["sequence_parallel"]) and tensor > 1,
        virtual_stages=split.virtual,
        stage_layers=split.layers,
        context_kind=_context_kind(options, context),
        rank_order=_STAGES_INSIDE if options.on(_NAMES["pipeline_before_data"]) else DEFAULT_RANK_ORDER,
    )
    plan = _experts(options, plan)
    plan = _bucket(options, _sharding(options, plan), stack)
    plan = _batch(options, plan, model)
    plan = _recompute(options, plan, split)
    plan = precision(options, plan, stack)
    return replace(plan, overlap=overlap(options, plan, stack))


def _degree(options: Options, key: str) -> int:
    return options.number(_NAMES[key]) or 1


def _context_kind(options: Options, context: int) -> Literal["ring", "all-to-all"]:
    given = options.text(_NAMES["context_kind"])
    if given is None or context == 1:
        return "ring"
    kinds = set(given.replace("_", "").split())
    if kinds == {CONTEXT["ring"]}:
        return "ring"
    if kinds == {CONTEXT["all-to-all"]}:
        return "all-to-all"
    options.faults.append(
        f"{_NAMES['context_kind']} {given}: a plan has p2p (ring) or a2a (all-to-all) for all layers"
    )
    return "ring"


def _experts(options: Options, plan: Plan) -> Plan:
    expert = _degree(options, "expert")
    experts = options.number(_NAMES["num_experts"])
    split = options.number(_NAMES["expert_tensor"])
    if experts is None and expert == 1:
        return plan
    # without the option experts are split like the rest (validate_args)
    return replace(plan, expert=expert, expert_tensor=split or plan.tensor_x)


def _sharding(options: Options, plan: Plan) -> Plan:
    stage = 1 if options.on(_NAMES["distributed_optimizer"]) else 0
    strategy = options.text(_NAMES["sharding"]) or "optim_grads_params"
    if options.on("--use-torch-fsdp2"):
        stage = 2 if options.on("--torch-fsdp2-no-reshard-after-forward") else 3
    elif options.on(_NAMES["fsdp"]):
        levels = {"no_shard": 0, "optim": 1} | {word: level for level, word in SHARDING.items()}
        if strategy not in levels:
            options.faults.append(f"{_NAMES['sharding']} {strategy} is unknown (known: {', '.join(levels)})")
        stage = levels.get(strategy, 3)
    options.text(_NAMES["checkpoint_format"])
    replicas = options.number(_NAMES["replicas"]) or 1
    outer = options.text(_OUTER_SHARDING)
    if outer not in (None, "no_shard") and replicas > 1:
        options.faults.append(
            f"{_OUTER_SHARDING} {outer}: states that replicas of shards split once more are no part of a plan"
        )
    if stage == 0 or replicas == 1:
        return replace(plan, zero_stage=stage)
    if plan.data % replicas:
        options.faults.append(
            f"{_NAMES['replicas']} {replicas} does not divide the data-parallel degree {plan.data}"
        )
    return replace(plan, zero_stage=stage, data_shard=max(1, plan.data // replicas))


def _bucket(options: Options, plan: Plan, stack: Stack) -> Plan:
    """Buckets of the gradients; a size that the stack or ZeRO 3 has no use for is ignored, and said to be."""
    name = _NAMES["gradient_bucket"]
    if plan.zero_stage == 3 or not stack.supports.gradient_buckets or name not in options.values:
        return plan
    size = options.number(name)
    if size is not None and size < SMALLEST_BUCKET:
        options.notes.append(f"{name} {size}: taken as {SMALLEST_BUCKET:,}, the smallest bucket of a plan")
        size = SMALLEST_BUCKET
    return replace(plan, gradient_bucket=size)


def _batch(options: Options, plan: Plan, model: ModelSpec | None) -> Plan:
    micro = options.number(_NAMES["micro_batch"])
    if micro is None:
        options.faults.append(f"{_NAMES['micro_batch']} is missing; Megatron-LM has no default for it")
    total = options.number(_NAMES["global_batch"]) or (micro or 1) * plan.data
    sequence = options.number(_NAMES["sequence"])
    if sequence is None and options.raw("--encoder-seq-length") is not None:
        sequence = options.number("--encoder-seq-length")
    if model is not None and sequence == model.sequence:
        sequence = None
    options.number(_NAMES["max_positions"])
    return replace(plan, micro_batch=micro or 1, global_batch=total, sequence=sequence)


def _recompute(options: Options, plan: Plan, split: Stages) -> Plan:
    granularity = options.text(_NAMES["recompute"])
    if options.on(_NAMES["recompute_activations"]):
        granularity = "selective"
    method = options.text(_NAMES["recompute_method"])
    layers = options.number(_NAMES["recompute_layers"])
    modules = options.text(_NAMES["recompute_modules"])
    if options.on(_OLD_RECOMPUTE):
        options.notes.append(f"{_OLD_RECOMPUTE}, an option of 2021: taken as {_NAMES['recompute']} full")
        granularity = granularity or "full"
    if granularity is None:
        return plan
    if granularity == "selective":
        if modules not in (None, "core_attn"):
            options.notes.append(
                f"{_NAMES['recompute_modules']} {modules}: taken as selective, which is the core of attention here"
            )
        return replace(plan, recompute="selective")
    if method == "block" and layers is not None:
        return replace(plan, recompute="full", recompute_every=_every(options, layers, split))
    if method == "uniform" and (layers or 1) > 1:
        options.notes.append(
            f"{_NAMES['recompute_layers']} {layers} with uniform: a plan keeps the input of each layer, not of every "
            f"{layers} layers"
        )
    return replace(plan, recompute="full")


def _every(options: Options, layers: int, split: Stages) -> int:
    """One layer in so many, where the first `layers` of each chunk are recomputed."""
    counts = set(split.counts)
    if counts and all(layers >= count for count in counts):
        return 1
    if len(counts) == 1 and not (count := counts.pop()) % layers:
        return count // layers
    options.faults.append(
        f"{_NAMES['recompute_layers']} {layers} with block: a plan recomputes one layer in so many, and {layers} of "
        f"{', '.join(map(str, sorted(set(split.counts)))) or 'an unknown number of'} layers is no such part"
    )
    return 1
