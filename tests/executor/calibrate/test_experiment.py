from pathlib import Path

import pytest

from towtank.executor.calibrate import experiment
from towtank.executor.calibrate.experiment import Row, read_rows, spearman, summary, table, write_rows

ROWS = [
    Row("a", 1, 1.1, 1.0, 0.9, 1.2, 90e6, 100e6),
    Row("b", 2, 1.6, 2.0, 1.9, 2.1, 105e6, 100e6),
    Row("c", 4, 3.0, 3.0, 3.0, 3.0, 100e6, 100e6),
]


def test_summary_by_hand() -> None:
    found = summary(ROWS)
    assert found.median_error == pytest.approx(0.1)
    assert found.worst_error == pytest.approx(0.2)
    assert found.spearman == 1.0
    assert found.median_memory_error == pytest.approx(0.05)


def test_spearman_of_an_exchange() -> None:
    # 1 - 6 sum d^2 / (n (n^2 - 1)) with d = (0, 1, 1)
    assert spearman([1, 2, 3], [10, 30, 20]) == pytest.approx(1 - 6 * 2 / 24)


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_rows(tmp_path / "experiment.csv", ROWS)
    assert read_rows(tmp_path / "experiment.csv") == ROWS
    assert "median error 10.0%, worst 20.0%, Spearman 1.000" in table(ROWS)


def test_the_table_of_a_folder_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "experiment.csv", ROWS)
    experiment.main(["--out", str(tmp_path), "--show"])
    assert "3 pairs" in capsys.readouterr().out
