"""DeepSpeed JSON as a plan, the inverse of the export.

Facts are those of DeepSpeed 0.19.8 (runtime/config.py: how the three batch sizes follow from each other).
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from towtank.autotune.export.names import names_of
from towtank.autotune.reading.records import Imported, Options, ReadingError
from towtank.simulator.lowering.sizes import resolve_overlap
from towtank.simulator.plan import Overlap, Plan, Precision
from towtank.simulator.plan_rules import SMALLEST_BUCKET
from towtank.simulator.stacks.records import Stack

SOURCE = "deepspeed"
_NAMES = names_of(SOURCE)
_OTHER_MEANING = {
    "offload_optimizer", "offload_param", "cpu_offload", "cpu_offload_param", "zero_quantized_weights",
    "zero_quantized_gradients",
}  # fmt: skip
_16_BITS = ("bf16", "fp16")
_HALF = ("float16", "torch.float16", "half", "fp16")


def parse(text: str, subject: str) -> dict[str, Any]:
    """The mapping in the file.

    Raises:
        ReadingError: it is not a JSON object.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ReadingError([f"is not JSON: {error}"], subject) from error
    if not isinstance(data, dict):
        raise ReadingError(["must be a JSON object"], subject)
    return data


def read(data: Mapping[str, Any], stack: Stack, devices: int | None, subject: str) -> Imported:
    """The plan in DeepSpeed JSON on so many devices.

    Raises:
        ReadingError: every reason why it is no plan.
    """
    options = Options(_flat(data))
    if devices is None:
        options.faults.append("the file does not say how many devices the job has; give --devices N")
    plan = _degrees(options, devices or 1)
    plan = _batch(options, plan)
    plan = _bucket(options, plan, stack)
    plan = _precision(options, plan, stack)
    plan = replace(plan, overlap=_overlap(options, plan, stack))
    options.notes += [
        f"{name}: changes the run, but is no part of a plan"
        for name, value in options.values.items()
        if (set(name.split(".")) & _OTHER_MEANING and value is not False)
        or (name.endswith(_NAMES["partition_size"]) and value != 1)
    ]
    if "pipeline.stages" in options.values:
        options.notes.append(
            "pipeline.stages: stages are built by the program; add them with --set pipeline=N"
        )
    if options.faults:
        raise ReadingError(options.faults, subject)
    options.notes.append(
        "model, sequence length and recomputation are set by the program, not by this file; add them with --set"
    )
    return Imported(SOURCE, plan, None, options.unused(), tuple(options.notes))


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Values under dotted names."""
    flat: dict[str, object] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _degrees(options: Options, devices: int) -> Plan:
    tensor = _positive(options, f"{_NAMES['tensor']}.{_NAMES['tensor_x']}")
    context = _positive(options, _NAMES["sequence_parallel_size"])
    if devices % (tensor * context):
        options.faults.append(
            f"autotp_size {tensor} x sequence_parallel_size {context} does not divide {devices} devices"
        )
    stage = options.raw(f"{_NAMES['zero']}.{_NAMES['zero_stage']}")
    if options.values.get(_NAMES["zero"]) is True:  # the old form
        options.used.add(_NAMES["zero"])
        stage = 1
    if stage not in (None, 0, 1, 2, 3) or isinstance(stage, bool):
        options.faults.append(f"{_NAMES['zero']}.{_NAMES['zero_stage']} {stage!r} must be 0, 1, 2 or 3")
        stage = 0
    data = max(1, devices // (tensor * context))
    plan = Plan(
        tensor_x=tensor,
        context=context,
        context_kind="all-to-all" if context > 1 else "ring",
        data=data,
        zero_stage=stage or 0,
        data_shard=_mics_shard(options, data) if stage == 3 else None,
    )
    if options.on(f"{_NAMES['experts']}.enabled"):
        section = _NAMES["experts"]
        plan = replace(
            plan,
            expert=_positive(options, f"{section}.{_NAMES['expert']}"),
            expert_tensor=_positive(options, f"{section}.{_NAMES['expert_tensor']}"),
        )
    return plan


def _mics_shard(options: Options, data: int) -> int | None:
    """Devices of a shard group of MiCS, which earlier releases had; None where all of data is one."""
    name = f"{_NAMES['zero']}.mics_shard_size"
    if options.values.get(name) in (None, -1):  # off
        options.used.add(name)
        return None
    size = options.number(name)
    if size is not None and data % size:
        options.faults.append(f"{name} {size} does not divide the data-parallel degree {data}")
        return None
    return None if size == data else size


def _bucket(options: Options, plan: Plan, stack: Stack) -> Plan:
    """Buckets of ZeRO 1 and 2, where their size is a number; DeepSpeed takes 5e8 as well as 500000000."""
    size, gathered = (
        options.values.get(f"{_NAMES['zero']}.{_NAMES[key]}") for key in ("gradient_bucket", "gather_bucket")
    )
    known = isinstance(size, int | float) and not isinstance(size, bool) and size >= SMALLEST_BUCKET
    if plan.zero_stage not in (1, 2) or not stack.supports.gradient_buckets or not known:
        return plan
    options.raw(f"{_NAMES['zero']}.{_NAMES['gradient_bucket']}")
    if gathered in (None, size):
        options.raw(f"{_NAMES['zero']}.{_NAMES['gather_bucket']}")
    else:
        options.notes.append(
            f"{_NAMES['gather_bucket']} {gathered}: a plan has one size of buckets, the {size} of "
            f"{_NAMES['gradient_bucket']}"
        )
    return replace(plan, gradient_bucket=int(cast(float, size)))


def _positive(options: Options, name: str) -> int:
    """A degree; 0, which is off for DeepSpeed, is 1."""
    if options.values.get(name) == 0:
        options.used.add(name)
        return 1
    return options.number(name) or 1


def _batch(options: Options, plan: Plan) -> Plan:
    """The three batch sizes, of which DeepSpeed works out what is missing."""
    total, micro, steps = (
        options.number(_NAMES[key]) for key in ("global_batch", "micro_batch", "micro_batches")
    )
    if total is None and micro is None:
        if not options.faults:
            options.faults.append(f"neither {_NAMES['global_batch']} nor {_NAMES['micro_batch']} is given")
        return plan
    if micro is None:
        micro = max(1, (total or 1) // (plan.data * (steps or 1)))
    if total is None:
        total = micro * (steps or 1) * plan.data
    if steps is None:
        steps = max(1, total // (micro * plan.data))
    if total != micro * steps * plan.data:
        options.faults.append(
            f"{_NAMES['global_batch']} {total} must be {_NAMES['micro_batch']} {micro} x {_NAMES['micro_batches']} "
            f"{steps} x {plan.data} data-parallel devices = {micro * steps * plan.data}; give the right --devices"
        )
    return replace(plan, micro_batch=micro, global_batch=total)


def _working(options: Options) -> Precision:
    """Precision of the multiplies."""
    if options.on("bf16.enabled") or options.on("bfloat16.enabled"):
        return "bf16"
    if options.on("fp16.enabled"):
        return "fp16"
    if options.on("torch_autocast.enabled"):
        options.notes.append(
            "torch_autocast keeps weights in fp32; a plan keeps them in 16 bits beside a master copy in fp32"
        )
        half = options.text("torch_autocast.dtype") or ""
        return "fp16" if half in _HALF else "bf16"
    return "fp32"


def _precision(options: Options, plan: Plan, stack: Stack) -> Plan:
    wide = _working(options)
    for name in ("bf16.enabled", "fp16.enabled"):
        if options.values.get(name) == "auto":
            options.faults.append(f"{name} is auto: the program fills it in; write true or false")
    kept = options.text(f"{_NAMES['data_types']}.{_NAMES['gradients_kept']}")
    sent = options.text(_NAMES["gradients_sent"])
    if plan.context > 1:
        sent = options.text(_NAMES["gradients_sent_context"]) or sent
    plan = replace(plan, precision=wide)
    if options.on("bf16.bf16_master_weights_and_grads"):
        plan = replace(plan, master_precision="bf16")
        kept = kept or "bf16"
    if kept and sent and kept != sent:
        options.notes.append(
            f"gradients are kept in {kept} and sent in {sent}: a plan has one precision, {sent}"
        )
    gradients = sent or kept or wide  # without a key, that of the multiplies (runtime/engine.py)
    usual: str = stack.communication.gradient_precision
    usual = wide if usual in _16_BITS and wide in _16_BITS else usual  # 16 bits are those of the multiplies
    if gradients in ("fp32", *_16_BITS) and gradients != usual:
        plan = replace(plan, gradient_precision=gradients)  # type: ignore[arg-type]  # one of the literals
    return plan


def _overlap(options: Options, plan: Plan, stack: Stack) -> Overlap:
    on = options.raw(f"{_NAMES['zero']}.{_NAMES['overlap']}")
    for name in ("contiguous_gradients", "reduce_scatter"):
        options.raw(f"{_NAMES['zero']}.{name}")
    if plan.zero_stage == 0:
        return Overlap()
    wanted = plan.zero_stage == 3 if on is None else on is True  # stage 3 overlaps by default
    switch = "reduce_scatter" if plan.zero_stage == 3 else "data_gradients"
    if wanted == getattr(resolve_overlap(plan, stack), switch):
        return Overlap()
    return replace(Overlap(), **{switch: wanted})
