"""The matrix-multiply surfaces: choice of the grid, of the quantization, and the held-out errors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import pandas as pd

from towtank.hardware_profiles.compact.tables import errors, filled, short
from towtank.hardware_profiles.curves.loading import DeviceFigures
from towtank.hardware_profiles.curves.matmul import ELEMENT_BYTES, MatmulCurve, RooflineModel

ROWS = [128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192, 16384, 32768]
"""Grid of m. Every other measured m (160, 1280, 2560, 4097, ...) is held out."""

COARSE_SIZES = {512, 1536, 3072, 5120, 7168, 10240, 16384}
"""n and k left out of a second, coarser grid that judges interpolation in n and k."""

COUNTED_FLOP = 1e9  # errors are judged from here up; below, the launch floor decides
TILE_ROWS = (1, 64, 128)
WAVE_EXPONENTS = (0.0, 0.25, 0.5)


@dataclass(frozen=True)
class MatmulSurface:
    """A chosen surface and what it was judged by."""

    curve: MatmulCurve
    rates: list[float]
    axes: tuple[list[int], list[int], list[int]]
    gaps: int
    aligned: tuple[int, float, float]
    off_tile: tuple[int, float, float]
    coarse: tuple[int, float, float]


def build(frame: pd.DataFrame, precision: str, figures: DeviceFigures) -> MatmulSurface:
    """Make the surface of one device and precision from its rows of the table."""
    model = RooflineModel(
        reference_peak_flop_per_s=figures.peak_flop_per_s(precision),
        memory_bytes_per_s=figures.memory_bytes_per_s,
        multiprocessors=figures.multiprocessors,
        element_bytes=ELEMENT_BYTES[precision],
        launch_floor_s=float(short(0.9e-6 * frame.latency_us.min(), 2)),
        tile_rows=1,
        wave_exponent=0.0,
    )
    axes = (ROWS, sorted(set(frame.n)), sorted(set(frame.k)))
    rates, gaps = _rates(frame, axes)
    held_out = frame[~frame.m.isin(ROWS) & (2.0 * frame.m * frame.n * frame.k >= COUNTED_FLOP)]
    model = _choose(precision, model, axes, rates, held_out.sample(min(3000, len(held_out)), random_state=1))
    curve = MatmulCurve.from_rates(precision, model, axes, rates)
    return MatmulSurface(
        curve=curve,
        rates=rates,
        axes=axes,
        gaps=gaps,
        aligned=_judge(curve, held_out[held_out.m % 64 == 0]),
        off_tile=_judge(curve, held_out[held_out.m % 64 != 0]),
        coarse=_judge_coarse(precision, model, frame),
    )


def _rates(frame: pd.DataFrame, axes: Sequence[list[int]]) -> tuple[list[float], int]:
    """Achieved FLOP/s on the grid, rounded as they are shipped."""
    on_grid = frame[frame.m.isin(axes[0]) & frame.n.isin(axes[1]) & frame.k.isin(axes[2])]
    rate = 2.0 * on_grid.m * on_grid.n * on_grid.k / on_grid.latency_us / 1e6
    cells = {
        (int(m), int(n), int(k)): float(short(r)) * 1e12
        for m, n, k, r in zip(on_grid.m, on_grid.n, on_grid.k, rate, strict=True)
    }
    return filled(cells, axes)


def _choose(
    precision: str,
    model: RooflineModel,
    axes: tuple[list[int], list[int], list[int]],
    rates: list[float],
    held_out: pd.DataFrame,
) -> RooflineModel:
    """The tile rows and wave exponent of least mean error; aligned and other rows weigh the same."""

    def cost(tile_rows: int, exponent: float) -> float:
        trial = replace(model, tile_rows=tile_rows, wave_exponent=exponent)
        curve = MatmulCurve.from_rates(precision, trial, axes, rates)
        aligned = held_out.m % 64 == 0
        return _judge(curve, held_out[aligned])[2] + _judge(curve, held_out[~aligned])[2]

    tile_rows, exponent = min(product(TILE_ROWS, WAVE_EXPONENTS), key=lambda choice: cost(*choice))
    return replace(model, tile_rows=tile_rows, wave_exponent=exponent)


def _judge(curve: MatmulCurve, frame: pd.DataFrame) -> tuple[int, float, float]:
    shapes = zip(frame.m.tolist(), frame.n.tolist(), frame.k.tolist(), strict=True)
    return errors([curve.latency_s(*shape) * 1e6 for shape in shapes], frame.latency_us.tolist())


def _judge_coarse(precision: str, model: RooflineModel, frame: pd.DataFrame) -> tuple[int, float, float]:
    """Error at the n and k that a coarser grid leaves out, at rows of the grid."""
    axes = (ROWS, sorted(set(frame.n) - COARSE_SIZES), sorted(set(frame.k) - COARSE_SIZES))
    curve = MatmulCurve.from_rates(precision, model, axes, _rates(frame, axes)[0])
    left_out = frame.n.isin(COARSE_SIZES) | frame.k.isin(COARSE_SIZES)
    large = 2.0 * frame.m * frame.n * frame.k >= COUNTED_FLOP
    return _judge(curve, frame[left_out & large & frame.m.isin(ROWS)])
