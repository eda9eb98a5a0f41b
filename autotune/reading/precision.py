"""Precision in Megatron-LM's options."""

from dataclasses import replace
from typing import Literal

from towtank.autotune.export.names import names_of
from towtank.autotune.reading.arguments import Arguments
from towtank.autotune.reading.records import Options
from towtank.simulator.plan import Plan, Precision
from towtank.simulator.stacks.records import Stack

_NAMES = names_of("megatron")
GradientPrecision = Literal["fp32", "bf16", "fp16"]
_HALF = ("fp16", "torch.float16")
_BF16 = ("bf16", "torch.bfloat16")
"""Words of arguments and of dumps."""


def precision(options: Options, plan: Plan, stack: Stack) -> Plan:
    """The plan with the precision of multiplies, gradients and master copy."""
    multiplies = _multiplies(options)
    gradients = _gradients(options, multiplies, plan.zero_stage)
    master = options.text(_NAMES["fsdp_master"])
    changed = replace(plan, precision=multiplies)
    if gradients != stack.communication.gradient_precision:
        changed = replace(changed, gradient_precision=gradients)
    if plan.zero_stage >= 2 and master == "bf16":
        changed = replace(changed, master_precision="bf16")
    elif options.on(_NAMES["precise_optimizer"]) and options.text("--main-params-dtype") in _HALF:
        options.faults.append("--main-params-dtype fp16: a plan keeps its master copy in fp32 or bf16")
    elif plan.zero_stage >= 2 and master not in (None, "fp32"):
        options.faults.append(
            f"{_NAMES['fsdp_master']} {master}: a plan keeps its master copy in fp32 or bf16"
        )
    return changed


def with_tf32(arguments: Arguments, plan: Plan) -> Plan:
    """The plan in TF32 where the script says so in place of fp32."""
    return replace(plan, precision="tf32") if arguments.tf32 and plan.precision == "fp32" else plan


def _multiplies(options: Options) -> Precision:
    narrow, recipe = options.text(_NAMES["fp8"]), options.text(_NAMES["fp8_recipe"])
    four, four_recipe = options.text(_NAMES["fp4"]), options.text(_NAMES["fp4_recipe"])
    wide: Precision = (
        "bf16" if options.on(_NAMES["bf16"]) else "fp16" if options.on(_NAMES["fp16"]) else "fp32"
    )
    if four is not None:
        if four_recipe not in (None, "nvfp4"):
            options.notes.append(f"{_NAMES['fp4_recipe']} {four_recipe}: taken as nvfp4")
        return "nvfp4"
    if narrow is None:
        return wide
    if recipe == "mxfp8":
        return "mxfp8"
    if recipe not in (None, "tensorwise", "delayed"):
        options.notes.append(f"{_NAMES['fp8_recipe']} {recipe}: taken as fp8 with one scale a tensor")
    return "fp8"


def _gradients(options: Options, multiplies: Precision, zero_stage: int) -> GradientPrecision:
    """Precision of gradients: fp32 but where an option, or fp16 without one, says otherwise."""
    kept = options.text(_NAMES["fsdp_gradients"])
    sent = options.text(_NAMES["fsdp_gradients_sent"])
    main = options.text(_NAMES["gradients_dtype"]) if options.on(_NAMES["precise_optimizer"]) else None
    in_fp32 = options.on(_NAMES["gradients_fp32"])
    in_bf16 = options.on(_NAMES["gradients_bf16"])
    wide: dict[str | None, GradientPrecision] = {"fp32": "fp32", "bf16": "bf16", "fp16": "fp16"}
    if zero_stage >= 2 and kept in wide:
        if sent not in (None, "auto", kept):
            options.notes.append(
                f"{_NAMES['fsdp_gradients']} {kept}, but sent in {sent}: a plan has one precision, {kept}"
            )
        return wide[kept]
    if in_bf16 or (main in _BF16 and multiplies not in ("fp16", "fp32")):
        return "bf16"
    return "fp16" if multiplies == "fp16" and not in_fp32 else "fp32"
