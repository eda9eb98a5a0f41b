"""`towtank validate`."""

import csv
import gzip
import json
from pathlib import Path

import pytest

from towtank.validation.rows import RUNS

ROWS = 6


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Some of the shipped rows."""
    lines = gzip.decompress(RUNS.read_bytes()).decode().splitlines()
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(lines[: ROWS + 1]) + "\n")
    return path


def test_prints_errors_and_writes_files(towtank, runs: Path, tmp_path: Path) -> None:
    done = towtank(
        "validate",
        "--runs",
        str(runs),
        "--json",
        str(tmp_path / "o.json"),
        "--html",
        str(tmp_path / "o.html"),
    )
    assert done.code == 0, done.err
    assert f"{ROWS} of {ROWS} runs expressed (100.0 %)" in done.out
    assert "By device" in done.out
    assert max(map(len, done.out.splitlines())) <= 100
    assert "a100-80gb-sxm" in done.out
    document = json.loads((tmp_path / "o.json").read_text())
    with runs.open() as file:
        assert [row["id"] for row in document["rows"]] == [row["id"] for row in csv.DictReader(file)]
    assert (tmp_path / "o.html").read_text().startswith("<!doctype html>")


def test_where_chooses_rows(towtank, runs: Path) -> None:
    done = towtank("validate", "--runs", str(runs), "--where", "gpus > 64")
    assert "4 of 4 runs expressed" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--where", "gpus >"], "is not a condition on rows"),
        (["--where", "gpus > 1e9"], "holds for none of the"),
        (["--where", "gpu > 8"], "columns: id, device"),
        (["--json", "/no/such/folder/x.json"], "cannot be written"),
        (["--jobs", "0"], "--jobs"),
    ],
)
def test_bad_options_are_one_clear_error(towtank, runs: Path, arguments: list[str], message: str) -> None:
    done = towtank("validate", "--runs", str(runs), *arguments)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_bad_files_are_one_clear_error(towtank, tmp_path: Path) -> None:
    assert "cannot be read" in towtank("validate", "--runs", str(tmp_path / "none.csv")).err
    (tmp_path / "x.csv").write_text("id,gpus\na,8\n")
    done = towtank("validate", "--runs", str(tmp_path / "x.csv"))
    assert done.code == 2
    assert "lacks the columns device, model" in done.err
