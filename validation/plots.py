"""Plots as SVG text, with nothing but arithmetic."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

FONT = "font-family='system-ui,-apple-system,Segoe UI,Helvetica,Arial,sans-serif'"
INK, FAINT, GRID = "#24292f", "#6e7781", "#e4e7eb"


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one colour; `labels` are shown when a pointer rests on them."""

    name: str
    colour: str
    points: tuple[tuple[float, float], ...]
    labels: tuple[str, ...] = ()
    radius: float = 2.6


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its range, whether it is logarithmic, and the values that carry a tick."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = True
    text: Callable[[float], str] = lambda value: f"{value:g}"

    def place(self, value: float) -> float:
        """Where a value lies, 0 to 1; what is outside of the range lies on its edge."""
        value = min(max(value, self.low), self.high)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class Frame:
    """A rectangle of the drawing in pixels, with its axes."""

    left: float
    top: float
    width: float
    height: float
    x: Axis
    y: Axis

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point."""
        return self.left + self.x.place(x) * self.width, self.top + (1 - self.y.place(y)) * self.height


def decades(values: Sequence[float]) -> Axis:
    """A logarithmic axis over whole decades."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    return Axis(10.0**low, 10.0**high, tuple(10.0**power for power in range(low, high + 1)), text=_decimal)


def _decimal(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def axes(frame: Frame, x_name: str, y_name: str, size: int = 12) -> str:
    """Grid, ticks and names of the axes."""
    parts = []
    bottom = frame.top + frame.height
    for tick in frame.x.ticks:
        x, _ = frame.at(tick, frame.y.low)
        parts.append(f"<path d='M{x:.1f} {frame.top:.1f}V{bottom:.1f}' stroke='{GRID}'/>")
        parts.append(_text(x, bottom + size + 4, frame.x.text(tick), size, "middle", FAINT))
    for tick in frame.y.ticks:
        _, y = frame.at(frame.x.low, tick)
        parts.append(f"<path d='M{frame.left:.1f} {y:.1f}H{frame.left + frame.width:.1f}' stroke='{GRID}'/>")
        parts.append(_text(frame.left - 6, y + size / 3, frame.y.text(tick), size, "end", FAINT))
    middle = frame.left + frame.width / 2
    parts.append(_text(middle, bottom + 2 * size + 12, x_name, size, "middle", INK))
    if y_name:
        parts.append(_text(frame.left - 6, frame.top - size + 2, y_name, size, "start", INK))
    return "".join(parts)


def _text(x: float, y: float, text: str, size: float, anchor: str, colour: str) -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size:g}' text-anchor='{anchor}' fill='{colour}' {FONT}>"
        f"{escape(text)}</text>"
    )


def dots(frame: Frame, series: Series) -> str:
    """Points as one path, or as circles with labels where there are some."""
    places = [frame.at(*point) for point in series.points]
    if not series.labels:
        path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in places)
        return (
            f"<path d='{path}' stroke='{series.colour}' stroke-width='{2 * series.radius:g}' stroke-linecap='round' "
            f"stroke-opacity='0.6' fill='none'/>"
        )
    circles = (
        f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{series.radius:g}'><title>{escape(label)}</title></circle>"
        for (x, y), label in zip(places, series.labels, strict=True)
    )
    return f"<g fill='{series.colour}' fill-opacity='0.6'>{''.join(circles)}</g>"


def line(frame: Frame, points: Sequence[tuple[float, float]], colour: str, dash: str = "") -> str:
    """A line through points."""
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in (frame.at(*point) for point in points))
    dashes = f" stroke-dasharray='{dash}'" if dash else ""
    return f"<path d='M{path}' stroke='{colour}' fill='none'{dashes}/>"


def legend(entries: Sequence[tuple[str, str]], left: float, top: float, size: int = 12) -> str:
    """Names beside dots of their colour, one below the other."""
    parts = []
    for number, (name, colour) in enumerate(entries):
        y = top + number * (size + 8)
        parts.append(f"<circle cx='{left:.1f}' cy='{y:.1f}' r='4.5' fill='{colour}'/>")
        parts.append(_text(left + 12, y + size / 3, name, size, "start", INK))
    return "".join(parts)


def drawing(width: float, height: float, title: str, *parts: str) -> str:
    """A whole drawing on white ground."""
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:g} {height:g}' role='img' "
        f"aria-label='{escape(title, quote=True)}'><title>{escape(title)}</title>"
        f"<rect width='{width:g}' height='{height:g}' fill='#ffffff'/>{''.join(parts)}</svg>"
    )


def predicted_against_measured(series: Sequence[Series], title: str) -> str:
    """Log-log scatter with the line of equality and a band of 10 %; x is measured, y predicted, in seconds."""
    values = [value for one in series for point in one.points for value in point]
    axis = decades(values or [0.1, 10.0])
    frame = Frame(64, 34, 560, 480, axis, axis)
    low, high = axis.low, axis.high
    factor = 1.1
    band = [
        frame.at(low, low * factor),
        frame.at(high / factor, high),
        frame.at(high, high),
        frame.at(high, high / factor),
    ]
    band += [frame.at(low * factor, low), frame.at(low, low)]
    shape = "L".join(f"{x:.1f} {y:.1f}" for x, y in band)
    return drawing(
        820,
        572,
        title,
        axes(frame, "measured step time in seconds", "predicted, in seconds"),
        f"<path d='M{shape}Z' fill='#c3ccd6' fill-opacity='0.7'/>",
        line(frame, [(low, low), (high, high)], FAINT),
        *(dots(frame, one) for one in series),
        legend([(f"{one.name} ({len(one.points)})", one.colour) for one in reversed(series)], 648, 46),
        _text(638, 500, "band: within 10 %", 12, "start", FAINT),
    )


def small_multiples(
    plots: Mapping[str, tuple[Axis, Sequence[Series]]],
    trends: Mapping[str, Sequence[tuple[float, float]]],
    y: Axis,
    title: str,
) -> str:
    """Plots of one quantity against several others, three in a row; `trends` are lines through them by name."""
    columns, wide, high = 3, 300, 250
    parts = []
    for number, (name, (x, series)) in enumerate(plots.items()):
        frame = Frame(52 + number % columns * wide, 28 + number // columns * high, wide - 70, high - 80, x, y)
        parts.append(axes(frame, name, "", 11))
        parts.append(
            line(frame, [(x.low, 0.0 if not y.log else 1.0), (x.high, 0.0 if not y.log else 1.0)], FAINT)
        )
        parts += [dots(frame, one) for one in series]
        if len(trends[name]) > 1:
            parts.append(line(frame, trends[name], INK))
    rows = -(-len(plots) // columns)
    return drawing(columns * wide, rows * high + 10, title, *parts)
