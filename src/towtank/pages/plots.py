"""Plots of a predicted step, as data for plotly. Colours come from the page, which knows light and dark."""

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import numpy as np

from towtank.autotune.explanation.sensitivities import Sensitivity
from towtank.autotune.reasons.survey import Survey
from towtank.autotune.reasons.words import words
from towtank.kernels.counts import BYTES_PER_ELEMENT, matmul_bytes
from towtank.pages.records import Plot, Table
from towtank.simulator.critical_path import PathPart
from towtank.simulator.operations import AttentionCore, Elementwise, Matmul, Operation
from towtank.simulator.predict import Prediction
from towtank.simulator.schedules.roles import Role, StreamKind

GIB = 2.0**30
MOST_BARS = 4000
"""Passes in the timeline beyond which only some stages are shown: what a browser draws at once."""
MOST_STAGES = 16
_LEGEND = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0}


def _axis(title: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title}, "automargin": True, **more}


def _on_lines(name: str) -> str:
    """A long name of a bar on several lines: on a phone it would leave no room for the bars."""
    return "<br>".join(wrap(name, 20))


def breakdown_plot(prediction: Prediction) -> Plot:
    """Seconds of the step by what they are spent on."""
    parts = sorted(prediction.breakdown_s.items(), key=lambda item: item[1])
    names = [words(name, prediction.plan) for name, _ in parts]
    values = [seconds for _, seconds in parts]
    shares = [f"{seconds / prediction.step_time_s * 100:.1f} %" for seconds in values]
    return Plot(
        "breakdown",
        f"Bars of the {len(parts)} parts of the step; the longest is {names[-1]} with {shares[-1]}.",
        [
            {
                "type": "bar",
                "orientation": "h",
                "y": [_on_lines(name) for name in names],
                "x": values,
                "text": shares,
                "textposition": "auto",
            }
        ],
        {"xaxis": _axis("seconds, mean over devices"), "yaxis": _axis(""), "height": 120 + 28 * len(parts)},
        Table(("part", "seconds", "share"), list(zip(names, values, shares, strict=True))[::-1]),
    )


def path_plot(prediction: Prediction, path: Sequence[PathPart]) -> Plot:
    """The critical path by what limits it."""
    traces = []
    for resource in dict.fromkeys(part.resource for part in path):
        own = [part for part in path if part.resource == resource]
        traces.append(
            {
                "type": "bar", "orientation": "h", "name": resource, "y": ["critical path"],
                "x": [sum(part.seconds for part in own)],
                "hovertext": [", ".join(words(part.kind, prediction.plan) for part in own)],
            }
        )  # fmt: skip
    rows = [
        (words(part.kind, prediction.plan), part.resource, part.seconds, part.operations) for part in path
    ]
    return Plot(
        "critical-path",
        f"A stacked bar of {prediction.step_time_s:.4g} seconds by resource; most is limited by {path[0].resource}.",
        traces,
        {
            "barmode": "stack",
            "yaxis": {"visible": False},
            "xaxis": _axis("seconds"),
            "height": 240,
            "showlegend": True,
            "legend": _LEGEND,
        },
        Table(("operations", "limited by", "seconds", "how many"), rows),
    )


def timeline_plot(prediction: Prediction) -> Plot:
    """When each pipeline stage does what."""
    step, pipeline = prediction.step, prediction.step.program.pipeline
    compute = np.flatnonzero(pipeline.structure.stream // pipeline.num_stages == StreamKind.COMPUTE)
    stages = _shown_stages(pipeline.num_stages, len(compute))
    traces, rows = [], []
    for role in (Role.FORWARD, Role.BACKWARD, Role.GRADIENT_NORM, Role.OPTIMIZER):
        tasks = [
            int(task)
            for task in compute
            if pipeline.role[task] == role and int(pipeline.stage[task]) in stages
        ]
        if not tasks:
            continue
        start, finish = step.timeline.start_s[tasks], step.timeline.finish_s[tasks]
        name = role.name.lower().replace("_", " ")
        traces.append(
            {
                "type": "bar", "orientation": "h", "name": name,
                "y": [f"stage {int(stage)}" for stage in pipeline.stage[tasks]],
                "base": _rounded(start), "x": _rounded(finish - start),
                "hovertext": [pipeline.describe(task) for task in tasks],
            }
        )  # fmt: skip
        rows.append((name, len(tasks), float((finish - start).sum() / len(stages))))
    bubble = prediction.breakdown_s.get("bubble", 0.0) / prediction.step_time_s
    return Plot(
        "timeline",
        f"Passes of {len(stages)} of {pipeline.num_stages} stages over the step; {bubble * 100:.1f} % of the "
        "time of an average stage is bubble.",
        traces,
        {
            "barmode": "overlay", "bargap": 0.15, "xaxis": _axis("seconds"), "yaxis": _axis("", autorange="reversed"),
            "height": 160 + 26 * len(stages), "showlegend": True, "legend": _LEGEND,
        },
        Table(("tasks", "shown", "seconds a stage"), rows),
    )  # fmt: skip


def _shown_stages(stages: int, tasks: int) -> set[int]:
    """Stages of the timeline: all, or as many evenly chosen ones as a browser bears."""
    most = max(1, min(stages, MOST_STAGES, MOST_BARS * stages // max(tasks, 1)))
    return {int(stage) for stage in np.unique(np.linspace(0, stages - 1, most).round())}


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def memory_plot(prediction: Prediction) -> Plot:
    """Memory of the fullest stage over the step: what stays, and activations as passes come and go."""
    peak = prediction.peak_stage
    activations = sum(size for name, size in peak.parts.items() if name.startswith("activations"))
    each = activations / max(1, peak.alive_micro_batches)
    events = _passes(prediction)
    times = [0.0, *(time for time, _ in events), prediction.step_time_s]
    alive = np.minimum(np.cumsum([0, *(change for _, change in events), 0]), peak.alive_micro_batches)
    stays = {name: size for name, size in peak.parts.items() if not name.startswith("activations")}
    sizes = [(name, np.full(len(times), size)) for name, size in stays.items()]
    traces: list[Mapping[str, Any]] = [*_areas(times, [*sizes, ("activations", alive * each)])]
    capacity = prediction.memory_capacity_bytes / GIB
    ends = [0.0, prediction.step_time_s]
    traces.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "capacity",
            "x": ends,
            "y": [capacity] * 2,
            "line": {"dash": "dash"},
        }
    )
    return Plot(
        "memory",
        f"Memory of a device of stage {peak.stage} over the step; the peak is {peak.peak_bytes / GIB:.1f} of "
        f"{capacity:.1f} GiB.",
        traces,
        {"xaxis": _axis("seconds"), "yaxis": _axis("GiB a device", rangemode="tozero"), "height": 420,
         "showlegend": True, "legend": _LEGEND},
        Table(("part at the peak", "GiB"), [(name, size / GIB) for name, size in peak.parts.items()]),
    )  # fmt: skip


def _passes(prediction: Prediction) -> list[tuple[float, int]]:
    """When passes of the fullest stage begin to hold activations (+1) and end to (-1), in the order of time."""
    peak, pipeline, timeline = (
        prediction.peak_stage,
        prediction.step.program.pipeline,
        prediction.step.timeline,
    )
    events: list[tuple[float, int]] = []
    for role, change in ((Role.FORWARD, 1), (Role.BACKWARD, -1)):
        moments = timeline.start_s if change > 0 else timeline.finish_s
        last: dict[tuple[int, int], float] = {}
        for task in np.flatnonzero((pipeline.role == role) & (pipeline.stage == peak.stage)):
            key, when = (int(pipeline.chunk[task]), int(pipeline.micro_batch[task])), float(moments[task])
            # an unrolled pass begins with its first layer and ends with its last
            last[key] = (min if change > 0 else max)(last.get(key, when), when)
        events += [(when, change) for when in last.values()]
    return sorted(events)


def _areas(when: Sequence[float], sizes: Sequence[tuple[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Areas on top of each other, summed here: plotly stacks no two values at one time."""
    below = np.zeros(len(when))
    traces: list[dict[str, Any]] = []
    for name, size in sizes:
        below = below + size
        traces.append(
            {
                "type": "scatter", "mode": "lines", "name": name, "x": _rounded(np.array(when)),
                "y": _rounded(below / GIB), "fill": "tonexty" if traces else "tozeroy",
                "line": {"width": 1, "shape": "hv"},
            }
        )  # fmt: skip
    return traces


def roofline_plot(prediction: Prediction) -> Plot:
    """Operations by arithmetic intensity and reached rate, under the device's roofs."""
    device = prediction.machine.device
    points = _roofline_points(prediction)
    peak = device.peak_flop_per_s[prediction.plan.precision] / 1e12
    bandwidth = (device.memory_bandwidth_bytes_per_s or 0.0) / 1e12
    ends = [min([point[1] for point in points] + [0.1]) / 2, max([point[1] for point in points] + [10.0]) * 2]
    intensity = np.geomspace(ends[0], ends[1], 40)
    roof = {
        "type": "scatter", "mode": "lines", "name": "roof", "x": _rounded(intensity),
        "y": _rounded(np.minimum(peak, intensity * bandwidth)),
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
        {"xaxis": _axis("FLOP a byte", type="log"), "yaxis": _axis("TFLOP/s", type="log"), "height": 460,
         "showlegend": True, "legend": _LEGEND},
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


def sensitivity_plot(found: Sequence[Sensitivity]) -> Plot:
    """How much the step changes for 1 % more of each property."""
    known = [one for one in found if one.elasticity is not None][::-1]
    names, values = [one.knob.name for one in known], [float(f"{one.elasticity:.4g}") for one in known]
    return Plot(
        "sensitivities",
        f"Change of the step time for 1 % more of each property; {names[-1]} matters most ({values[-1]:+.2f} %).",
        [{"type": "bar", "orientation": "h", "y": [_on_lines(name) for name in names], "x": values}],
        {
            "xaxis": _axis("% of the step time for 1 % more"),
            "yaxis": _axis(""),
            "height": 140 + 30 * len(names),
        },
        Table(("property", "% of the step time"), list(zip(names, values, strict=True))[::-1]),
    )


def front_plot(prediction: Prediction, survey: Survey) -> Plot:
    """This plan and the best plans one step away, by time and memory."""
    points = [("this plan", prediction)]
    points += [(each.change, each.prediction) for each in survey.best]
    if survey.out_of_reach is not None:
        points.append((survey.out_of_reach.change, survey.out_of_reach.prediction))
    rows = [
        (name, float(f"{one.step_time_s:.6g}"), round(one.peak_memory_bytes / GIB, 2)) for name, one in points
    ]
    front = sorted(
        row for row in rows if not any(o[1] <= row[1] and o[2] <= row[2] and o[1:] != row[1:] for o in rows)
    )
    front.sort(key=lambda row: row[1])
    traces = [
        {"type": "scatter", "mode": "markers", "name": name, "text": [row[0] for row in own],
         "x": [row[1] for row in own], "y": [row[2] for row in own], "marker": {"size": 11, "symbol": symbol}}
        for name, own, symbol in (("this plan", rows[:1], "star"), ("one step away", rows[1:], "circle")) if own
    ]  # fmt: skip
    traces.append(
        {"type": "scatter", "mode": "lines", "name": "Pareto front", "x": [row[1] for row in front],
         "y": [row[2] for row in front]}
    )  # fmt: skip
    return Plot(
        "front",
        f"{len(rows)} plans by step time and memory; {len(front)} of them lie on the front.",
        traces,
        {"xaxis": _axis("seconds a step"), "yaxis": _axis("GiB a device", rangemode="tozero"), "height": 420,
         "showlegend": True, "legend": _LEGEND},
        Table(("plan", "seconds a step", "GiB a device"), rows),
    )  # fmt: skip


def scaling_plot(points: Sequence[tuple[int, Prediction]]) -> Plot:
    """Tokens a second as replicas of this plan are added, the batch growing with them."""
    devices = [count for count, _ in points]
    rates = [float(f"{one.tokens_per_s:.6g}") for _, one in points]
    ideal = [rates[0] / devices[0] * count for count in devices]
    shares = [rate / best for rate, best in zip(rates, ideal, strict=True)]
    return Plot(
        "scaling",
        f"Tokens a second from {devices[0]:,} to {devices[-1]:,} devices; the efficiency at the end is "
        f"{shares[-1] * 100:.0f} %.",
        [
            {"type": "scatter", "mode": "lines+markers", "name": "this plan", "x": devices, "y": rates},
            {"type": "scatter", "mode": "lines", "name": "ideal", "x": devices, "y": ideal, "line": {"dash": "dash"}},
        ],
        {"xaxis": _axis("devices", type="log"), "yaxis": _axis("tokens a second", type="log"), "height": 400,
         "showlegend": True, "legend": _LEGEND},
        Table(("devices", "tokens a second", "efficiency"), [
            (count, rate, f"{share * 100:.1f} %") for count, rate, share in zip(devices, rates, shares, strict=True)
        ]),
    )  # fmt: skip
