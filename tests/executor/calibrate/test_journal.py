from pathlib import Path

import pytest

from towtank.executor.calibrate.journal import Journal
from towtank.executor.calibrate.pool import CalibrationError


def test_a_calibration_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "local.journal"
    Journal(path, {"name": "local"}).add({"a": 1.0, "b": 2.0})
    again = Journal(path, {"name": "local"})
    assert (again["a"], again["b"], len(again), "c" in again) == (1.0, 2.0, 2, False)


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "local.journal"
    Journal(path, {"name": "local"}).add({"a": 1.0, "b": 2.0})
    path.write_text(path.read_text()[:-12])
    assert len(Journal(path, {"name": "local"})) == 1


def test_lines_that_are_no_times_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "local.journal"
    Journal(path, {"name": "local"}).add({"a": 1.0})
    path.write_bytes(path.read_bytes() + b'{"key": "b", "seconds": "x"}\n\xff\xfe\n')
    assert len(Journal(path, {"name": "local"})) == 1


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CalibrationError, match="name a folder of yours in TOWTANK_CALIBRATIONS"):
        Journal(tmp_path / "file" / "local.journal", {})


def test_another_machine_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "local.journal"
    Journal(path, {"of": "one"}).add({"a": 1.0})
    assert len(Journal(path, {"of": "another"})) == 0


def test_a_complete_calibration_leaves_no_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "local.journal", {})
    journal.add({"a": 1.0})
    journal.remove()
    assert not (tmp_path / "local.journal").exists()
