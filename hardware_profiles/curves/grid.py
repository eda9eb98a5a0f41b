"""A table on a grid, read between its points: linear in log2 of each coordinate, clamped outside."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log2


@dataclass(frozen=True, slots=True)
class Grid:
    """Values on the product of the axes, flat, the last axis fastest. One reading takes microseconds.

    `log_axes` are log2 of the coordinates, increasing; an axis of one point is constant.
    """

    log_axes: tuple[tuple[float, ...], ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, axes: Sequence[Sequence[float]], values: Sequence[float]) -> "Grid":
        """Make a grid of positive, increasing coordinates; `ValueError` when the sizes do not fit."""
        points = 1
        for axis in axes:
            points *= len(axis)
            if any(a >= b for a, b in pairwise(axis)) or axis[0] <= 0:
                raise ValueError(f"an axis of a grid must be positive and increasing, got {list(axis)}")
        if points != len(values):
            raise ValueError(f"a grid of {points} points got {len(values)} values")
        return cls(tuple(tuple(log2(x) for x in axis) for axis in axes), tuple(values))

    def at(self, coordinates: Sequence[float]) -> float:
        """Value at positive `coordinates`; the nearest edge outside of the grid."""
        if len(self.log_axes) == 3:
            return self._at_three(coordinates)
        base, corners = 0, [(0, 1.0)]
        for axis, coordinate in zip(self.log_axes, coordinates, strict=True):
            size = len(axis)
            lower, step, share = _bracket(axis, log2(coordinate))
            base = base * size + lower
            corners = [
                (offset * size + move, weight * part)
                for offset, weight in corners
                for move, part in ((0, 1.0 - share), (step, share))
            ]
        return sum(weight * self.values[base + offset] for offset, weight in corners)

    def _at_three(self, coordinates: Sequence[float]) -> float:
        """`at` of a grid of three axes, written out: searches read these grids thousands of times."""
        axis_a, axis_b, axis_c = self.log_axes
        a, b, c = coordinates
        lower_a, step_a, share_a = _bracket(axis_a, log2(a))
        lower_b, step_b, share_b = _bracket(axis_b, log2(b))
        lower_c, step_c, share_c = _bracket(axis_c, log2(c))
        values, size_c = self.values, len(axis_c)
        stride_a = len(axis_b) * size_c * step_a
        stride_b = size_c * step_b
        i = (lower_a * len(axis_b) + lower_b) * size_c + lower_c
        j = i + stride_a
        low = values[i] + (values[i + step_c] - values[i]) * share_c
        i += stride_b
        low += (values[i] + (values[i + step_c] - values[i]) * share_c - low) * share_b
        high = values[j] + (values[j + step_c] - values[j]) * share_c
        j += stride_b
        high += (values[j] + (values[j + step_c] - values[j]) * share_c - high) * share_b
        return low + (high - low) * share_a

    def is_clamped(self, coordinates: Sequence[float]) -> bool:
        """Tell whether `coordinates` lie outside of the grid, so that `at` answers with an edge."""
        return any(
            not axis[0] - 1e-9 <= log2(x) <= axis[-1] + 1e-9
            for axis, x in zip(self.log_axes, coordinates, strict=True)
            if len(axis) > 1
        )


def _bracket(axis: tuple[float, ...], x: float) -> tuple[int, int, float]:
    """Index of the grid point at or below `x`, step to the next one (0 at an edge), share of the way."""
    if x <= axis[0]:
        return 0, 0, 0.0
    if x >= axis[-1]:
        return len(axis) - 1, 0, 0.0
    lower = bisect_right(axis, x) - 1
    return lower, 1, (x - axis[lower]) / (axis[lower + 1] - axis[lower])
