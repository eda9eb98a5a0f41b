"""Reading the full tables, and writing the compact ones."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.float64]

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
    """Values on the product of `axes`, each gap filled along an axis, the first axis tried first.

    Between two known neighbours the log is linear in the log of the coordinate; outside of them the value of the
    nearest is kept. Returns the values, last axis fastest, and the number of gaps.
    """
    table = np.full([len(axis) for axis in axes], np.nan)
    for place in np.ndindex(*table.shape):
        table[place] = cells.get(tuple(axis[i] for axis, i in zip(axes, place, strict=True)), np.nan)
    gaps = int(np.isnan(table).sum())
    for dimension, axis in (*enumerate(axes), *enumerate(axes)):  # twice: a filled cell may fill another axis
        coordinates = np.log2(np.array(axis, dtype=float))
        lines = np.moveaxis(table, dimension, -1)
        for place in np.ndindex(*lines.shape[:-1]):
            known = ~np.isnan(lines[place])
            if known.any() and not known.all():
                logs = np.interp(coordinates, coordinates[known], np.log2(lines[place][known]))
                lines[place] = np.where(known, lines[place], 2.0**logs)
    if np.isnan(table).any():
        raise ValueError("a gap of the table has no neighbour along any axis")
    return [float(x) for x in table.ravel()], gaps


def kriged(plane: Array, axes: tuple[Sequence[int], Sequence[int]], reach: float = 3.0) -> Array:
    """`plane` with its NaN predicted from all known cells: simple kriging about their mean.

    The covariance falls as exp(-(|d log2 x| + |d log2 y|) / reach): a kink of one row or one column (wave
    quantization in n, a change of kernel in k) is carried along it.
    """
    places = np.stack(np.meshgrid(*(np.log2(np.array(axis, float)) for axis in axes), indexing="ij"), axis=-1)
    known = ~np.isnan(plane)

    def covariance(a: Array, b: Array) -> Array:
        distance: Array = np.abs(a[:, None, :] - b[None, :, :]).sum(axis=-1)
        return np.exp(-distance / reach)

    mean = plane[known].mean()
    noise = 1e-3 * np.eye(int(known.sum()))  # 3 % of the spread: repeats of a measurement differ
    weights = np.linalg.solve(covariance(places[known], places[known]) + noise, plane[known] - mean)
    complete: Array = plane.copy()
    complete[~known] = mean + covariance(places[~known], places[known]) @ weights
    return complete
