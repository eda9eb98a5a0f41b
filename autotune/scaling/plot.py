"""A scaling study as one SVG file that needs nothing beside it."""

import math
from collections.abc import Sequence
from html import escape

from towtank.autotune.scaling.study import TunedPoint, efficiencies
from towtank.validation.plots import FAINT, FONT, INK, Axis, Frame, Series, axes, decades, dots, drawing, line

_COLOUR = "#0969da"
_MOST_TICKS = 8


def scale_plot(points: Sequence[TunedPoint], title: str) -> str:
    """Model PFLOP/s of all devices beside the ideal line, and efficiency, over the number of devices.

    Points without a plan are left out; the ideal line goes through the first that has one. FLOP and not tokens, so
    that the line is straight where the model grows too.
    """
    shown = [
        (each, efficiency)
        for each, efficiency in zip(points, efficiencies(points), strict=True)
        if each.found is not None and efficiency is not None
    ]
    counts = [each.point.devices for each, _ in shown]
    parts = [f"<text x='64' y='22' font-size='15' fill='{INK}' {FONT}>{escape(title)}</text>"]
    if not shown:
        parts.append(f"<text x='64' y='60' font-size='13' fill='{FAINT}' {FONT}>no point has a plan</text>")
        return drawing(910, 470, title, *parts)
    devices = _devices_axis(counts)
    rates = [each.found.flop_per_s_per_device * each.point.devices / 1e15 for each, _ in shown if each.found]
    ideal = [(count, rates[0] * count / counts[0]) for count in counts]
    frame = Frame(64, 62, 370, 330, devices, decades([*rates, *(rate for _, rate in ideal)]))
    parts += [axes(frame, "devices", "model PFLOP/s of all devices (grey: at the rate of the first point)")]
    parts.append(line(frame, ideal, FAINT, dash="4 3"))
    parts += _curve(frame, "rate", list(zip(counts, rates, strict=True)), "{:,.4g} PFLOP/s")
    top = max(1.0, *(efficiency for _, efficiency in shown))
    high = math.ceil(top * 5) / 5
    ticks = tuple(tick / 5 for tick in range(round(high * 5) + 1))
    percent = Axis(0.0, high, ticks, log=False, text=lambda value: f"{100 * value:.0f} %")
    frame = Frame(514, 62, 370, 330, devices, percent)
    parts.append(axes(frame, "devices", "efficiency: FLOP/s of a device relative to the first point"))
    parts.append(line(frame, [(devices.low, 1.0), (devices.high, 1.0)], FAINT, dash="4 3"))
    parts += _curve(
        frame, "efficiency", [(each.point.devices, efficiency) for each, efficiency in shown], "{:.1%}"
    )
    return drawing(910, 450, title, *parts)


def _curve(frame: Frame, name: str, points: list[tuple[float, float]], label: str) -> list[str]:
    labels = tuple(f"{x:,.0f} devices: {label.format(y)}" for x, y in points)
    marks = dots(frame, Series(name, _COLOUR, tuple(points), labels, radius=3.5))
    return [line(frame, points, _COLOUR), marks] if len(points) > 1 else [marks]


def _devices_axis(counts: Sequence[int]) -> Axis:
    """A logarithmic axis with ticks at powers of two."""
    low, high = math.floor(math.log2(min(counts))), math.ceil(math.log2(max(counts)))
    high = max(high, low + 1)
    every = max(1, -(-(high - low) // _MOST_TICKS))
    ticks = tuple(2.0**power for power in range(low, high + 1, every))
    return Axis(2.0**low, 2.0**high, ticks, text=lambda value: f"{value:,.0f}")
