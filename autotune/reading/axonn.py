"""Arguments of Megatron-AxoNN as a plan, the inverse of the export."""

from dataclasses import replace

from towtank.autotune.export.axonn import ORDER, OVERLAPS
from towtank.autotune.export.names import names_of
from towtank.autotune.reading.arguments import Arguments
from towtank.autotune.reading.precision import with_tf32
from towtank.autotune.reading.records import Imported, Options, ReadingError
from towtank.autotune.reading.shapes import model_of
from towtank.simulator.lowering.sizes import resolve_overlap
from towtank.simulator.models.records import ModelSpec
from towtank.simulator.plan import DEFAULT_RANK_ORDER, Overlap, Plan
from towtank.simulator.stacks.records import Stack

SOURCE = "megatron-axonn"
_NAMES = names_of(SOURCE)
MARKS = tuple(_NAMES[key] for key in ("tensor_x", "tensor_y", "tensor_z"))
"""Options that Megatron-LM does not have."""
_NOT_RUN = (
    "--use-distributed-optimizer", "--sequence-parallel", "--recompute-activations", "--num-experts",
    "--num-layers-per-virtual-pipeline-stage", "--overlap-grad-reduce",
)  # fmt: skip
"""Options inherited from Megatron-LM that would change the plan and that AxoNN's layers do not follow."""


def read(
    arguments: Arguments, stack: Stack, devices: int | None, model: ModelSpec | None, subject: str
) -> Imported:
    """The plan in arguments of Megatron-AxoNN.

    Raises:
        ReadingError: every reason why they are no plan.
    """
    options = Options(
        {
            (f"--{name.replace('_', '-')}" if arguments.dumped else name): value
            for name, value in arguments.options.items()
        }
    )
    name, found = model_of(options, model)
    world = devices or arguments.devices
    if world is None:
        options.faults.append("how many devices the job has is not said; give --devices N")
    options.faults += [
        f"{name}: AxoNN does not run it; leave it out" for name in _NOT_RUN if options.text(name) is not None
    ]
    plan = _batch(options, _degrees(options, world), found or model)
    plan = with_tf32(arguments, _memory(options, plan, stack))
    if options.faults:
        raise ReadingError(options.faults, subject)
    return Imported(SOURCE, plan, name, options.unused(), tuple(options.notes))


def _degrees(options: Options, devices: int | None) -> Plan:
    x, y, z, pipeline = (
        options.number(_NAMES[key]) or 1 for key in ("tensor_x", "tensor_y", "tensor_z", "pipeline")
    )
    others = x * y * z * pipeline
    world = devices or others
    if world % others:
        options.faults.append(
            f"rows {x} x columns {y} x depth {z} x pipeline {pipeline} = {others} does not divide {world} devices; "
            "give the devices of the job with --devices"
        )
    data = max(1, world // others)
    order = (*ORDER, "context") if pipeline > 1 and data * z > 1 else DEFAULT_RANK_ORDER
    return Plan(tensor_x=x, tensor_y=y, tensor_z=z, pipeline=pipeline, data=data, rank_order=order)


def _batch(options: Options, plan: Plan, model: ModelSpec | None) -> Plan:
    """The micro-batch of Megatron-AxoNN is that of a data-parallel group, split over depth."""
    group = options.number(_NAMES["micro_batch"])
    if group is None:
        options.faults.append(f"{_NAMES['micro_batch']} is missing; Megatron-AxoNN has no default for it")
        return plan
    if group % plan.tensor_z:
        options.faults.append(
            f"{_NAMES['micro_batch']} {group} is split over depth and must be a multiple of {plan.tensor_z}"
        )
    total = options.number(_NAMES["global_batch"]) or group * plan.data
    sequence = options.number(_NAMES["sequence"])
    options.number(_NAMES["max_positions"])
    usual = model is not None and sequence == model.sequence
    return replace(
        plan,
        micro_batch=max(1, group // plan.tensor_z),
        global_batch=total,
        sequence=None if usual else sequence,
    )


def _memory(options: Options, plan: Plan, stack: Stack) -> Plan:
    full = options.text(_NAMES["recompute"])
    method = options.text(_NAMES["recompute_method"])
    layers = options.number(_NAMES["recompute_layers"])
    if full not in (None, "full") or (full and (method == "block" or (layers or 1) > 1)):
        options.faults.append(
            f"{_NAMES['recompute']} {full} {method or ''} {layers or ''}: AxoNN recomputes every layer or none"
        )
    level, cached = options.text(_NAMES["caching_level"]), options.text(_NAMES["cached_layers"])
    if level not in (None, "2") and cached not in (None, "0"):
        options.notes.append(
            f"{_NAMES['caching_level']} {level}: a plan keeps all linear layers of a cached layer"
        )
    plan = replace(
        plan,
        recompute="full" if full else "none",
        cached_layers=int(cached) if cached and cached.isdecimal() and level != "0" else 0,
        precision="bf16" if options.on(_NAMES["bf16"]) else "fp16" if options.on(_NAMES["fp16"]) else "fp32",
    )
    wide = options.on(_NAMES["gradients_fp32"]) or plan.precision != "fp16"
    gradients = "fp32" if wide else "fp16"
    if gradients != stack.communication.gradient_precision:
        plan = replace(plan, gradient_precision="fp32" if wide else "fp16")
    usual = resolve_overlap(plan, stack)
    found = {name: options.on(_NAMES[name]) for name in OVERLAPS}
    changed = {name: value for name, value in found.items() if value != getattr(usual, name)}
    return replace(plan, overlap=replace(Overlap(), **changed))
