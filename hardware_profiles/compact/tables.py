"""Reading the full tables, and writing the compact ones."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

PRECISIONS = {"bfloat16": "bf16", "fp8": "fp8", "fp8_block": "fp8-block", "nvfp4": "nvfp4"}
"""Names of the tables and ours."""

MEASUREMENTS = Path(__file__).resolve().parent.parent / "measurements"

ORIGIN = (
    "Measured by ai-dynamo/aiconfigurator, commit 095f58a51, Apache-2.0; the fastest of the frameworks that "
    "measured a shape. Reduced by towtank.hardware_profiles.compact; see sources.yaml."
)

SAMPLE_SEED = 20240817  # any fixed number: the shipped sample must not change from build to build


def read(tables: Path, name: str, precision_column: str) -> pd.DataFrame:
    """Read one table, with our names of precisions; rows of other precisions are left out."""
    frame = pd.read_csv(tables / f"{name}_measured.csv.gz")
    frame["precision"] = frame[precision_column].map(PRECISIONS)
    return frame[frame.precision.notna()].copy()


def groups(frame: pd.DataFrame, column: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Parts of `frame` by the text of one column, in order."""
    for name, part in frame.groupby(column):
        yield str(name), part


def write(
    path: Path, comments: Sequence[str], header: Sequence[object], rows: Iterable[Sequence[object]]
) -> None:
    """Write a CSV with `#` comments first."""
    lines = [f"# {comment}" for comment in comments]
    lines.append(",".join(map(str, header)))
    lines.extend(",".join(map(str, row)) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def short(value: float, digits: int = 3) -> str:
    """`value` with some significant digits, without an exponent or trailing zeros."""
    text = np.format_float_positional(value, precision=digits, fractional=False, trim="-")
    return str(text)


def filled(cells: Mapping[tuple[Any, ...], float], axes: Sequence[Sequence[Any]]) -> tuple[list[float], int]:
    """Values on the product of `axes`, each gap filled from the nearest smaller (else larger) neighbour.

    The first axis is tried first. Returns the values, last axis fastest, and the number of gaps.
    """
    table = np.full([len(axis) for axis in axes], np.nan)
    for place in np.ndindex(*table.shape):
        table[place] = cells.get(tuple(axis[i] for axis, i in zip(axes, place, strict=True)), np.nan)
    gaps = int(np.isnan(table).sum())
    for dimension in (*range(table.ndim), *range(table.ndim)):  # twice: a filled cell may fill another axis
        lines = np.moveaxis(table, dimension, 0)
        for view in (lines, lines[::-1]):
            for i in range(1, len(view)):
                view[i] = np.where(np.isnan(view[i]), view[i - 1], view[i])
    if np.isnan(table).any():
        raise ValueError("a gap of the table has no neighbour along any axis")
    return [float(x) for x in table.ravel()], gaps


def errors(predicted: Sequence[float], measured: Sequence[float]) -> tuple[int, float, float]:
    """Number of rows, median and mean of |predicted / measured - 1|."""
    if not measured:
        return 0, float("nan"), float("nan")
    relative = np.abs(np.asarray(predicted) / np.asarray(measured) - 1.0)
    return len(measured), float(np.median(relative)), float(relative.mean())
