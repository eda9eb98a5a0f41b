"""The roofline of a predicted step, as data for plotly."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from towtank.kernels.counts import BYTES_PER_ELEMENT, matmul_bytes
from towtank.pages.axes import LEGEND, axis, rounded
from towtank.pages.records import Plot, Table
from towtank.simulator.operations import AttentionCore, Elementwise, Matmul, Operation
from towtank.simulator.predict import Prediction


def roofline_plot(prediction: Prediction) -> Plot:
    """Operations by arithmetic intensity and reached rate, under the device's roofs."""
    device = prediction.machine.device
    points = _roofline_points(prediction)
    peak = device.peak_flop_per_s[prediction.plan.precision] / 1e12
    bandwidth = (device.memory_bandwidth_bytes_per_s or 0.0) / 1e12
    ridge = peak / bandwidth if bandwidth else 1.0
    ends = [
        min(*(point[1] for point in points), ridge / 10) / 2,
        max(*(point[1] for point in points), ridge) * 2,
    ]
    intensity = np.geomspace(ends[0], ends[1], 40)
    roof = {
        "type": "scatter", "mode": "lines", "name": "roof", "x": rounded(intensity),
        "y": rounded(np.minimum(peak, intensity * bandwidth)),
    }  # fmt: skip
    traces: list[Mapping[str, Any]] = [roof]
    for kind in dict.fromkeys(point[3] for point in points):
        own = [point for point in points if point[3] == kind]
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": kind, "x": [point[1] for point in own],
                "y": [point[2] for point in own], "text": [point[0] for point in own],
                "marker": {"size": 9},
            }
        )  # fmt: skip
    best = max(points, key=lambda point: point[2])
    return Plot(
        "roofline",
        f"{len(points)} operations below the roof of {peak:.0f} TFLOP/s and {bandwidth:.2f} TB/s; the fastest is "
        f"{best[0]} at {best[2]:.0f} TFLOP/s.",
        traces,
        {"xaxis": axis("FLOP a byte", type="log"), "yaxis": axis("TFLOP/s", type="log"), "height": 460,
         "showlegend": True, "legend": LEGEND},
        Table(("operation", "FLOP a byte", "TFLOP/s"), [point[:3] for point in points]),
    )  # fmt: skip


def _roofline_points(prediction: Prediction) -> list[tuple[str, float, float, str]]:
    """Name, FLOP a byte, TFLOP/s and kind of each different operation of the fullest blocks."""
    found: dict[str, tuple[str, float, float, str]] = {}
    for times in (prediction.step.forward, prediction.step.backward):
        for time in (times[0][0], times[-1][-1]):
            spent = time.timeline.finish_s - time.timeline.start_s
            for task, template in enumerate(time.graph.template.tolist()):
                operation = time.graph.operations[template]
                name = f"{operation.name} ({operation.phase})"
                size = _bytes(operation)
                if name not in found and operation.flop and size and spent[task] > 0:
                    rate = operation.flop / float(spent[task]) / 1e12
                    found[name] = (name, round(operation.flop / size, 3), round(rate, 4), operation.kind)
    return list(found.values())


def _bytes(operation: Operation) -> float:
    work = operation.work
    if isinstance(work, Matmul):
        element = BYTES_PER_ELEMENT[work.precision]
        return matmul_bytes(work.m, work.n, work.k, element, BYTES_PER_ELEMENT["bf16"], work.batch)
    if isinstance(work, Elementwise):
        return work.bytes
    if isinstance(work, AttentionCore):
        # queries, keys, values and output once; a flash kernel does not write the scores
        own = work.queries * work.heads * (work.head_dim + work.value_dim)
        shared = work.keys * work.kv_heads * (work.head_dim + work.value_dim)
        return work.batch * (own + shared) * BYTES_PER_ELEMENT["bf16"] * (3 if work.backward else 1)
    return 0.0
