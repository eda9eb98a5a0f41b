"""What `towtank scale` prints."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from towtank.cli.prediction_text import layout
from towtank.cli.text import count, gibibytes, paragraph, parameters, percent, seconds, significant, table

if TYPE_CHECKING:
    from towtank.autotune.scaling.study import Study, TunedPoint
    from towtank.simulator.plan import Plan

_HEADS = ("devices", "step", "tokens/s", "a device", "TFLOP/s", "MFU", "efficiency", "memory")


def scale_text(points: "Sequence[TunedPoint]", title: str, mode: str, margin: float = 0.0) -> str:
    """The tables of a study, at most 100 columns wide; `margin`: share of the predicted memory that stays free."""
    from towtank.autotune.scaling.study import efficiencies

    rows = [_row(each, efficiency) for each, efficiency in zip(points, efficiencies(points), strict=True)]
    heads = ("devices", *_job_heads(mode), "plan")
    return "\n\n".join(
        [
            f"{title}\n{table(rows, _HEADS, right=range(8))}",
            f"Plans\n{table(_plans(points, mode), heads, right=(0, 1) if len(heads) > 2 else (0,))}",
            "\n".join(paragraph(f"- {note}") for note in (*_notes(points), *_room(margin))),
        ]
    )


def _row(each: "TunedPoint", efficiency: float | None) -> tuple[str, ...]:
    devices = count(each.point.devices)
    if each.found is None or efficiency is None:
        return (devices, "none", *["-"] * 6)
    found = each.found
    return (
        devices,
        seconds(found.step_time_s),
        significant(found.tokens_per_s),
        significant(found.tokens_per_s / each.point.devices),
        significant(found.flop_per_s_per_device / 1e12),
        percent(found.mfu),
        percent(efficiency),
        gibibytes(found.peak_memory_bytes),
    )


def _job_heads(mode: str) -> tuple[str, ...]:
    """Columns for what grows."""
    return {"weak-batch": ("batch",), "weak-model": ("parameters", "model")}.get(mode, ())


def _plans(points: "Sequence[TunedPoint]", mode: str) -> list[tuple[str, ...]]:
    from towtank.simulator.models.count import parameters as counted

    rows = []
    for each in points:
        job = {
            "batch": count(each.point.global_batch),
            "parameters": parameters(counted(each.point.model).total),
            "model": each.point.model.name,
        }
        plan = f"none: {each.why_not}" if each.found is None else plan_words(each.found.plan)
        rows.append((count(each.point.devices), *(job[head] for head in _job_heads(mode)), plan))
    return rows


def _notes(points: "Sequence[TunedPoint]") -> list[str]:
    notes = [
        "a device: tokens/s of one; TFLOP/s: model FLOP/s of one; efficiency: these relative to the first point that "
        "has a plan"
    ]
    found = [each.found for each in points if each.found is not None]
    if found and all(each.proven for each in found):
        notes.append("every plan is proven: no legal plan is faster under the compiled engine")
    return notes + [
        f"{count(each.point.devices)} devices: not proven, at most {percent(each.found.gap)} behind the best"
        for each in points
        if each.found is not None and not each.found.proven
    ]


def _room(margin: float) -> list[str]:
    return [f"plans keep {percent(margin)} of their predicted memory free for its error"] if margin else []


def plan_words(plan: "Plan") -> str:
    """A plan in few words: degrees, chunks, micro-batch, recomputation, ZeRO."""
    words = [layout(plan)]
    if plan.virtual_stages > 1:
        words.append(f"{plan.virtual_stages} chunks")
    words.append(f"micro-batch {plan.micro_batch}")
    if plan.recompute != "none":
        words.append(f"recompute {plan.recompute}")
    if plan.zero_stage:
        words.append(f"ZeRO {plan.zero_stage} over {plan.shard_degree}")
    if plan.sequence_parallel and plan.tensor_x > 1:
        words.append("sequence parallel")
    return ", ".join(words)


def scale_to_mapping(points: "Sequence[TunedPoint]", study: "Study", mode: str) -> dict[str, Any]:
    """A study as plain data, in SI units."""
    from towtank.autotune.scaling.study import efficiencies

    return {
        "schema": 1,
        "mode": mode,
        "machine": study.machine.name,
        "stack": study.stack.name,
        "memory_margin": study.memory_margin,
        "points": [
            _point_to_mapping(each, efficiency)
            for each, efficiency in zip(points, efficiencies(points), strict=True)
        ],
    }


def _point_to_mapping(each: "TunedPoint", efficiency: float | None) -> dict[str, Any]:
    from towtank.simulator.models.count import parameters as counted
    from towtank.simulator.plan_file import plan_to_mapping

    document: dict[str, Any] = {
        "devices": each.point.devices,
        "model": each.point.model.name,
        "parameters": counted(each.point.model).total,
        "global_batch": each.point.global_batch,
        "fits": each.found is not None,
    }
    if each.found is None:
        return document | {"plan": None, "why_not": each.why_not}
    found = each.found
    return document | {
        "plan": plan_to_mapping(found.plan),
        "step_time_s": found.step_time_s,
        "tokens_per_s": found.tokens_per_s,
        "tokens_per_s_per_device": found.tokens_per_s / each.point.devices,
        "flop_per_s_per_device": found.flop_per_s_per_device,
        "mfu": found.mfu,
        "efficiency": efficiency,
        "peak_memory_bytes": found.peak_memory_bytes,
        "legal": found.legal,
        "proven": found.proven,
        "gap": found.gap if found.gap < float("inf") else None,
    }
