"""Exact match over the times that documents were seen, as one SVG file that needs nothing beside it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from towtank.validation.plots import FONT, INK, Axis, Frame, Series, axes, dots, drawing, legend, line

if TYPE_CHECKING:
    from towtank.executor.memorize import Outcome

_COLOURS: Final = ("#cf222e", "#0969da", "#1a7f37", "#8250df")
_TICKS: Final = tuple(tick / 5 for tick in range(6))


def memory_plot(outcomes: Sequence["Outcome"], answer: int) -> str:
    """A line for each loss.

    Args:
        outcomes: at least one, with the same buckets.
        answer: last tokens that must come out.
    """
    title = f"Documents whose last {answer} tokens come out exactly"
    times = sorted(bucket.times for bucket in outcomes[0].buckets)
    seen = Axis(0.0, float(max(times)), tuple(map(float, times)), log=False)
    share = Axis(0.0, 1.0, _TICKS, log=False, text=lambda value: f"{100 * value:.0f} %")
    frame = Frame(64, 62, 440, 300, seen, share)
    parts = [f"<text x='64' y='22' font-size='15' fill='{INK}' {FONT}>{title}</text>"]
    parts.append(axes(frame, "times a document was seen", "exact match"))
    entries = []
    for number, outcome in enumerate(outcomes):
        colour = _COLOURS[number % len(_COLOURS)]
        buckets = sorted(outcome.buckets, key=lambda bucket: bucket.times)
        points = [(float(one.times), one.exact / one.documents) for one in buckets]
        name = "plain loss" if outcome.goldfish is None else f"goldfish, k = {outcome.goldfish.k}"
        labels = tuple(f"{name}, seen {one.times} times: {one.exact} of {one.documents}" for one in buckets)
        parts += [line(frame, points, colour), dots(frame, Series(name, colour, tuple(points), labels, 4.0))]
        entries.append((name, colour))
    return drawing(690, 430, title, *parts, legend(entries, 530, 76))
