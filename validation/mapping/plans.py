"""The plan of a row."""

import re
from typing import Any

from towtank.simulator.models.records import ModelSpec
from towtank.simulator.plan import Overlap, Plan
from towtank.simulator.stacks.records import Stack
from towtank.validation.mapping.rules import InexpressibleError, every, first, table
from towtank.validation.rows import Run


def stack_name(run: Run, assumptions: list[str]) -> str:
    """The stack that stands for the row's framework."""
    rule = first(run, table("frameworks"))
    assert rule is not None, "the last rule fits everything"
    if "near" in rule:
        assumptions.append(f"framework {run.framework or 'not stated'}: {rule['near']}")
    return str(rule["stack"])


def plan_of(run: Run, model: ModelSpec, stack: Stack, assumptions: list[str]) -> Plan:
    """The plan that the row states, blanks filled in.

    Raises:
        InexpressibleError: degrees contradict the number of devices, or the row does what no plan says.
    """
    refused = first(run, table("plans")["not_modelled"])
    if refused is not None:
        raise InexpressibleError(refused["reason"])
    blanks = table("plans")["blanks"].get(stack.name, table("plans")["blanks"]["megatron-core"])
    fields = _degrees(run, assumptions)
    fields["precision"] = _precision(run, blanks, assumptions)
    fields["zero_stage"] = _zero_stage(run, blanks, fields, assumptions)
    fields["recompute"] = _recompute(run, blanks, assumptions)
    fields["virtual_stages"] = _virtual_stages(run, fields, assumptions)
    fields["sequence_parallel"] = _sequence_parallel(run, blanks, fields, stack, assumptions)
    fields["global_batch"] = _global_batch(run)
    fields["micro_batch"] = _micro_batch(run, fields, stack, assumptions)
    fields["overlap"] = _overlap(run, assumptions)
    _from_notes(run, fields, assumptions)
    fields["stage_layers"] = _stage_layers(run, model.num_layers, fields, assumptions)
    _whole_sequence(model, fields, assumptions)
    assumptions += [rule["says"] for rule, _ in every(run, table("plans")["neglected"])]
    return Plan(**fields)


def _stage_layers(
    run: Run, num_layers: int, fields: dict[str, Any], assumptions: list[str]
) -> tuple[int, ...] | None:
    chunks = fields["pipeline"] * fields["virtual_stages"]
    if first(run, table("plans")["balanced_ends"]):
        return with_ends_as_layers(num_layers, chunks)
    if first(run, table("plans")["lighter_last_chunk"]):
        return with_lighter_last(num_layers, chunks)
    rule = first(run, table("plans")["rest_in_last"])
    if rule is None or chunks < 2 or num_layers % chunks == 0:
        return None
    split = with_rest_in_last(num_layers, chunks)
    if split is not None:
        assumptions.append(rule["says"])
    return split


def with_rest_in_last(num_layers: int, chunks: int) -> tuple[int, ...] | None:
    """Layers of each chunk when all are full but the last, which holds the head and predicts further tokens; None
    where nothing is left for it."""
    full = -(-num_layers // chunks)
    rest = num_layers - full * (chunks - 1)
    return (*[full] * (chunks - 1), rest) if rest > 0 else None


def with_ends_as_layers(num_layers: int, chunks: int) -> tuple[int, ...] | None:
    """Layers of each chunk when embedding and head count as a layer each; None where that does not divide."""
    if chunks < 2 or (num_layers + 2) % chunks:
        return None
    each = (num_layers + 2) // chunks
    return (each - 1, *[each] * (chunks - 2), each - 1)


def with_lighter_last(num_layers: int, chunks: int) -> tuple[int, ...] | None:
    """Layers of each chunk when one moves from the last to the first; None where layers do not divide."""
    if chunks < 2 or num_layers % chunks:
        return None
    each = num_layers // chunks
    return (each + 1, *[each] * (chunks - 2), each - 1)


def _degrees(run: Run, assumptions: list[str]) -> dict[str, Any]:
    if run.gx and run.gy and run.gz and run.gdata:
        return {
            "tensor_x": run.gx,
            "tensor_y": run.gy,
            "tensor_z": run.gz,
            "data": run.gdata,
            "pipeline": run.pp or 1,
        }
    blank = [name for name in ("tp", "pp", "cp") if getattr(run, name) is None]
    if blank:
        assumptions.append(f"{', '.join(blank)} blank: 1")
    tensor, pipeline, context = run.tp or 1, run.pp or 1, run.cp or 1
    data = run.dp
    if data is None:
        if run.gpus is None:
            raise InexpressibleError("gpus and dp are blank: the number of devices is not known")
        if run.gpus % (tensor * pipeline * context):
            raise InexpressibleError(
                f"gpus = {run.gpus} is not a multiple of tp {tensor} x pp {pipeline} x cp {context}"
            )
        data = run.gpus // (tensor * pipeline * context)
        assumptions.append(f"dp blank: {data}, the devices that are left")
    product = tensor * pipeline * context * data
    if run.gpus is not None and product != run.gpus:
        raise InexpressibleError(
            f"tp {tensor} x pp {pipeline} x cp {context} x dp {data} = {product} contradicts gpus = {run.gpus}"
        )
    return {"tensor_x": tensor, "pipeline": pipeline, "context": context, "data": data, "expert": run.ep or 1}


def _precision(run: Run, blanks: dict[str, Any], assumptions: list[str]) -> str:
    if not run.precision:
        assumptions.append(f"precision blank: {blanks['precision']}")
        return str(blanks["precision"])
    for pattern, name in table("plans")["precisions"]:
        if re.search(pattern, run.precision, re.IGNORECASE):
            if name:
                return str(name)
            break
    raise InexpressibleError(f"precision {run.precision!r} is not modelled")


def _zero_stage(run: Run, blanks: dict[str, Any], fields: dict[str, Any], assumptions: list[str]) -> int:
    text = run.zero_stage.strip().lower()
    if not text:
        stage = int(blanks["zero_stage"])
        assumptions.append(f"zero_stage blank: {stage}")
    elif (number := re.match(r"(?:zero-?)?([0-3])\b", text)) is not None:
        stage = int(number[1])
    elif re.search("hsdp|fsdp|full", text):
        stage = 3
    else:
        raise InexpressibleError(f"zero_stage {run.zero_stage!r} is not understood")
    # over one replica nothing is sharded; a context group shards as well
    return stage if fields["data"] * fields.get("context", 1) > 1 else 0


def _recompute(run: Run, blanks: dict[str, Any], assumptions: list[str]) -> str:
    text = run.recompute.strip().lower()
    if (known := re.match("none|selective|full", text)) is not None:
        return known[0]
    if text:
        raise InexpressibleError(f"recompute {run.recompute!r} is not none, selective or full")
    assumptions.append(f"recompute blank: {blanks['recompute']}")
    return str(blanks["recompute"])


def _virtual_stages(run: Run, fields: dict[str, Any], assumptions: list[str]) -> int:
    if fields["pipeline"] == 1:
        return 1
    if run.vpp is None:
        assumptions.append("vpp blank: 1, no interleaving")
    return run.vpp or 1


def _sequence_parallel(
    run: Run, blanks: dict[str, Any], fields: dict[str, Any], stack: Stack, assumptions: list[str]
) -> bool:
    if fields["tensor_x"] == 1:
        return False
    needed = fields.get("expert", 1) > 1  # each rank routes its own tokens
    if run.sequence_parallel is not None and not (needed and not run.sequence_parallel):
        return run.sequence_parallel
    value = bool(blanks["sequence_parallel"] or needed) and stack.supports.sequence_parallel
    said = "off, but experts over tensor ranks need it" if run.sequence_parallel is False else "blank"
    assumptions.append(f"sequence_parallel {said}: {'on' if value else 'off'}")
    return value


def _global_batch(run: Run) -> int:
    if run.global_batch_seqs is None:
        raise InexpressibleError("global_batch_seqs is blank; the row does not say how much a step computes")
    return run.global_batch_seqs


def _micro_batch(run: Run, fields: dict[str, Any], stack: Stack, assumptions: list[str]) -> int:
    if run.micro_batch is not None:
        return run.micro_batch
    replica = fields["global_batch"] // (fields["data"] * fields.get("tensor_z", 1))
    if run.grad_accum and replica % run.grad_accum == 0 and replica >= run.grad_accum:
        assumptions.append(f"micro_batch blank: {replica // run.grad_accum}, from grad_accum")
        return int(replica // run.grad_accum)
    whole = stack.name in table("plans")["whole_batch"]
    stages = fields["pipeline"] * fields["virtual_stages"]
    if whole and replica and (stages == 1 or replica % stages == 0):
        size = replica // stages
        how = "the replica's whole batch" if stages == 1 else "one micro-batch a pipeline chunk"
        assumptions.append(f"micro_batch blank: {size}, {how}")
        return int(size)
    assumptions.append("micro_batch blank: 1")
    return 1


def _overlap(run: Run, assumptions: list[str]) -> Overlap:
    changes: dict[str, bool] = {}
    for rule, _ in every(run, table("plans")["overlaps"]):
        changes |= rule["set"]
        if "says" in rule and ("tensor" not in rule["set"] or (run.tp or 1) > 1):
            assumptions.append(rule["says"])
    return Overlap(**changes)


def _from_notes(run: Run, fields: dict[str, Any], assumptions: list[str]) -> None:
    for rule, match in every(run, table("plans")["notes"]):
        for name, value in rule["set"].items():
            fields[name] = _value(value, match, fields, run)
        if "says" in rule:
            assumptions.append(rule["says"])
    shard = fields.get("data_shard")
    if shard is not None and (fields["zero_stage"] == 0 or shard >= fields["data"] or fields["data"] % shard):
        fields.pop("data_shard")


def _value(value: Any, match: re.Match[str] | bool, fields: dict[str, Any], run: Run) -> Any:
    if isinstance(value, str) and value.startswith("$") and isinstance(match, re.Match):
        return int(match[int(value[1:])])
    if isinstance(value, str) and value in fields:
        return fields[value]
    if isinstance(value, str) and value in Run.__dataclass_fields__:
        return getattr(run, value)
    return value


def _whole_sequence(model: ModelSpec, fields: dict[str, Any], assumptions: list[str]) -> None:
    """Sequence parallelism needs tokens that divide; where they do not, the software pads or cuts the sequence."""
    tensor = fields["tensor_x"] * fields.get("context", 1)
    if fields["sequence_parallel"] and model.sequence % tensor and model.sequence > tensor:
        fields["sequence"] = model.sequence // tensor * tensor
        assumptions.append(
            f"sequence cut from {model.sequence} to {fields['sequence']}, a multiple of {tensor}"
        )
