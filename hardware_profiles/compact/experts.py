"""The expert-layer surfaces: a robust fit of hat functions, judged on model shapes left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from scipy.sparse.linalg import spsolve

from towtank.hardware_profiles.compact.tables import errors
from towtank.hardware_profiles.curves.experts import roofline_s
from towtank.hardware_profiles.curves.loading import DeviceFigures
from towtank.hardware_profiles.curves.matmul import ELEMENT_BYTES

Array = npt.NDArray[np.float64]

EXPERTS = [1, 4, 16, 64, 256]
WEIGHTS = [2**16, 2**18, 2**20, 2**21, 2**22, 2**23, 2**24, 2**25, 2**26]
"""Grid of hidden x inter, elements of one matrix of one expert."""
COPIES = [1, 4, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 16384]
AXES = (EXPERTS, WEIGHTS, COPIES)

COUNTED_FLOP = 1e10
FOLDS = 5

# Ungated expert layers (two matrix products): their rates counted with three exceed the peak. 22 of top-k and
# 2688 x 1856 are the shapes of such a family; they are left out.
UNGATED_TOP_K, UNGATED_SHAPE = 22, (2688, 1856)


@dataclass(frozen=True)
class ExpertSurface:
    """Slowdowns over the roofline on AXES, time ratios of power-law routing by degree, and the errors."""

    slowdowns: list[float]
    imbalance: dict[int, float]
    held_out: tuple[int, float, float]
    many_copies: tuple[int, float, float]
    """The same for 128 copies per expert and more, the regime of training."""


def prepare(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of gated layers with the sizes of one rank."""
    ungated = (frame.topk == UNGATED_TOP_K) | (
        (frame.hidden_size == UNGATED_SHAPE[0]) & (frame.inter_size == UNGATED_SHAPE[1])
    )
    # A100 with expert parallelism: time does not fall with the degree (that kernel computes all experts).
    idle = (frame.device == "a100-80gb-sxm") & (frame.moe_ep_size > 1)
    frame = frame[~ungated & ~idle].copy()
    frame["experts"] = frame.num_experts / frame.moe_ep_size
    frame["inter"] = frame.inter_size / frame.moe_tp_size
    frame["copies"] = frame.num_tokens * frame.topk / frame.moe_ep_size
    frame["model"] = frame.groupby(["hidden_size", "inter_size", "topk", "num_experts"]).ngroup()
    return frame


def build(frame: pd.DataFrame, precision: str, figures: DeviceFigures) -> ExpertSurface:
    """Fit the surface of one device and precision."""
    balanced = frame[frame.distribution == "balanced"]
    coordinates = _coordinates(balanced)
    roofline = np.array(
        [
            roofline_s(
                figures.peak_flop_per_s(precision),
                figures.memory_bytes_per_s,
                ELEMENT_BYTES[precision],
                *sizes,
            )
            for sizes in zip(
                balanced.copies, balanced.hidden_size, balanced.inter, balanced.experts, strict=True
            )
        ]
    )
    measured = balanced.latency_us.to_numpy() * 1e-6
    target = np.log2(measured / roofline)
    predicted = np.zeros(len(balanced))
    fold = balanced.model.to_numpy() % FOLDS
    for left_out in range(FOLDS):
        coefficients = _fit(coordinates[fold != left_out], target[fold != left_out])
        predicted[fold == left_out] = _hats(coordinates[fold == left_out]) @ coefficients
    times = roofline * 2.0**predicted
    large = (6.0 * balanced.copies * balanced.hidden_size * balanced.inter).to_numpy() >= COUNTED_FLOP
    many = large & (balanced.copies / balanced.experts >= 128).to_numpy()
    return ExpertSurface(
        slowdowns=[float(x) for x in 2.0 ** _fit(coordinates, target)],
        imbalance=_imbalance(frame),
        held_out=errors(times[large].tolist(), measured[large].tolist()),
        many_copies=errors(times[many].tolist(), measured[many].tolist()),
    )


def _coordinates(frame: pd.DataFrame) -> Array:
    columns = [frame.experts, frame.hidden_size * frame.inter, frame.copies / frame.experts]
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
    design, penalty = _hats(coordinates), _roughness([len(axis) for axis in AXES])
    weight = np.ones(len(target))
    solution: Array = np.zeros(design.shape[1])
    for _ in range(6):
        scaled = design.multiply(weight[:, None]).tocsr()
        solution = spsolve((scaled.T @ design + penalty).tocsc(), scaled.T @ target)
        weight = 1.0 / np.maximum(np.abs(design @ solution - target), 0.02) * 0.1
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


def _imbalance(frame: pd.DataFrame) -> dict[int, float]:
    """Median time of power-law over balanced routing by degree, 32 copies per expert and more."""
    keys = ["hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size", "num_tokens"]
    rows = frame[frame.copies / frame.experts >= 32]
    skewed = rows[rows.distribution == "power_law_1.2"].set_index(keys).latency_us
    even = rows[rows.distribution == "balanced"].set_index(keys).latency_us
    ratio = (skewed[~skewed.index.duplicated()] / even[~even.index.duplicated()]).dropna()
    medians = ratio.groupby(level="moe_ep_size").agg(["median", "count"])
    return {int(degree): float(row["median"]) for degree, row in medians.iterrows() if row["count"] >= 20}  # type: ignore[call-overload]


def with_relative_imbalance(rows: list[list[object]]) -> list[list[object]]:
    """Rows of imbalance.csv, the degrees above 1 of A100 taken from H100: they are statistics of routing."""
    borrowed = [
        ["a100-80gb-sxm", *row[1:]] for row in rows if row[:2] == ["h100-80gb-sxm", "bf16"] and row[2] != 1
    ]
    return [*(row for row in rows if row[0] != "a100-80gb-sxm" or row[2] == 1), *borrowed]
