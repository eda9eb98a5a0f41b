"""Rows with left-out shapes: kept from the fits, and the judge of the shipped curves."""

import gzip
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from towtank.hardware_profiles.compact.tables import ORIGIN, short
from towtank.hardware_profiles.curves.left_out import (
    SAMPLE_COLUMNS,
    KernelErrors,
    KernelRow,
    errors_by_group,
    is_left_out,
)

SHAPES: Mapping[str, Sequence[str]] = {
    "matmul": ("n", "k"),
    "attention": ("num_heads", "num_key_value_heads", "head_dim"),
    "collectives": ("operation", "num_gpus", "message_bytes"),
    "experts": ("hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size"),
}
"""Columns of the tables that make up the shape of each kind."""

SIZES: Mapping[str, Sequence[str]] = {
    "matmul": ("m", "n", "k"),
    "attention": ("batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim"),
    "collectives": ("num_gpus", "message_bytes"),
    "experts": ("num_tokens", *SHAPES["experts"], "matrices"),
}
"""Columns of `KernelRow.sizes`."""

VARIANTS = {"collectives": "operation", "experts": "routing"}

SAMPLED_ROWS = 150
"""Rows of each kind, device and precision in the shipped sample."""
SAMPLE_SEED = 20240817  # any fixed number: the shipped sample must not change from build to build


def marked(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    """`frame` with the column `left_out`."""
    shapes = list(frame[list(SHAPES[kind])].itertuples(index=False, name=None))
    answer = {shape: is_left_out(kind, *shape) for shape in set(shapes)}
    return frame.assign(left_out=[answer[shape] for shape in shapes])


def fitted(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of a marked table that a fit may see."""
    return frame[~frame.left_out]


def judge(tables: Mapping[str, pd.DataFrame]) -> list[KernelErrors]:
    """Errors of the shipped curves on all the left-out rows of the prepared tables."""
    found: list[KernelErrors] = []
    for kind, frame in tables.items():
        found += errors_by_group(_records(frame[frame.left_out], kind))
    return found


def write_sample(path: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write a sample of the left-out rows."""
    lines = [f"# Measured kernels of left-out shapes, drawn with seed {SAMPLE_SEED}. {ORIGIN}"]
    lines.append(",".join(SAMPLE_COLUMNS))
    for kind, frame in tables.items():
        for _, rows in frame[frame.left_out].groupby(["device", "precision"]):
            drawn = rows.sample(min(SAMPLED_ROWS, len(rows)), random_state=SAMPLE_SEED).sort_index()
            for row in _records(drawn, kind):
                sizes = " ".join(map(str, row.sizes))
                cells = (kind, row.device, row.precision, row.variant, sizes, short(row.measured_s * 1e6, 6))
                lines.append(",".join(cells))
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode(), mtime=0))  # no time inside: equal content, equal file


def _records(frame: pd.DataFrame, kind: str) -> Iterator[KernelRow]:
    variants = frame[VARIANTS[kind]].tolist() if kind in VARIANTS else [""] * len(frame)
    sizes = zip(*(frame[column].tolist() for column in SIZES[kind]), strict=True)
    columns = (frame.device.tolist(), frame.precision.tolist(), variants, sizes, frame.latency_us.tolist())
    for device, precision, variant, size, microseconds in zip(*columns, strict=True):
        yield KernelRow(kind, device, precision, variant, tuple(size), microseconds * 1e-6)
