"""The expert-layer surfaces: a robust fit of hat functions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.linalg import spsolve

from towtank.hardware_profiles.compact.tables import Array
from towtank.hardware_profiles.curves.experts import roofline_s
from towtank.hardware_profiles.curves.loading import DeviceFigures
from towtank.hardware_profiles.curves.matmul import ELEMENT_BYTES

EXPERTS = [1, 8, 64, 256]
HIDDEN = [2048, 8192]
INTER = [64, 256, 1024, 4096, 16384]
DEGREES = [1, 4, 16, 64, 256]
COPIES = [1, 16, 64, 128, 256, 512, 1024, 4096, 16384]
SIZE_AXES = (EXPERTS, HIDDEN, INTER, COPIES)
"""Grid of experts of the rank, hidden size, intermediate size of the rank, copies per expert."""
DEGREE_AXES = (DEGREES, COPIES)
"""Grid of what is added for the expert degree. It is apart from the sizes because few experts on a rank were measured
at high degrees only: the sum says what they take at degree 1."""

Axes = Sequence[Sequence[int]]

ROUTINGS = {"balanced": "balanced", "power_law_1.2": "power_law"}

# Ungated expert layers (two matrix products): their rates counted with three exceed the peak. 22 of top-k and
# 2688 x 1856 are the shapes of such a family.
UNGATED_TOP_K, UNGATED_SHAPE = 22, (2688, 1856)

ROUGHNESS = 0.1
"""Weight of the penalty on bends, beside rows that weigh 0.1 over their error: best of 0.1 to 10 on four folds of the
fitted layouts."""


@dataclass(frozen=True)
class ExpertSurface:
    """Slowdowns over the roofline by routing: on SIZE_AXES, and a factor on DEGREE_AXES."""

    sizes: dict[str, list[float]]
    degrees: dict[str, list[float]]


def prepare(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with the sizes of one rank and the number of matrices."""
    # A100 with expert parallelism: that kernel computes all experts, and its time hardly falls with the degree.
    idle = (frame.device == "a100-80gb-sxm") & (frame.moe_ep_size > 1)
    frame = frame[~idle].copy()
    ungated = (frame.topk == UNGATED_TOP_K) | (
        (frame.hidden_size == UNGATED_SHAPE[0]) & (frame.inter_size == UNGATED_SHAPE[1])
    )
    # The frameworks that measured A100 ran them with a gate: their times are those of three matrices.
    frame["matrices"] = np.where(ungated & (frame.device != "a100-80gb-sxm"), 2, 3)
    frame["routing"] = frame.distribution.map(ROUTINGS)
    frame["experts"] = frame.num_experts / frame.moe_ep_size
    frame["inter"] = frame.inter_size / frame.moe_tp_size
    frame["copies"] = frame.num_tokens * frame.topk / frame.moe_ep_size
    return frame


def build(frame: pd.DataFrame, precision: str, figures: DeviceFigures) -> ExpertSurface:
    """Fit the surfaces of one device and precision to its prepared rows, left-out layouts removed."""
    surface = ExpertSurface({}, {})
    split = math.prod(map(len, SIZE_AXES))
    for routing in ROUTINGS.values():
        rows = frame[frame.routing == routing]
        measured = rows.latency_us.to_numpy(dtype=float) * 1e-6
        fitted = 2.0 ** _fit(rows, np.log2(measured / _roofline(rows, precision, figures)))
        surface.sizes[routing] = [float(x) for x in fitted[:split]]
        surface.degrees[routing] = [float(x) for x in fitted[split:]]
    return surface


def _roofline(frame: pd.DataFrame, precision: str, figures: DeviceFigures) -> Array:
    tokens = frame.copies * frame.moe_ep_size / frame.topk
    columns = (frame.copies, frame.hidden_size, frame.inter, frame.experts, tokens, frame.matrices)
    device = (figures.peak_flop_per_s(precision), figures.memory_bytes_per_s, ELEMENT_BYTES[precision])
    return np.array([roofline_s(*device, *sizes) for sizes in zip(*columns, strict=True)])


def _design(frame: pd.DataFrame) -> sparse.csr_matrix:
    """Weights of the points of both grids at each row."""
    per_expert = frame.copies / frame.experts
    sizes = _hats([frame.experts, frame.hidden_size, frame.inter, per_expert], SIZE_AXES)
    return sparse.hstack([sizes, _hats([frame.moe_ep_size, per_expert], DEGREE_AXES)]).tocsr()


def _hats(columns: Sequence[pd.Series], axes: Axes) -> sparse.csr_matrix:
    """Weights of the points of one grid at each row: the same multilinear rule that reads the shipped grid."""
    count, shape = len(columns[0]), [len(axis) for axis in axes]
    brackets = []
    for column, axis in zip(columns, axes, strict=True):
        knots = np.log2(np.array(axis, dtype=float))
        x = np.clip(np.log2(column.to_numpy(dtype=float)), knots[0], knots[-1])
        lower = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, len(knots) - 2)
        brackets.append((lower, (x - knots[lower]) / (knots[lower + 1] - knots[lower])))
    weights, places = [], []
    for corner in product((0, 1), repeat=len(axes)):
        share = [upper if side else 1.0 - upper for (_, upper), side in zip(brackets, corner, strict=True)]
        weights.append(np.prod(share, axis=0))
        index = tuple(lower + side for (lower, _), side in zip(brackets, corner, strict=True))
        places.append(np.ravel_multi_index(index, shape))
    rows = np.tile(np.arange(count), len(weights))
    return sparse.csr_matrix(
        (np.concatenate(weights), (rows, np.concatenate(places))), shape=(count, int(np.prod(shape)))
    )


def _fit(frame: pd.DataFrame, target: Array) -> Array:
    """Penalised least absolute deviations by reweighting: outliers of a best-of table are far off."""
    design = _design(frame)
    roughness = [_roughness([len(axis) for axis in axes]) for axes in (SIZE_AXES, DEGREE_AXES)]
    penalty = ROUGHNESS * sparse.block_diag(roughness)
    weight = np.ones(len(target))
    solution: Array = np.zeros(design.shape[1])
    for _ in range(6):
        scaled = design.multiply(weight[:, None]).tocsr()
        solution = spsolve((scaled.T @ design + penalty).tocsc(), scaled.T @ target)
        weight = 0.1 / np.maximum(np.abs(design @ solution - target), 0.02)
    return solution


def _roughness(shape: Sequence[int]) -> sparse.csr_matrix:
    """Quadratic form that is small on surfaces that bend little; it also fills cells without data."""
    places = np.arange(int(np.prod(shape))).reshape(shape)
    total = sparse.csr_matrix((places.size, places.size))
    for axis in range(len(shape)):
        lines = np.moveaxis(places, axis, 0)
        for stencil, strength in (((1.0, -2.0, 1.0), 1.0), ((1.0, -1.0), 0.01)):
            width = len(stencil)
            groups = np.stack([lines[i : len(lines) - width + 1 + i].ravel() for i in range(width)], axis=1)
            rows = np.repeat(np.arange(len(groups)), width)
            difference = sparse.csr_matrix(
                (np.tile(stencil, len(groups)), (rows, groups.ravel())), shape=(len(groups), places.size)
            )
            total = total + strength * (difference.T @ difference)
    return total
