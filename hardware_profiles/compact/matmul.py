"""The matrix-multiply surfaces: choice of the grid and of the quantization."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import log2

import numpy as np
import pandas as pd

from towtank.hardware_profiles.compact.tables import kriged, short
from towtank.hardware_profiles.curves.loading import DeviceFigures
from towtank.hardware_profiles.curves.matmul import ELEMENT_BYTES, MatmulCurve, RooflineModel

ROWS = [128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192, 16384, 32768]
"""Grid of m. The other measured m (160, 1280, 2560, 4097, ...) choose the quantization."""

COUNTED_FLOP = 1e9  # the quantization is chosen from here up; below, the launch floor decides
TILE_ROWS = (1, 64, 128)
WAVE_EXPONENTS = (0.0, 0.25, 0.5)
TRIED_ROWS = 3000

Axes = tuple[list[int], list[int], list[int]]


@dataclass(frozen=True)
class MatmulSurface:
    """A chosen surface; `gaps` are grid points that were not measured or are left out."""

    model: RooflineModel
    axes: Axes
    rates: list[float]
    gaps: int


def build(frame: pd.DataFrame, precision: str, figures: DeviceFigures) -> MatmulSurface:
    """Make the surface of one device and precision from its rows of the table, left-out shapes removed."""
    model = RooflineModel(
        reference_peak_flop_per_s=figures.peak_flop_per_s(precision),
        memory_bytes_per_s=figures.memory_bytes_per_s,
        multiprocessors=figures.multiprocessors,
        element_bytes=ELEMENT_BYTES[precision],
        launch_floor_s=float(short(0.9e-6 * frame.latency_us.min(), 2)),
        tile_rows=1,
        wave_exponent=0.0,
    )
    axes = (sorted({*ROWS} & set(frame.m)), sorted(set(frame.n)), sorted(set(frame.k)))
    between = frame[~frame.m.isin(ROWS) & (2.0 * frame.m * frame.n * frame.k >= COUNTED_FLOP)]
    between = between.sample(min(TRIED_ROWS, len(between)), random_state=1)
    return _choose(precision, model, axes, frame[frame.m.isin(ROWS)], between)


def _choose(
    precision: str, model: RooflineModel, axes: Axes, on_grid: pd.DataFrame, between: pd.DataFrame
) -> MatmulSurface:
    """The tile rows and wave exponent of least mean error; aligned and other rows weigh the same."""
    aligned = between.m % 64 == 0

    def tried(tile_rows: int, exponent: float) -> tuple[float, MatmulSurface]:
        trial = replace(model, tile_rows=tile_rows, wave_exponent=exponent)
        rates, gaps = _rates(on_grid, axes, trial)
        curve = MatmulCurve.from_rates(precision, trial, axes, rates)
        cost = _mean_error(curve, between[aligned]) + _mean_error(curve, between[~aligned])
        return cost, MatmulSurface(trial, axes, rates, gaps)

    options = [tried(*choice) for choice in product(TILE_ROWS, WAVE_EXPONENTS)]
    return min(options, key=lambda option: option[0])[1]


def _rates(on_grid: pd.DataFrame, axes: Axes, model: RooflineModel) -> tuple[list[float], int]:
    """Achieved FLOP/s on the grid, rounded as they are shipped; gaps by kriging of time over roofline, m by m.

    A left-out (n, k) is missing at every m, so that other m have nothing to say about it.
    """
    residual = np.full([len(axis) for axis in axes], np.nan)
    place = [{size: i for i, size in enumerate(axis)} for axis in axes]
    columns = (on_grid.m.tolist(), on_grid.n.tolist(), on_grid.k.tolist(), on_grid.latency_us.tolist())
    for m, n, k, microseconds in zip(*columns, strict=True):
        residual[place[0][m], place[1][n], place[2][k]] = log2(microseconds * 1e-6 / model.time_s(m, n, k))
    gaps = int(np.isnan(residual).sum())
    complete = np.stack([kriged(plane, (axes[1], axes[2])) for plane in residual])
    return [
        _rate((m, n, k), float(slowdown), model)
        for (m, n, k), slowdown in zip(product(*axes), complete.ravel(), strict=True)
    ], gaps


def _rate(shape: Sequence[int], slowdown: float, model: RooflineModel) -> float:
    m, n, k = shape
    rate = 2.0 * m * n * k / (model.time_s(m, n, k) * 2.0**slowdown)
    # a gap may be predicted above the peak
    return float(short(min(rate, model.reference_peak_flop_per_s) / 1e12)) * 1e12


def _mean_error(curve: MatmulCurve, frame: pd.DataFrame) -> float:
    shapes = zip(frame.m.tolist(), frame.n.tolist(), frame.k.tolist(), strict=True)
    predicted = np.array([curve.latency_s(*shape) * 1e6 for shape in shapes])
    return float(np.abs(predicted / frame.latency_us.to_numpy() - 1.0).mean())
