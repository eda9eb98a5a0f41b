"""Matrix multiplies: a roofline with a launch floor, times a measured residual on a grid of shapes."""

from dataclasses import dataclass
from math import inf, log2

from towtank.hardware_profiles.curves.grid import Grid

OUTPUT_BYTES = 2  # every measured kernel writes bf16

ELEMENT_BYTES = {
    "bf16": 2.0,
    "fp8": 1.0,
    "fp8-block": 1.0 + 4 / 128,  # one fp32 scale per 128 elements
    "nvfp4": 0.5 + 1 / 16,  # one fp8 scale per 16 elements
}
"""Bytes of one element of an input with its scales, by precision."""

# Output tiles that the libraries choose from, with the rate of each over that of the largest one.
# Smaller tiles read more operand bytes per FLOP; the rates are round figures, the grid absorbs their error.
_TILES = ((128, 256, 1.0), (256, 128, 1.0), (128, 128, 0.9), (64, 256, 0.8), (64, 128, 0.7), (128, 64, 0.7))

SMALLEST_MEASURED_ROWS = 128
FEW_ROWS = 256  # up to here libraries choose tiles of 64 rows rather than compute empty ones


@dataclass(frozen=True, slots=True)
class RooflineModel:
    """Time of a matrix multiply from first principles, which the measured residual then corrects."""

    reference_peak_flop_per_s: float
    memory_bytes_per_s: float
    multiprocessors: int
    element_bytes: float
    launch_floor_s: float
    tile_rows: int
    """Rows are computed in multiples of this: 1025 rows cost what 1024 + tile_rows do."""
    wave_exponent: float
    """How strongly the last, partly filled wave of tiles shows: 0 not at all, 1 fully."""

    def rows_computed(self, m: int) -> int:
        """Rows that the kernel computes for `m` rows: at least 128, in whole tiles (of 64 for few rows)."""
        tile = self.tile_rows if m > FEW_ROWS else min(self.tile_rows, 64)
        return max(-(-m // tile) * tile, SMALLEST_MEASURED_ROWS)

    def time_s(self, m: int, n: int, k: int) -> float:
        """Seconds: max(FLOP over peak, bytes over bandwidth) + launch floor, times wave quantization."""
        rows = self.rows_computed(m)
        compute = 2.0 * rows * n * k / self.reference_peak_flop_per_s
        moved = self.element_bytes * k * (rows + n) + OUTPUT_BYTES * rows * n
        time = max(compute, moved / self.memory_bytes_per_s) + self.launch_floor_s
        if self.wave_exponent > 0.0:
            time *= self._quantization(rows, n) ** self.wave_exponent
        return time

    def _quantization(self, rows: int, n: int) -> float:
        """Work of whole waves of whole tiles over the work asked for, with the best of the tiles."""
        best = inf
        for tile_m, tile_n, rate in _TILES:
            waves = -(-(-(-rows // tile_m) * -(-n // tile_n)) // self.multiprocessors)
            best = min(best, waves * tile_m * tile_n / rate)
        return best * self.multiprocessors / (rows * n)


@dataclass(frozen=True, slots=True)
class MatmulCurve:
    """Measured matrix multiplies of one device in one precision, forward layout of a Linear.

    m tokens, n outputs, k inputs: [m, k] times the transpose of [n, k]. Between the measured shapes the
    log2 of (measured over roofline time) is interpolated linearly in log2 of m, n and k. Below 128 rows
    the time stays that of 128 rows, so the efficiency is linear in m. Beyond the grid the residual of the
    edge is kept and the roofline grows.
    """

    precision: str
    model: RooflineModel
    residual: Grid

    @classmethod
    def from_rates(
        cls,
        precision: str,
        model: RooflineModel,
        axes: tuple[list[int], list[int], list[int]],
        rates: list[float],
    ) -> "MatmulCurve":
        """Make the curve from achieved FLOP/s on the product of the axes m, n, k (k fastest)."""
        shapes = ((m, n, k) for m in axes[0] for n in axes[1] for k in axes[2])
        residuals = [
            log2(2.0 * m * n * k / rate / model.time_s(m, n, k))
            for (m, n, k), rate in zip(shapes, rates, strict=True)
        ]
        return cls(precision, model, Grid.of(axes, residuals))

    @property
    def reference_peak_flop_per_s(self) -> float:
        """Dense peak that `efficiency` divides by."""
        return self.model.reference_peak_flop_per_s

    def latency_s(self, m: int, n: int, k: int) -> float:
        """Predicted kernel time in seconds, launch floor included. Sizes must be positive integers."""
        residual = self.residual.at((self.model.rows_computed(m), n, k))
        time: float = self.model.time_s(m, n, k) * 2.0**residual
        return max(time, 2.0 * m * n * k / self.model.reference_peak_flop_per_s)

    def flop_per_s(self, m: int, n: int, k: int) -> float:
        """Achieved FLOP/s, 2 m n k over `latency_s`."""
        return 2.0 * m * n * k / self.latency_s(m, n, k)

    def efficiency(self, m: int, n: int, k: int) -> float:
        """Achieved FLOP/s over the dense peak of the measured device, in (0, 1]."""
        return self.flop_per_s(m, n, k) / self.model.reference_peak_flop_per_s

    def is_clamped(self, m: int, n: int, k: int) -> bool:
        """Tell whether the shape lies outside of the measured ones: the answer is then an extrapolation."""
        return self.residual.is_clamped((m, n, k))
