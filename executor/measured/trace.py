"""Chrome trace of a measured step for Perfetto: a process for each rank, its compute stream and what runs beside it.

Format: "Trace Event Format", Google, section JSON Object Format (events M and X; times in microseconds).
"""

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from towtank.executor.measured.spans import Slice

COMPUTE: Final = "compute"
BESIDE: Final = "beside compute"
"""Track of communication from its issue to its completion."""


@dataclass(frozen=True, slots=True)
class RankTrace:
    """Slices of one step of one rank; times on the clock of its node."""

    rank: int
    step: int
    start_s: float
    seconds: float
    slices: tuple[Slice, ...]


def write_measured_trace(ranks: Sequence[RankTrace], path: Path, about: dict[str, Any]) -> None:
    """Write the step of all ranks, compressed if the name ends in .gz.

    Slices of one rank begin where its step begins, so traces of several nodes lie above each other although their
    clocks differ; on one node the ranks keep their places. Raises OSError if the file cannot be written.
    """
    one_clock = [one.start_s for one in ranks if _together(one, ranks[0])]
    document = {
        "displayTimeUnit": "ms",
        "otherData": {"origin": "measured", **about},
        "traceEvents": [
            event
            for one in ranks
            for event in _events(one, min(one_clock) if _together(one, ranks[0]) else one.start_s)
        ],
    }
    text = json.dumps(document) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode("utf-8"), 4, mtime=0))
    else:
        path.write_text(text, encoding="utf-8")


def _together(one: RankTrace, other: RankTrace) -> bool:
    """Whether two ranks look as if they had one clock: their steps overlap."""
    return abs(one.start_s - other.start_s) < one.seconds


def _events(one: RankTrace, origin_s: float) -> Iterator[dict[str, Any]]:
    tracks = [COMPUTE]
    for piece in one.slices:
        name = f"{BESIDE}: {piece.key.kind}" if piece.hidden else COMPUTE
        if name not in tracks:
            tracks.append(name)
        yield {
            "ph": "X",
            "pid": one.rank,
            "tid": tracks.index(name),
            "ts": round(1e6 * (piece.start_s - origin_s), 3),
            "dur": round(1e6 * (piece.finish_s - piece.start_s), 3),
            "name": piece.key.name,
            "cat": piece.key.kind,
            "args": {"kind": piece.key.kind, "phase": str(piece.key.phase), "step": one.step},
        }
    yield {"ph": "M", "name": "process_name", "pid": one.rank, "tid": 0, "args": {"name": f"rank {one.rank}"}}
    for index, name in enumerate(tracks):
        yield {"ph": "M", "name": "thread_name", "pid": one.rank, "tid": index, "args": {"name": name}}
