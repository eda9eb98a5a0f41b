"""The attention surfaces, and the published forward and backward figures."""

import re
from dataclasses import dataclass
from math import log2
from pathlib import Path

import pandas as pd

from towtank.hardware_profiles.compact.tables import filled, short
from towtank.hardware_profiles.curves.attention import AttentionCurve, published_parallel_heads
from towtank.hardware_profiles.curves.grid import Grid
from towtank.hardware_profiles.curves.loading import rows_of

PARALLEL_HEADS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768]
PARALLEL_HEADS += [1024, 2048, 4096]
"""Grid of batch x heads; products with 5, 10, 20 and 40 heads lie between."""

HEAD_DIMS = [64, 128, 192, 256, 512]
GROUPS = ("multi-head", "grouped")
IMPOSSIBLE_SHARE = 0.01
RATIO_DEVICE = "h100-80gb-sxm"
TRAINING_FIGURES = Path(__file__).parent / "training_attention.csv"
TRAINING_SOURCE = (
    "FlashAttention-3 (arXiv 2407.08608) figures 5 and 6; causal backward by that of FlashAttention-2"
)


@dataclass(frozen=True)
class AttentionSurface:
    """A surface: `rates` by group, on (head_dim, sequence, batch x heads)."""

    axes: tuple[list[int], list[int], list[int]]
    rates: dict[str, list[float]]
    gaps: int


def prepare(frame: pd.DataFrame, peaks: dict[tuple[str, str], float]) -> pd.DataFrame:
    """Add rates and grid coordinates; drop runs faster than the device's peak (timer faults)."""
    frame = frame[frame.head_dim.isin(HEAD_DIMS)].copy()
    frame["rate"] = 2e6 * frame.batch_size * frame.num_heads * frame.isl.astype(float) ** 2 * frame.head_dim
    frame["rate"] /= frame.latency_us
    pairs = zip(frame.device, frame.precision, strict=True)
    peak = pd.Series([peaks[pair] for pair in pairs], index=frame.index)
    # A framework version with many rows above the peak was timed wrongly on that device: drop it whole.
    run = [frame.device, frame.precision, frame.best_of]
    impossible = (frame.rate > peak).groupby(run).transform("mean") > IMPOSSIBLE_SHARE
    for name, rows in frame[impossible].groupby(["device", "precision", "best_of"]):
        print("attention: dropped", *name, len(rows), "rows")
    frame = frame[~impossible & (frame.rate <= peak)].copy()
    frame["parallel_heads"] = frame.batch_size * frame.num_heads
    frame["group"] = (frame.num_heads == frame.num_key_value_heads).map({True: GROUPS[0], False: GROUPS[1]})
    return frame


def build(frame: pd.DataFrame) -> AttentionSurface:
    """Make the surface of one device and precision from its prepared rows, left-out layouts removed."""
    axes = (sorted(set(frame.head_dim)), sorted(set(frame.isl)), PARALLEL_HEADS)
    rates, gaps = {}, 0
    for group in GROUPS:
        rows = frame[(frame.group == group) & frame.parallel_heads.isin(PARALLEL_HEADS)]
        medians = rows.groupby(["head_dim", "isl", "parallel_heads"]).rate.median()
        cells = {
            key: float(short(rate / 1e12)) * 1e12 for key, rate in medians.items() if isinstance(key, tuple)
        }
        # Along (batch x heads) first: a gap there is an array that no device holds, or a single head.
        order = (axes[2], axes[1], axes[0])
        values, missing = filled({(p, s, d): rate for (d, s, p), rate in cells.items()}, order)
        rates[group] = _transposed(values, [len(axis) for axis in order])
        gaps += missing
    return AttentionSurface(axes, rates, gaps)


def _transposed(values: list[float], shape: list[int]) -> list[float]:
    first, second, third = shape
    return [
        values[(i * second + j) * third + k]
        for k in range(third)
        for j in range(second)
        for i in range(first)
    ]


def curve_of(
    axes: tuple[list[int], list[int], list[int]], rates: dict[str, list[float]], peak_flop_per_s: float = 1.0
) -> AttentionCurve:
    """The curve as the package reads it, without published figures."""
    grids = {group: Grid.of(axes, [log2(rate) for rate in values]) for group, values in rates.items()}
    return AttentionCurve("", peak_flop_per_s, grids["multi-head"], grids["grouped"], {})


def with_derived_head_dim(
    surface: AttentionSurface, published: pd.DataFrame, device: str
) -> AttentionSurface:
    """Add head size 64 where only 128 was measured, by the ratio of published FlashAttention-2 rates."""
    if surface.axes[0] != [128]:
        return surface
    rows = published[
        (published.device == device) & (published.implementation == "FlashAttention-2 fwd+bwd causal")
    ]
    rate = {(int(d), int(s)): v for d, s, v in zip(rows.head_dim, rows.sequence, rows.value, strict=True)}
    sequences = sorted({s for _, s in rate})
    ratio = Grid.of([sequences], [rate[64, s] / rate[128, s] for s in sequences])
    per_sequence = len(surface.axes[2])
    factors = [ratio.at((s,)) for s in surface.axes[1] for _ in range(per_sequence)]
    rates = {
        group: [float(short(v * f / 1e12)) * 1e12 for v, f in zip(values, factors, strict=True)] + values
        for group, values in surface.rates.items()
    }
    return AttentionSurface(([64, 128], *surface.axes[1:]), rates, surface.gaps)


def published_figures(measurements: pd.DataFrame) -> pd.DataFrame:
    """FlashAttention figures of the list of published measurements, one row a bar."""
    rows = measurements[measurements.source.str.contains("FlashAttention repo")].copy()
    text = rows.shape_or_bytes
    rows["implementation"] = text.str.replace(r" s=\d+.*", "", regex=True)
    rows["sequence"] = text.str.extract(r"s=(\d+)")[0].astype(int)
    rows["head_dim"] = text.str.extract(r"hd=(\d+)")[0].astype(int)
    rows["device"] = rows.accelerator_or_system.str.lower()
    return rows


def published_rows(
    published: pd.DataFrame, measurements: pd.DataFrame, curves: dict[str, AttentionCurve]
) -> list[list[object]]:
    """Rows of published_attention.csv: forward over the tables, and backward over forward time."""
    columns = (published.device, published.implementation, published.head_dim, published.sequence)
    table: dict[tuple[str, str, int, int], float] = dict(
        zip(
            zip(*(column.tolist() for column in columns), strict=True),
            published.value.astype(float),
            strict=True,
        )
    )
    rows: list[list[object]] = []
    for (device, implementation, head_dim, sequence), combined in sorted(table.items()):
        if implementation != "FlashAttention-2 fwd+bwd causal":
            continue
        heads = published_parallel_heads(sequence, head_dim)
        tabled = curves[device].table_flop_per_s(1, sequence, heads, heads, head_dim) / 1e12
        # Forward alone was published for H100 only; its ratio splits the combined rate of A100.
        pair = [
            table[RATIO_DEVICE, f"FlashAttention-2 {passes} causal", head_dim, sequence]
            for passes in ("fwd", "fwd+bwd")
        ]
        backward = 3.5 * pair[0] / pair[1] - 1.0
        forward = combined * (1.0 + backward) / 3.5
        source = "Dao-AILab/flash-attention benchmark figures (BSD-3-Clause)"
        if device != RATIO_DEVICE:
            source += f"; backward over forward of {RATIO_DEVICE}"
        rows.append([device, "flash2", head_dim, sequence, short(forward / tabled), short(backward), source])
    return rows + training_rows(rows) + _simumax_rows(measurements)


def training_rows(flash2_rows: list[list[object]]) -> list[list[object]]:
    """Rows of cuDNN on H100, from those of FlashAttention-2 and the figures of training_attention.csv.

    Its backward pass was published without a causal mask only; a mask is taken to change backward over forward time
    as it does for FlashAttention-2.
    """
    columns = ("forward_causal", "forward_full", "backward_full")
    figures = {
        (row["implementation"], int(row["head_dim"]), int(row["sequence"])): [float(row[c]) for c in columns]
        for row in rows_of(TRAINING_FIGURES)
    }
    rows: list[list[object]] = []
    for device, _, head_dim, sequence, over_table, backward, _ in flash2_rows:
        if device != RATIO_DEVICE:
            continue
        flash2, cudnn = (
            figures[name, int(str(head_dim)), int(str(sequence))] for name in ("flash2", "cudnn")
        )
        forward = float(str(over_table)) * cudnn[0] / flash2[0]
        causal = float(str(backward)) * (cudnn[1] / cudnn[2]) / (flash2[1] / flash2[2])
        rows.append([device, "cudnn", head_dim, sequence, short(forward), short(causal), TRAINING_SOURCE])
    return rows


def _simumax_rows(measurements: pd.DataFrame) -> list[list[object]]:
    """Backward over forward time of scaled dot-product attention on B200, median over 16 and more heads."""
    rows = measurements[
        measurements.source.str.contains("SimuMax")
        & (measurements.kind == "attention")
        & (measurements.accelerator_or_system == "B200")
        & measurements.shape_or_bytes.str.contains("qk_head_dim=128, v_head_dim=128")
    ]
    rates: dict[str, dict[tuple[int, int], float]] = {"fwd": {}, "bwd": {}}
    for text, value in zip(rows.shape_or_bytes, rows.value, strict=True):
        found = re.search(r"sdp_(fwd|bwd): batch=1, seq_len=4096, head_num=(\d+), kv_head_num=(\d+)", text)
        if found and int(found[2]) >= 16:
            heads = (int(found[2]), int(found[3]))
            rates[found[1]][heads] = max(float(value), rates[found[1]].get(heads, 0.0))
    ratios = sorted(
        2.5 * rate / rates["bwd"][heads] for heads, rate in rates["fwd"].items() if heads in rates["bwd"]
    )
    if not ratios:
        return []
    source = (
        "MooreThreads/SimuMax configs/system/b200_bf16_ceperm.json (Apache-2.0); median of measured shapes"
    )
    return [["b200", "cudnn", 128, 4096, "", short(ratios[len(ratios) // 2]), source]]
