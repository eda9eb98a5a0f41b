"""`towtank diff` and traces in `towtank import`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from towtank.executor.measured.difference import differences
from towtank.executor.measured.run_record import RunFacts, RunRecord, read_run_record, write_run_record
from towtank.simulator.plan_file import load_plan, plan_to_mapping
from towtank.simulator.predict import Prediction, predict
from towtank.simulator.record import OperationTime

Run = Any

CAPTURE = Path(__file__).parents[1] / "captures" / "kineto" / "cpu-two-layers.json.gz"
PLAN = """\
model: tiny-llama
machine: dgx-h100
stack: towtank-executor
tensor_x: 2
data: 2
pipeline: 2
zero_stage: 1
global_batch: 16
recompute: full
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return path


@pytest.fixture
def predicted(plan: Path) -> Prediction:
    return predict("tiny-llama", "dgx-h100", load_plan(plan), stack="towtank-executor")


def made_record(prediction: Prediction) -> RunRecord:
    """A run that took exactly as long as predicted, all of it."""
    step = replace(prediction.record(), origin="measured")
    facts = RunFacts(8, "cuda", "bf16", None, 0, 4, 1, prediction.tokens_per_step)
    return RunRecord(1, "0.1.0", "towtank", step, "tiny-llama", "towtank-executor", run=facts)


def test_a_run_as_predicted_differs_in_nothing(predicted: Prediction) -> None:
    found = differences(predicted, made_record(predicted))
    assert found.step_s.difference_s == 0
    assert all(one.difference_s == 0 for one in (*found.kinds, *found.operations))
    assert found.unmatched == (0, 0)
    for rows in (found.kinds, found.operations):
        assert sum(one.predicted_s or 0 for one in rows) == pytest.approx(predicted.step_time_s)


def test_one_operation_that_took_longer_is_the_first_row(predicted: Prediction) -> None:
    record = made_record(predicted)
    more = 5e-4
    operations = tuple(
        replace(one, exposed_s=one.exposed_s + more, seconds=one.seconds + more)
        if (one.name, one.phase) == ("layer.2.mlp.up.forward", "forward")
        else one
        for one in record.step.operations
    )
    extra = OperationTime("layer.0.our-own", "elementwise", "forward", 1e-5, 1e-5)
    breakdown = dict(record.step.breakdown_s)
    breakdown["matmul"] += more
    breakdown["elementwise"] += 1e-5
    step = replace(
        record.step,
        operations=(*operations, extra),
        breakdown_s=breakdown,
        step_time_s=record.step.step_time_s + more + 1e-5,
    )
    found = differences(predicted, replace(record, step=step))
    first, second = found.operations[:2]
    assert (first.name, first.kind, first.phase) == ("layer.*.mlp.up.forward", "matmul", "forward")
    assert first.difference_s == pytest.approx(more)
    assert (second.name, second.predicted_s) == ("layer.*.our-own", None)
    assert found.kinds[0].name == "matmul"
    assert found.unmatched == (0, 1)
    assert sum(one.measured_s or 0 for one in found.operations) == pytest.approx(step.step_time_s)
    by_layer = differences(predicted, replace(record, step=step), each_layer=True)
    assert by_layer.operations[0].name == "layer.2.mlp.up.forward"


def test_the_command_prints_totals_kinds_and_operations(
    towtank: Run, plan: Path, predicted: Prediction, tmp_path: Path
) -> None:
    write_run_record(made_record(predicted), tmp_path / "r.json")
    found = towtank("diff", str(plan), "--record", str(tmp_path / "r.json"), "--top", "3")
    assert found.code == 0, found.err
    assert "step time" in found.out and "memory at the peak" in found.out
    assert found.out.count("\n  sum ") == 2
    listed = towtank("diff", str(plan), "--record", str(tmp_path / "r.json"), "--top", "3", "--json")
    document = json.loads(listed.out)
    assert len(document["operations"]) == 3
    assert document["operations_left_out"] > 0
    assert document["step_time_s"]["relative"] == 0


def test_a_record_of_another_job_is_refused(
    towtank: Run, plan: Path, predicted: Prediction, tmp_path: Path
) -> None:
    write_run_record(made_record(predicted), tmp_path / "r.json")
    found = towtank("diff", str(plan), "--record", str(tmp_path / "r.json"), "--set", "data=1")
    assert found.code == 2
    assert "is of a run on 8 devices, but the plan has 4" in found.err
    found = towtank("diff", str(tmp_path / "none.yaml"), "--record", str(plan), "--top", "0")
    assert found.code == 2
    for told in ("--top 0 must be 1 or more", "is no JSON", "none.yaml: cannot be read"):
        assert told in found.err


def test_a_run_of_another_plan_is_told(
    towtank: Run, plan: Path, predicted: Prediction, tmp_path: Path
) -> None:
    record = replace(made_record(predicted), plan=plan_to_mapping(load_plan(plan)))
    write_run_record(record, tmp_path / "r.json")
    same = towtank("diff", str(plan), "--record", str(tmp_path / "r.json"))
    assert same.code == 0 and "another job" not in same.out
    other = (
        "diff",
        str(plan),
        "--record",
        str(tmp_path / "r.json"),
        "--set",
        "data=1,tensor_x=4,precision=fp16",
    )
    found = towtank(*other)
    assert found.code == 0, found.err
    words = " ".join(found.out.split())
    assert "tensor_x = 2 (predicted: 4)" in words and "data = 2 (predicted: 1)" in words
    assert "dtype bf16 (predicted: fp16)" in words
    assert "data = 2 (predicted: 1)" in json.loads(towtank(*other, "--json").out)["other_job"]


def test_a_trace_becomes_a_record_that_diff_reads(towtank: Run, plan: Path, tmp_path: Path) -> None:
    record = tmp_path / "r.json"
    found = towtank("import", str(CAPTURE), "--model", "tiny-llama", "-o", str(record))
    assert found.code == 0, found.err
    assert "matmul" in found.out and "steps in the trace: 3" in found.out
    assert read_run_record(record).source == "kineto"
    assert towtank("diff", str(plan), "--record", str(record)).code == 0
    assert json.loads(towtank("import", str(CAPTURE), "--json").out)["source"] == "kineto"


def test_options_of_plans_are_no_options_of_traces(towtank: Run, tmp_path: Path) -> None:
    found = towtank("import", str(CAPTURE), "--devices", "4", "--model", "none")
    assert found.code == 2
    assert "--devices: a trace says nothing of a plan; leave it out" in found.err
    assert "no model 'none'" in found.err
    (tmp_path / "x.json").write_text("{}")
    found = towtank("import", str(tmp_path / "x.json"), "--from", "kineto")
    assert "no `traceEvents`" in found.err
