"""What all plots of a page share: axes, the legend, figures with as many digits as a plot shows."""

from textwrap import wrap
from typing import Any

import numpy as np

GIB = 2.0**30
LEGEND = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0}


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis as plotly reads it."""
    return {"title": {"text": title}, "automargin": True, **more}


def on_lines(name: str) -> str:
    """A long name of a bar on several lines: on a phone it would leave no room for the bars."""
    return "<br>".join(wrap(name, 24))


def rounded(values: np.ndarray) -> list[float]:
    """Six digits of each: more would only make the page larger."""
    return [float(f"{value:.6g}") for value in values]
