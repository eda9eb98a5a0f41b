"""A prediction as a JSON document; `prediction.schema.json` beside this file describes it."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal

from towtank.simulator.network.surroundings import surroundings_to_mapping
from towtank.simulator.operation_times import operation_times
from towtank.simulator.plan_file import plan_to_mapping
from towtank.simulator.predict import Prediction
from towtank.simulator.record import OperationTime
from towtank.simulator.report.caveats import caveats

SCHEMA = 1
_SCHEMA_FILE = Path(__file__).parent / "prediction.schema.json"

Detail = Literal["layers", "operations"]


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of `prediction_to_mapping`."""
    document: dict[str, Any] = json.loads(_SCHEMA_FILE.read_text(encoding="utf-8"))
    return document


def missing_bytes(prediction: Prediction) -> float:
    """Bytes per device by which the fullest stage exceeds the device's memory; 0 where the plan fits."""
    return max(0.0, prediction.peak_memory_bytes - prediction.memory_capacity_bytes)


def prediction_to_mapping(
    prediction: Prediction, version: str, detail: Detail | None = None
) -> dict[str, Any]:
    """Everything that a prediction says, in SI units; `detail` adds the times of layers or of operations.

    `version` is that of towtank. `plan` is a plan file: fields that are not listed have their defaults.
    """
    peak = prediction.peak_stage
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "towtank": version,
        "model": prediction.model.name,
        "machine": prediction.machine.name,
        "device": prediction.machine.device.name,
        "stack": prediction.stack.name,
        "engine": prediction.engine,
        "devices": prediction.plan.num_devices,
        "plan": plan_to_mapping(prediction.plan),
        "surroundings": _surroundings(prediction),
        "step_time_s": prediction.step_time_s,
        "bound_s": prediction.bound_s,
        "tokens_per_step": prediction.tokens_per_step,
        "tokens_per_s": prediction.tokens_per_s,
        "mfu": prediction.mfu,
        "hfu": prediction.hfu,
        "flop_per_s_per_device": prediction.flop_per_s_per_device,
        "executed_flop_per_s_per_device": prediction.executed_flop_per_s_per_device,
        "peak_memory_bytes": prediction.peak_memory_bytes,
        "peak_memory_stage": peak.stage,
        "memory_capacity_bytes": prediction.memory_capacity_bytes,
        "missing_bytes": missing_bytes(prediction),
        "fits": prediction.fits,
        "breakdown_s": dict(prediction.breakdown_s),
        "memory_bytes": dict(peak.parts),
        "memory_per_stage_bytes": [stage.peak_bytes for stage in prediction.memory],
        "provenance": list(prediction.provenance),
        "caveats": list(caveats(prediction)),
    }
    if detail is not None:
        document[detail] = _detail(prediction, detail)
    return document


def _surroundings(prediction: Prediction) -> dict[str, Any]:
    machine = prediction.machine
    nodes = -(-prediction.plan.num_devices // machine.node.devices)
    return surroundings_to_mapping(prediction.surroundings, machine, nodes)


def _detail(prediction: Prediction, detail: Detail) -> list[dict[str, Any]]:
    times = operation_times(prediction.step)
    if detail == "layers":
        return [
            {"name": name, "phase": phase, "seconds": seconds, "exposed_s": exposed}
            for (name, phase), (seconds, exposed) in layer_times(times).items()
        ]
    return [
        {
            "name": one.name,
            "kind": one.kind,
            "phase": one.phase,
            "seconds": one.seconds,
            "exposed_s": one.exposed_s,
        }
        for one in times
    ]


def layer_times(times: tuple[OperationTime, ...]) -> dict[tuple[str, str], tuple[float, float]]:
    """Seconds and exposed seconds by (layer, phase), in the order of the model; `model` is embedding and head."""
    total: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for one in times:
        row = total[layer_of(one.name), one.phase]
        row[0] += one.seconds
        row[1] += one.exposed_s
    order = sorted(total, key=lambda key: _place(key[0]))
    return {key: (total[key][0], total[key][1]) for key in order}


def layer_of(operation: str) -> str:
    """Layer of an operation: `layer.17` of `layer.17.qkv.forward`, `model` of `model.head.forward`."""
    parts = operation.split(".")
    return ".".join(parts[:2]) if len(parts) > 1 and parts[1].isdigit() else parts[0]


def _place(layer: str) -> tuple[int, int]:
    kind, _, number = layer.partition(".")
    return (
        ("layer", "prediction", "model").index(kind) if number or kind == "model" else 3,
        int(number or 0),
    )
