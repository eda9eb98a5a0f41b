"""Records of runs: what is written is read back, and nothing else is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from towtank.executor.errors import RecordError
from towtank.executor.measured.machine_facts import job_facts
from towtank.executor.measured.run_record import (
    MachineFacts,
    MeasuredStep,
    RankRecord,
    RunFacts,
    RunRecord,
    read_run_record,
    write_run_record,
)
from towtank.simulator.record import OperationTime, StepRecord


def made_record() -> RunRecord:
    step = StepRecord(
        "measured",
        2.0,
        {"matmul": 1.5, "unnamed": 0.5},
        (OperationTime("layer.0.mlp.up.forward", "matmul", "forward", 1.5, 1.5),),
        1e9,
    )
    return RunRecord(
        schema=1,
        towtank="0.1.0",
        source="towtank",
        step=step,
        model="tiny-llama",
        plan={"tensor_x": 2, "overlap": {"tensor": True}},
        run=RunFacts(2, "cpu", "fp32", 1, 0, 5, 1, 512),
        machine=MachineFacts("ab", "a processor", 2, 2**34, (), 1),
        versions={"torch": "2"},
        steps=(MeasuredStep(1, 2.0, 5.5, None),),
        ranks=(RankRecord(0, 2.0, {"matmul": 2.0}, None),),
        notes=("one",),
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_run_record(made_record(), tmp_path / "r.json")
    assert read_run_record(tmp_path / "r.json") == made_record()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schema": 2}, "schema 2 is not known; this towtank reads schema 1"),
        ({"surprise": 1}, "surprise: Unexpected keyword argument"),
        ({"towtank": 1}, "towtank: Input should be a valid string"),
        ({"source": "guess"}, "source: Input should be 'towtank' or 'kineto'"),
        ({"step": {"origin": "measured", "step_time_s": 0, "breakdown_s": {}}}, "takes more than 0 seconds"),
        ({"run": {"devices": "2"}}, "run.devices"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, change: dict[str, object], told: str) -> None:
    file = tmp_path / "r.json"
    write_run_record(made_record(), file)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(RecordError) as refused:
        read_run_record(file)
    assert told in str(refused.value)
    assert str(refused.value).startswith(str(file))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is no JSON"),
        ("[]", "no `schema`"),
        ("{}", "no `schema`"),
        ('{"schema": 1}', "step: Field required"),
    ],
)
def test_other_files_are_no_records(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(RecordError, match=told):
        read_run_record(tmp_path / "r.json")


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be read: No such file"):
        read_run_record(tmp_path / "none.json")


def test_nodes_are_counted_and_differences_noted() -> None:
    one = MachineFacts("a", "p", 2, 2**34)
    other = replace(one, fingerprint="b")
    assert job_facts([("x", one), ("x", one), ("y", one)]) == (replace(one, nodes=2), ())
    _, notes = job_facts([("x", one), ("y", other)])
    assert notes == ("the nodes of the job are of several kinds; `machine` is that of rank 0",)
