"""Plots of a predicted step, as data for plotly. Colours come from the page, which knows light and dark."""

from collections.abc import Sequence
from typing import Any

from towtank.autotune.explanation.sensitivities import Sensitivity
from towtank.autotune.reasons.survey import Survey
from towtank.autotune.reasons.words import path_words, words
from towtank.pages.axes import GIB, LEGEND, axis, on_lines
from towtank.pages.records import Plot, Table
from towtank.simulator.critical_path import PathPart, by_resource
from towtank.simulator.predict import Prediction


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
                "y": [on_lines(name) for name in names],
                "x": values,
                "text": shares,
                "textposition": "auto",
            }
        ],
        {"xaxis": axis("seconds, mean over devices"), "yaxis": axis(""), "height": 120 + 28 * len(parts)},
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
                "hovertext": [", ".join(path_words(part, prediction.plan) for part in own)],
            }
        )  # fmt: skip
    rows = [
        (path_words(part, prediction.plan), part.resource, part.seconds, part.operations) for part in path
    ]
    return Plot(
        "critical-path",
        f"A stacked bar of {prediction.step_time_s:.4g} seconds by resource; most is limited by "
        f"{by_resource(path)[0][0]}.",
        traces,
        {
            "barmode": "stack",
            "yaxis": {"visible": False},
            "xaxis": axis("seconds"),
            "height": 240,
            "showlegend": True,
            "legend": LEGEND,
        },
        Table(("operations", "limited by", "seconds", "how many"), rows),
    )


def sensitivity_plot(found: Sequence[Sensitivity]) -> Plot:
    """How much the step changes for 1 % more of each property."""
    known = [one for one in found if one.elasticity is not None][::-1]
    names, values = [one.knob.name for one in known], [float(f"{one.elasticity:.4g}") for one in known]
    matters = f"{names[-1]} matters most ({values[-1]:+.2f} %)" if any(values) else "none of them changes it"
    unknown = [(one.knob.name, "unknown") for one in found if one.elasticity is None]
    return Plot(
        "sensitivities",
        f"Change of the step time for 1 % more of each property; {matters}.",
        [{"type": "bar", "orientation": "h", "y": [on_lines(name) for name in names], "x": values}],
        {
            "xaxis": axis("% of the step time"),
            "yaxis": axis(""),
            "height": 140 + 30 * len(names),
        },
        Table(("property", "% of the step time"), [*list(zip(names, values, strict=True))[::-1], *unknown]),
    )


FrontRow = tuple[str, float, float]
"""A plan in words, its step time in seconds and its memory in GiB a device."""


def front_plot(prediction: Prediction, survey: Survey) -> Plot:
    """This plan and the best plans one step away, by time and memory; the front is of those that fit."""
    points = [("this plan", prediction)]
    points += [(each.change, each.prediction) for each in survey.best]
    if survey.out_of_reach is not None:
        points.append((survey.out_of_reach.change, survey.out_of_reach.prediction))
    rows: list[FrontRow] = [
        (name, float(f"{one.step_time_s:.6g}"), round(one.peak_memory_bytes / GIB, 2)) for name, one in points
    ]
    fits = [one.fits for _, one in points]
    front = pareto([row for row, fit in zip(rows, fits, strict=True) if fit])
    traces = _plans(rows, fits)
    capacity, times = prediction.memory_capacity_bytes / GIB, [row[1] for row in rows]
    traces += [
        {"type": "scatter", "mode": "lines", "name": "Pareto front", "x": [row[1] for row in front],
         "y": [row[2] for row in front]},
        {"type": "scatter", "mode": "lines", "name": "capacity", "x": [min(times), max(times)], "y": [capacity] * 2,
         "line": {"dash": "dash"}},
    ]  # fmt: skip
    return Plot(
        "front",
        f"{len(rows)} plans by step time and memory; {sum(fits)} fit into {capacity:.1f} GiB, and {len(front)} of "
        "these lie on the front.",
        traces,
        {"xaxis": axis("seconds a step"), "yaxis": axis("GiB a device", rangemode="tozero"), "height": 420,
         "showlegend": True, "legend": LEGEND},
        Table(("plan", "seconds a step", "GiB a device", "on the front"), [
            (*row, "yes" if row in front else "no" if fit else "does not fit")
            for row, fit in zip(rows, fits, strict=True)
        ]),
    )  # fmt: skip


def _plans(rows: Sequence[FrontRow], fits: Sequence[bool]) -> list[dict[str, Any]]:
    """Markers of the plans, this plan above the others."""
    others = list(zip(rows[1:], fits[1:], strict=True))
    groups = (
        ("one step away", [row for row, fit in others if fit], "circle"),
        ("does not fit", [row for row, fit in others if not fit], "x"),
        ("this plan", rows[:1], "star"),
    )
    return [
        {"type": "scatter", "mode": "markers", "name": name, "text": [row[0] for row in own],
         "x": [row[1] for row in own], "y": [row[2] for row in own],
         "marker": {"size": 14 if symbol == "star" else 11, "symbol": symbol}}
        for name, own, symbol in groups if own
    ]  # fmt: skip


def pareto(rows: Sequence[FrontRow]) -> list[FrontRow]:
    """The rows that no other one is better than in time and as good in memory, or the other way, fastest first."""
    front = [
        row for row in rows if not any(o[1] <= row[1] and o[2] <= row[2] and o[1:] != row[1:] for o in rows)
    ]
    return sorted(front, key=lambda row: row[1])


def scaling_plot(points: Sequence[tuple[int, Prediction]], own: int) -> Plot:
    """Tokens a second with fewer and more replicas of this plan, the batch in proportion; `own` is its number of
    devices."""
    devices = [count for count, _ in points]
    rates = [float(f"{one.tokens_per_s:.6g}") for _, one in points]
    ideal = [rates[0] / devices[0] * count for count in devices]
    shares = [rate / best for rate, best in zip(rates, ideal, strict=True)]
    mine = devices.index(own)
    return Plot(
        "scaling",
        f"Tokens a second from {devices[0]:,} to {devices[-1]:,} devices; the efficiency at the end is "
        f"{shares[-1] * 100:.0f} %.",
        [
            {"type": "scatter", "mode": "lines+markers", "name": "replicas", "x": devices, "y": rates},
            {"type": "scatter", "mode": "lines", "name": "ideal", "x": devices, "y": ideal, "line": {"dash": "dash"}},
            {"type": "scatter", "mode": "markers", "name": "this plan", "x": [own], "y": [rates[mine]],
             "marker": {"size": 13, "symbol": "star"}},
        ],
        {"xaxis": axis("devices", type="log"), "yaxis": axis("tokens a second", type="log"), "height": 400,
         "showlegend": True, "legend": LEGEND},
        Table(("devices", "tokens a second", "efficiency"), [
            (count, rate, f"{share * 100:.1f} %") for count, rate, share in zip(devices, rates, shares, strict=True)
        ]),
    )  # fmt: skip
