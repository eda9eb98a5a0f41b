"""Curves of bus bandwidth and of time over message size, as one SVG file that needs nothing beside it."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from towtank.hardware_profiles.units import format_bytes
from towtank.validation.plots import (
    FONT,
    INK,
    Axis,
    Frame,
    Series,
    axes,
    decades,
    dots,
    drawing,
    legend,
    line,
)

Points = Sequence[tuple[float, float]]
COLOURS = ("#0969da", "#cf222e", "#1a7f37", "#8250df")
_TICKS = 7


def sizes_axis(sizes: Sequence[float]) -> Axis:
    """A logarithmic axis over message sizes in bytes, with ticks at powers of two."""
    low, high = math.floor(math.log2(min(sizes))), math.ceil(math.log2(max(sizes)))
    high = max(high, low + 1)
    every = max(1, -(-(high - low) // _TICKS))
    ticks = tuple(2.0**power for power in range(low, high + 1, every))
    return Axis(2.0**low, 2.0**high, ticks, text=format_bytes)


def size_curves(
    bandwidth_gb_s: Mapping[str, Points],
    time_us: Mapping[str, Points],
    measured: Sequence[str],
    title: str,
) -> str:
    """Two plots side by side: bus bandwidth in GB/s and time in us over message size in bytes.

    Curves by name; those in `measured` are dots, the others lines.
    """
    names = list(bandwidth_gb_s)
    parts = [f"<text x='64' y='22' font-size='15' fill='{INK}' {FONT}>{escape(title)}</text>"]
    for left, curves, label in (
        (64.0, bandwidth_gb_s, "bus bandwidth in GB/s"),
        (514.0, time_us, "time in us"),
    ):
        sizes = [x for points in curves.values() for x, _ in points]
        heights = [y for points in curves.values() for _, y in points if y > 0]
        frame = Frame(left, 62, 370, 330, sizes_axis(sizes), decades(heights or [1.0]))
        parts.append(axes(frame, "message", label))
        for number, name in enumerate(names):
            colour = COLOURS[number % len(COLOURS)]
            shown = tuple((x, y) for x, y in curves[name] if y > 0)
            labels = tuple(f"{name}, {format_bytes(x)}: {y:.4g}" for x, y in shown)
            if name not in measured and len(shown) > 1:
                parts.append(line(frame, shown, colour))
            parts.append(dots(frame, Series(name, colour, shown, labels)))
    entries = [(name, COLOURS[number % len(COLOURS)]) for number, name in enumerate(names)]
    return drawing(910, 470 + 20 * len(names), title, *parts, legend(entries, 72, 462))
