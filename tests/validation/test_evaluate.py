"""Prediction of rows, and the report."""

import json
import math
import xml.etree.ElementTree as ElementTree

import pytest
from made_runs import result, run

from towtank import predict
from towtank.validation import evaluate as module
from towtank.validation.evaluate import evaluate, evaluate_run
from towtank.validation.express import Expressed, express
from towtank.validation.grouping import group_of
from towtank.validation.page import page
from towtank.validation.pictures import scatter
from towtank.validation.readme import accuracy_text, between_markers
from towtank.validation.report import report_on, select, to_mapping, worst
from towtank.validation.samples import samples_of


def test_a_row_is_what_predict_says() -> None:
    row = evaluate_run(run(peak_mem_gib=30.0))
    expressed = express(run())
    assert isinstance(expressed, Expressed)
    prediction = predict(expressed.model, expressed.machine, expressed.plan, stack=expressed.stack)
    assert row.status == "ok"
    assert row.predicted_step_time_s == prediction.step_time_s
    assert row.error == pytest.approx(prediction.step_time_s / 2.0 - 1)
    assert row.predicted_peak_memory_bytes == prediction.peak_memory_bytes
    assert row.measured_peak_memory_bytes == 30.0 * 2**30
    assert sum(row.shares.values()) == pytest.approx(1.0)


def test_memory_is_compared_with_what_the_source_counts() -> None:
    parts = predict_parts = evaluate_run(run(peak_mem_gib=30.0, source="BigScience"))
    assert parts.comparable_memory_bytes == parts.predicted_peak_memory_bytes  # nvidia-smi sees everything
    row = evaluate_run(run(peak_mem_gib=30.0, source="pytorch/torchtitan"))
    assert predict_parts.comparable_memory_bytes is not None
    assert row.comparable_memory_bytes == pytest.approx(predict_parts.comparable_memory_bytes - 2 * 2**30)


def test_memory_of_the_first_rank_is_compared_with_the_first_stage() -> None:
    source = "Nanotron Ultra-Scale Playbook sweep"
    row = run(peak_mem_gib=30.0, source=source, framework="nanotron", pp=2, tp=8, dp=1, zero_stage="0")
    expressed = express(row)
    assert isinstance(expressed, Expressed)
    stages = predict(expressed.model, expressed.machine, expressed.plan, stack=expressed.stack).memory
    first = stages[0].peak_bytes - stages[0].parts["device context"]
    assert first < max(stage.peak_bytes for stage in stages)
    assert evaluate_run(row).comparable_memory_bytes == pytest.approx(first)


def test_a_fault_of_ours_stops_no_other_row(monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.predict

    def broken(model, *arguments, **options):
        if model.name == "bad":
            raise ZeroDivisionError("oops")
        return real(model, *arguments, **options)

    monkeypatch.setattr(module, "predict", broken)
    results = evaluate([run(id="a"), run(id="b", model="bad"), run(id="c", device="abacus")], jobs=1)
    assert [row.status for row in results] == ["ok", "inexpressible", "inexpressible"]
    assert results[1].reason == "ZeroDivisionError: oops"


def test_processes_give_the_same_in_the_same_order() -> None:
    runs = [
        run(id=str(number), micro_batch=1 + number % 2, tp=1 + number % 2, dp=16 // (1 + number % 2))
        for number in range(70)
    ]
    told: list[tuple[int, int]] = []
    alone, together = evaluate(runs, jobs=1), evaluate(runs, jobs=2, progress=lambda *seen: told.append(seen))
    assert [row.run.id for row in together] == [one.id for one in runs]
    assert [row.predicted_step_time_s for row in together] == [row.predicted_step_time_s for row in alone]
    assert told[-1] == (70, 70)


def test_groups_hold_runs_that_differ_in_scale_and_precision_only() -> None:
    assert group_of(run(gpus=8, dp=4)) == group_of(run(gpus=64, dp=32))
    assert group_of(run()) != group_of(run(tp=4))
    assert group_of(run()) == group_of(run(precision="fp8"))


def test_samples_are_ratios_of_complete_judged_rows() -> None:
    row = evaluate_run(run(step_time_s=3.0))
    (sample,) = samples_of([row, evaluate_run(run(gate=False)), evaluate_run(run(step_time_s=None))])
    assert row.predicted_step_time_s is not None
    assert sample.residual == pytest.approx(math.log(3.0 / row.predicted_step_time_s))


@pytest.fixture(scope="module")
def report():
    runs = [
        run(id="one"),
        run(id="two", step_time_s=1.0),
        run(id="three", device="abacus"),
        run(id="four", step_time_s=None),
    ]
    return report_on(evaluate(runs, jobs=1))


def test_json_has_every_row(report) -> None:
    document = json.loads(json.dumps(to_mapping(report), allow_nan=False))
    assert document["schema"] == 1
    assert [row["id"] for row in document["rows"]] == ["one", "two", "three", "four"]
    one, _, three, four = document["rows"]
    assert one["status"] == "ok"
    assert one["interval_90_s"][0] <= one["predicted_step_time_s"] <= one["interval_90_s"][1]
    assert one["extrapolated"] is False
    assert one["fits"] is True
    assert three["status"] == "inexpressible"
    assert "abacus" in three["reason"]
    assert three["predicted_step_time_s"] is None
    assert four["measured_step_time_s"] is None
    assert document["summary"]["step_time"]["rows"] == 3
    assert document["summary"]["step_time"]["expressed"] == 2
    assert document["summary"]["coverage"] == 0.75


def test_worst_rows_come_first(report) -> None:
    errors = [abs(row.error or 0.0) for row in worst(report.results)]
    assert errors == sorted(errors, reverse=True)


def test_the_page_needs_nothing_from_elsewhere_and_is_well_formed(report) -> None:
    text = page(report)
    assert "src=" not in text
    assert "href=" not in text
    assert "<script" not in text
    assert "abacus" in text
    for start in (text.index("<svg"), text.rindex("<svg")):
        ElementTree.fromstring(text[start : text.index("</svg>", start) + 6])


def test_a_picture_has_a_point_for_each_judged_row() -> None:
    rows = [result(1.0, 1.1), result(10.0, 9.0), result(5.0, None), result(5.0, 5.0, gate=False)]
    circles = ElementTree.fromstring(scatter(rows, labels=True)).iter("{http://www.w3.org/2000/svg}title")
    assert (
        sum("predicted" in (title.text or "") and "measured 1" in (title.text or "") for title in circles)
        == 2
    )
    compact = scatter(rows, labels=False)
    assert compact.count("h0") == 2


def test_names_in_a_page_are_escaped() -> None:
    text = scatter([result(1.0, 1.1, model="<b>&co")], labels=True)
    assert "&lt;b&gt;&amp;co" in text


def test_readme_text_goes_between_its_markers(report) -> None:
    text = accuracy_text(report)
    document = "# x\n<!-- accuracy:start -->\nold\n<!-- accuracy:end -->\nrest\n"
    written = between_markers(document, text)
    assert "old" not in written
    assert written.startswith("# x\n<!-- accuracy:start -->\n")
    assert written.endswith("<!-- accuracy:end -->\nrest\n")
    assert between_markers(written, text) == written
    with pytest.raises(ValueError, match="accuracy:start"):
        between_markers("# x\n", text)


def test_rows_are_chosen_by_an_expression() -> None:
    runs = [
        run(id="a", gpus=8),
        run(id="b", gpus=64),
        run(id="c", gpus=None, device="b200"),
        run(id="d", gate=False),
    ]
    assert [one.id for one in select(runs, "gpus >= 16")] == ["b", "d"]
    assert [one.id for one in select(runs, 'device == "b200"')] == ["c"]
    assert [one.id for one in select(runs, "gate == 1 and gpus < 10")] == ["a"]
    assert [one.id for one in select(runs, 'source.str.contains("dgxc") and id != "a"')] == ["b", "c", "d"]


@pytest.mark.parametrize(
    "expression", ["gpus >=", "no_such_column == 1", "gpus + 1", "gpus", "", "device == h100", "1 / 0"]
)
def test_a_bad_expression_is_one_clear_error(expression: str) -> None:
    with pytest.raises(ValueError, match="is not a condition on rows") as caught:
        select([run()], expression)
    assert "columns: id, device" in str(caught.value)
