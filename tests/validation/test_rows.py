"""Reading of runs: strict about columns, lenient about spellings."""

import gzip
import hashlib
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from towtank.validation.rows import FAILED, PUBLISHED, RUNS, RunsError, columns, parse_runs, read_runs

HEADER = "id,device,gpus,model,seq_len,global_batch_seqs,micro_batch,gated_mlp,step_time_s,remark"


def _one(line: str):
    return parse_runs(f"{HEADER}\n{line}\n", "runs.csv")[0]


@pytest.mark.parametrize("spelling", ["8", "8.0", " 8 ", "8.00"])
def test_a_number_may_be_spelled_in_many_ways(spelling: str) -> None:
    assert _one(f"a,b200,{spelling},m,4096,64,,1,2.5,").gpus == 8


@pytest.mark.parametrize(
    ("spelling", "value"),
    [
        ("1", True),
        ("1.0", True),
        ("True", True),
        ("yes", True),
        ("0.0", False),
        ("FALSE", False),
        ("", None),
        ("nan", None),
    ],
)
def test_a_truth_may_be_spelled_in_many_ways(spelling: str, value: bool | None) -> None:
    assert _one(f"a,b200,8,m,4096,64,,{spelling},2.5,").gated_mlp is value


@pytest.mark.parametrize("blank", ["", "nan", "None", "N/A", "-", "unknown"])
def test_blank_cells_are_none(blank: str) -> None:
    run = _one(f"a,b200,8,m,4096,64,{blank},1,{blank},x")
    assert run.micro_batch is None
    assert run.step_time_s is None
    assert run.faults == ()


def test_a_missing_optional_column_is_blank_and_an_unknown_one_is_ignored() -> None:
    run = _one("a,b200,8,m,4096,64,1,1,2.5,my remark")
    assert run.framework == ""
    assert run.tp is None
    assert run.gate is None


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("a,b200,eight,m,4096,64,1,1,2.5,", "gpus = 'eight' must be a number"),
        ("a,b200,8.5,m,4096,64,1,1,2.5,", "gpus = '8.5' must be a whole number"),
        ("a,b200,-8,m,4096,64,1,1,2.5,", "not negative"),
        ("a,b200,8,m,4096,64,1,1,inf,", "finite"),
        ("a,b200,8,m,4096,64,1,1,0,", "step_time_s = 0 must be positive"),
        ("a,b200,8,m,4096,64,1,maybe,2.5,", "gated_mlp = 'maybe'"),
        ("a,b200,8,m,4096,64,1,1,2.5,,one,more", "more cells than the header"),
    ],
)
def test_a_cell_that_cannot_be_read_is_a_fault_of_its_row_alone(line: str, fault: str) -> None:
    runs = parse_runs(f"{HEADER}\n{line}\nb,b200,8,m,4096,64,1,1,2.5,\n", "runs.csv")
    assert fault in "; ".join(runs[0].faults)
    assert runs[1].faults == ()


def test_a_missing_required_column_is_one_clear_error_that_names_all_of_them() -> None:
    with pytest.raises(RunsError, match=r"mine\.csv: lacks the columns seq_len.*global_batch_seqs") as caught:
        parse_runs("id,device,gpus,model,seqlen\na,b200,8,m,4096\n", "mine.csv")
    assert "did you mean 'seqlen'?" in str(caught.value)


@pytest.mark.parametrize("text", ["", HEADER, f"{HEADER}\n"])
def test_an_empty_file_is_an_error(text: str) -> None:
    with pytest.raises(RunsError):
        parse_runs(text, "runs.csv")


def test_a_doubled_column_is_an_error() -> None:
    with pytest.raises(RunsError, match="gpus more than once"):
        parse_runs("id,device,gpus,gpus,model,seq_len,global_batch_seqs\na,b200,8,8,m,1,1\n", "runs.csv")


def test_files_that_are_missing_or_no_text_are_errors(tmp_path) -> None:
    with pytest.raises(RunsError, match="cannot be read"):
        read_runs(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes(b"id,device\n\xe9,\xff\n")
    with pytest.raises(RunsError, match="UTF-8"):
        read_runs(tmp_path / "latin.csv")
    (tmp_path / "bad.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(RunsError, match="gzip"):
        read_runs(tmp_path / "bad.csv.gz")


def test_a_byte_order_mark_and_gzip_are_understood(tmp_path) -> None:
    text = f"\ufeff{HEADER}\na,b200,8,m,4096,64,1,1,2.5,\n"
    (tmp_path / "runs.csv.gz").write_bytes(gzip.compress(text.encode("utf-8")))
    assert read_runs(tmp_path / "runs.csv.gz")[0].id == "a"


@given(st.text(max_size=30))
def test_no_cell_raises(cell: str) -> None:
    quoted = '"' + cell.replace('"', '""').replace("\x00", "") + '"'
    row = ",".join([quoted] * 10)
    run = parse_runs(f"{HEADER}\n{row}\n", "runs.csv")[0]
    assert run.gpus is None or run.gpus > 0


def test_the_shipped_runs_are_all_there() -> None:
    runs = read_runs(RUNS)
    assert len(runs) == 2020
    assert len({run.id for run in runs}) == 2020
    assert sum(run.gate is True for run in runs) == 1759
    assert sum(run.step_time_s is not None for run in runs) == 1897
    assert not any(run.faults for run in runs)
    assert len(read_runs(FAILED)) == 933


def test_every_shipped_column_is_understood() -> None:
    header = gzip.decompress(RUNS.read_bytes()).decode().splitlines()[0].split(",")
    assert sorted(header) == sorted(columns())


def test_the_shipped_files_are_the_collected_ones_and_every_source_has_a_licence_note() -> None:
    sources = yaml.safe_load((PUBLISHED / "sources.yaml").read_text())
    for name, stated in sources["files"].items():
        text = gzip.decompress((PUBLISHED / name).read_bytes())
        assert hashlib.sha256(text).hexdigest() == stated["sha256"]
        assert len(read_runs(PUBLISHED / name)) == stated["rows"]
    counts = [0] * len(sources["families"])
    for run in read_runs(RUNS):
        counts[
            next(i for i, one in enumerate(sources["families"]) if re.search(one["pattern"], run.source))
        ] += 1
    assert counts == [family["rows"] for family in sources["families"]]
    assert all(family["licence"] for family in sources["families"])
