"""The expert-layer surfaces: a robust fit of hat functions."""

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
DEGREES = [1, 8, 256]
COPIES = [1, 16, 64, 128, 256, 512, 1024, 4096, 16384]
AXES = (EXPERTS, HIDDEN, INTER, DEGREES, COPIES)
"""Grid of experts of the rank, hidden size, intermediate size of the rank, expert degree, copies per expert."""

ROUTINGS = {"balanced": "balanced", "power_law_1.2": "power_law"}

# Ungated expert layers (two matrix products): their rates counted with three exceed the peak. 22 of top-k and
# 2688 x 1856 are the shapes of such a family.
UNGATED_TOP_K, UNGATED_SHAPE = 22, (2688, 1856)

ROUGHNESS = 0.1
"""Weight of the penalty on bends, beside rows that weigh 0.1 over their error: best of 0.1 to 10 on four folds of the
fitted layouts."""


@dataclass(frozen=True)
class ExpertSurface:
    """Slowdowns over the roofline on AXES by routing."""

    slowdowns: dict[str, list[float]]


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
    slowdowns = {}
    for routing in ROUTINGS.values():
        rows = frame[frame.routing == routing]
        fitted = _fit(
            _coordinates(rows), np.log2(rows.latency_us * 1e-6 / _roofline(rows, precision, figures))
        )
        slowdowns[routing] = [float(x) for x in 2.0**fitted]
    return ExpertSurface(slowdowns)


def _roofline(frame: pd.DataFrame, precision: str, figures: DeviceFigures) -> Array:
    columns = (frame.copies, frame.hidden_size, frame.inter, frame.experts, frame.matrices)
    device = (figures.peak_flop_per_s(precision), figures.memory_bytes_per_s, ELEMENT_BYTES[precision])
    return np.array([roofline_s(*device, *sizes) for sizes in zip(*columns, strict=True)])


def _coordinates(frame: pd.DataFrame) -> Array:
    per_expert = frame.copies / frame.experts
    columns = [frame.experts, frame.hidden_size, frame.inter, frame.moe_ep_size, per_expert]
    stacked: Array = np.log2(np.stack(columns, axis=1).astype(float))
    return stacked


def _hats(coordinates: Array) -> sparse.csr_matrix:
    """Weights of the grid points at each row: the same multilinear rule that reads the shipped grid."""
    count, shape = len(coordinates), [len(axis) for axis in AXES]
    brackets = []
    for column, axis in enumerate(AXES):
        knots = np.log2(np.array(axis, dtype=float))
        x = np.clip(coordinates[:, column], knots[0], knots[-1])
        lower = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, len(knots) - 2)
        brackets.append((lower, (x - knots[lower]) / (knots[lower + 1] - knots[lower])))
    weights, places = [], []
    for corner in product((0, 1), repeat=len(AXES)):
        share = [upper if side else 1.0 - upper for (_, upper), side in zip(brackets, corner, strict=True)]
        weights.append(np.prod(share, axis=0))
        index = tuple(lower + side for (lower, _), side in zip(brackets, corner, strict=True))
        places.append(np.ravel_multi_index(index, shape))
    rows = np.tile(np.arange(count), len(weights))
    return sparse.csr_matrix(
        (np.concatenate(weights), (rows, np.concatenate(places))), shape=(count, int(np.prod(shape)))
    )


def _fit(coordinates: Array, target: Array) -> Array:
    """Penalised least absolute deviations by reweighting: outliers of a best-of table are far off."""
    target = np.asarray(target, dtype=float)
    design = _hats(coordinates)
    penalty = ROUGHNESS * _roughness([len(axis) for axis in AXES])
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
