"""Gates: predictions from captured calibrations against what was measured then.

Folders of `executor/calibrate/captures` hold what `python -m towtank.executor.calibrate.experiment` wrote;
each of them is judged from the day it is there.
"""

from dataclasses import replace
from pathlib import Path

import towtank.executor.calibrate
from towtank.executor.calibrate.experiment import NAME, Row, median_predictions, read_rows, summary
from towtank.executor.calibrate.pairs import load_pairs

CAPTURES = Path(towtank.executor.calibrate.__file__).parent / "captures"
MEDIAN, WORST, SPEARMAN, MEMORY = 0.10, 0.25, 0.9, 0.10


def _replayed(folder: Path) -> list[Row]:
    """The captured measurements beside today's predictions from the captured calibration."""
    pairs = {pair.name: pair for pair in load_pairs("experiment")}
    rows = read_rows(folder / f"{NAME}.csv")
    found = median_predictions(folder, [pairs[row.pair] for row in rows])
    return [
        replace(row, predicted_s=seconds, predicted_bytes=num_bytes)
        for row, (seconds, num_bytes) in zip(rows, found, strict=True)
    ]


def test_captured_experiments_keep_within_their_errors() -> None:
    missed = {}
    captured = sorted(CAPTURES.glob(f"*/{NAME}.csv"))
    for path in captured:
        found = summary(_replayed(path.parent))
        good = (
            found.pairs == 12
            and found.median_error <= MEDIAN
            and found.worst_error <= WORST
            and found.spearman >= SPEARMAN
            and found.median_memory_error <= MEMORY
        )
        if not good:
            missed[path.parent.name] = found
    assert captured
    assert missed == {}
