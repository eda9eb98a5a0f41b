"""Shapes left out of every curve, so that each curve can be judged on shapes that it has not seen.

A fifth of the shapes of each kind: (n, k) of multiplies, (heads, kv heads, head size) of attention, (hidden, inter,
top-k, experts, tensor degree, expert degree) of expert layers, (operation, devices, bytes) of collectives. A shape is
left out for all devices, precisions and other sizes (rows m, batch and sequence, tokens).
"""

import csv
import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from zlib import crc32

from towtank.hardware_profiles.curves import load_curves
from towtank.hardware_profiles.curves.attention import forward_flop
from towtank.hardware_profiles.curves.collectives import Operation
from towtank.hardware_profiles.curves.experts import Distribution
from towtank.hardware_profiles.curves.loading import rows_of
from towtank.hardware_profiles.curves.network import MEASUREMENTS

KINDS = ("matmul", "attention", "collectives", "experts")
LEFT_OUT_OF = 5
"""One shape in so many is left out."""

SAMPLE = MEASUREMENTS / "left_out.csv.gz"
SAMPLE_COLUMNS = ("kind", "device", "precision", "variant", "sizes", "latency_us")


def is_left_out(kind: str, *shape: object) -> bool:
    """Tell whether a shape is left out of the curves: its check sum (CRC-32) divides by five."""
    return crc32(" ".join(map(str, (kind, *shape))).encode()) % LEFT_OUT_OF == 0


@dataclass(frozen=True, slots=True)
class KernelRow:
    """One measured kernel or collective."""

    kind: str
    device: str
    precision: str
    variant: str
    """Operation of a collective, routing of expert layers (balanced or power_law); else empty."""
    sizes: tuple[int, ...]
    """matmul: m, n, k. attention: batch, sequence, heads, kv heads, head size. collectives: devices, bytes.
    experts, of the whole layer: tokens, hidden, inter, top-k, experts, tensor degree, expert degree, matrices
    of an expert."""
    measured_s: float


@dataclass(frozen=True, slots=True)
class KernelErrors:
    """|predicted / measured - 1| over the left-out shapes of one device, kind and precision."""

    kind: str
    device: str
    precision: str
    rows: int
    median: float
    p90: float


def predicted_s(row: KernelRow) -> float:
    """Seconds that the shipped curves give for a row, without any factor of training."""
    curves, sizes = load_curves(row.device), row.sizes
    if row.kind == "matmul":
        return curves.matmul[row.precision].latency_s(*sizes)
    if row.kind == "attention":
        batch, sequence, heads, kv_heads, head_dim = sizes
        rate = curves.attention[row.precision].table_flop_per_s(batch, sequence, heads, kv_heads, head_dim)
        return forward_flop(batch, sequence, heads, head_dim) / rate
    if row.kind == "collectives":
        assert curves.collectives is not None  # rows of devices without collectives are not written
        return curves.collectives.time_s(cast(Operation, row.variant), *sizes)
    tokens, hidden, inter, top_k, experts, tensor, expert, matrices = sizes
    return curves.experts[row.precision].latency_s(
        tokens / expert,
        hidden,
        inter / tensor,
        top_k,
        experts / expert,
        cast(Distribution, row.variant),
        expert,
        matrices,
    )


def sample(path: Path = SAMPLE) -> list[KernelRow]:
    """The shipped sample of measured rows with left-out shapes."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        lines = csv.reader(line for line in file if not line.startswith("#"))
        if tuple(next(lines)) != SAMPLE_COLUMNS:
            raise ValueError(f"{path}: the columns must be {', '.join(SAMPLE_COLUMNS)}")
        return [
            KernelRow(kind, device, precision, variant, tuple(map(int, sizes.split())), float(time) * 1e-6)
            for kind, device, precision, variant, sizes, time in lines
        ]


def errors_by_group(rows: Iterable[KernelRow]) -> list[KernelErrors]:
    """Errors of the curves on `rows` by kind, device and precision, in the order of KINDS and names."""
    groups: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        error = abs(predicted_s(row) / row.measured_s - 1.0)
        groups.setdefault((row.kind, row.device, row.precision), []).append(error)
    order = sorted(groups, key=lambda group: (KINDS.index(group[0]), *group[1:]))
    return [
        KernelErrors(*group, len(groups[group]), quantile(groups[group], 0.5), quantile(groups[group], 0.9))
        for group in order
    ]


def stated_errors() -> list[KernelErrors]:
    """Errors on all the measured rows with left-out shapes, as found when the curves were built (surfaces.csv)."""
    return [
        KernelErrors(
            row["kind"],
            row["device"],
            row["precision"],
            int(row["left_out_rows"]),
            float(row["left_out_median"]),
            float(row["left_out_p90"]),
        )
        for row in rows_of(MEASUREMENTS / "surfaces.csv")
    ]


def quantile(values: Sequence[float], share: float) -> float:
    """Quantile of one or more values, linear between neighbours."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    lower = int(place)
    upper = min(lower + 1, len(ordered) - 1)
    return ordered[lower] + (ordered[upper] - ordered[lower]) * (place - lower)
