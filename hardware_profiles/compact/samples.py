"""A small sample of rows that no grid uses, for the tests."""

from pathlib import Path

import pandas as pd

from towtank.hardware_profiles.compact import attention, matmul
from towtank.hardware_profiles.compact.tables import ORIGIN, SAMPLE_SEED, write

COLUMNS = ["kind", "device", "precision", "a", "b", "c", "d", "e", "f", "latency_us"]


def write_samples(path: Path, gemm: pd.DataFrame, attention_rows: pd.DataFrame, moe: pd.DataFrame) -> None:
    """Write about 400 held-out rows spread over devices and precisions."""
    rows = [*_matmul(gemm), *_attention(attention_rows), *_experts(moe)]
    comments = [
        f"Held-out rows, drawn with seed {SAMPLE_SEED}. {ORIGIN}",
        "matmul: a=m b=n c=k. attention: a=batch b=sequence c=heads d=kv_heads e=head_dim.",
        "experts (fitted, so not held out): a=tokens b=hidden c=inter d=top_k e=experts of the rank.",
    ]
    write(path, comments, COLUMNS, rows)


def _drawn(frame: pd.DataFrame, per_group: int) -> pd.DataFrame:
    parts = [
        group.sample(min(per_group, len(group)), random_state=SAMPLE_SEED)
        for _, group in frame.groupby(["device", "precision"])
    ]
    return pd.concat(parts)


def _matmul(frame: pd.DataFrame) -> list[list[object]]:
    held_out = frame[~frame.m.isin(matmul.ROWS) & (2.0 * frame.m * frame.n * frame.k >= matmul.COUNTED_FLOP)]
    return [
        ["matmul", r.device, r.precision, r.m, r.n, r.k, "", "", "", r.latency_us]
        for r in _drawn(held_out, 9).itertuples()
    ]


def _attention(frame: pd.DataFrame) -> list[list[object]]:
    flop = 2.0 * frame.parallel_heads * frame.isl.astype(float) ** 2 * frame.head_dim
    held_out = frame[~frame.parallel_heads.isin(attention.PARALLEL_HEADS) & (flop >= attention.COUNTED_FLOP)]
    return [
        [
            *("attention", r.device, r.precision, r.batch_size, r.isl),
            *(r.num_heads, r.num_key_value_heads, r.head_dim, "", r.latency_us),
        ]
        for r in _drawn(held_out, 6).itertuples()
    ]


def _experts(frame: pd.DataFrame) -> list[list[object]]:
    single = (
        (frame.moe_ep_size == 1) & (frame.distribution == "balanced") & (frame.copies / frame.experts >= 128)
    )
    rows = _drawn(frame[single], 4)
    rows["inter"], rows["experts"] = rows.inter.astype(int), rows.experts.astype(int)
    return [
        [
            *("experts", r.device, r.precision, r.num_tokens, r.hidden_size),
            *(r.inter, r.topk, r.experts, "", r.latency_us),
        ]
        for r in rows.itertuples()
    ]
