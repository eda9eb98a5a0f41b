"""Plots of a predicted step over its time, as data for plotly: what stages do, and what fills the memory."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from towtank.pages.axes import GIB, LEGEND, axis, rounded
from towtank.pages.records import Plot, Table
from towtank.simulator.predict import Prediction
from towtank.simulator.schedules.roles import Role, StreamKind

MOST_BARS = 4000
"""Passes in the timeline beyond which only some stages are shown: what a browser draws at once."""
MOST_STAGES = 16


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
                "base": rounded(start), "x": rounded(finish - start),
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
            "barmode": "overlay", "bargap": 0.15, "xaxis": axis("seconds"), "yaxis": axis("", autorange="reversed"),
            "height": 160 + 26 * len(stages), "showlegend": True, "legend": LEGEND,
        },
        Table(("tasks", "shown", "seconds a stage"), rows),
    )  # fmt: skip


def _shown_stages(stages: int, tasks: int) -> set[int]:
    """Stages of the timeline: all, or as many evenly chosen ones as a browser bears."""
    most = max(1, min(stages, MOST_STAGES, MOST_BARS * stages // max(tasks, 1)))
    return {int(stage) for stage in np.unique(np.linspace(0, stages - 1, most).round())}


def memory_plot(prediction: Prediction) -> Plot:
    """Memory of the fullest stage over the step: what stays, and activations as passes come and go."""
    peak = prediction.peak_stage
    activations = sum(size for name, size in peak.parts.items() if name.startswith("activations"))
    each = activations / max(1, peak.alive_micro_batches)
    events = _passes(prediction)
    times = [0.0, *events, prediction.step_time_s]
    alive = np.minimum(np.cumsum([0, *events.values(), 0]), peak.alive_micro_batches)
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
        {"xaxis": axis("seconds"), "yaxis": axis("GiB a device", rangemode="tozero"), "height": 420,
         "showlegend": True, "legend": LEGEND},
        Table(("part at the peak", "GiB"), [(name, size / GIB) for name, size in peak.parts.items()]),
    )  # fmt: skip


def _passes(prediction: Prediction) -> dict[float, int]:
    """When passes of the fullest stage begin to hold activations (+1) and end to (-1), in the order of time; what
    happens at once is one event."""
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
        events += [(float(f"{when:.9g}"), change) for when in last.values()]
    together: dict[float, int] = {}
    for when, change in sorted(events):
        together[when] = together.get(when, 0) + change
    return together


def _areas(when: Sequence[float], sizes: Sequence[tuple[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Areas on top of each other, summed here: plotly stacks no two values at one time."""
    below = np.zeros(len(when))
    traces: list[dict[str, Any]] = []
    for name, size in sizes:
        below = below + size
        traces.append(
            {
                "type": "scatter", "mode": "lines", "name": name, "x": rounded(np.array(when)),
                "y": rounded(below / GIB), "fill": "tonexty" if traces else "tozeroy",
                "line": {"width": 1, "shape": "hv"},
            }
        )  # fmt: skip
    return traces
