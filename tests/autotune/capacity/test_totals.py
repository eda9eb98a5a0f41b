"""Published totals of whole training runs beside their predictions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from towtank.autotune.capacity.delivery import NORMAL, delivery
from towtank.autotune.capacity.draws import NORMAL_95
from towtank.autotune.capacity.published import published_totals
from towtank.autotune.capacity.totals import (
    PredictedTotal,
    document,
    judge,
    main,
    median_error,
    predict_total,
    share_held,
)
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.plan import Plan
from towtank.simulator.stacks.load import load_stack


def total(ratio: float, group: str = "BLOOM", own: float = 0.0) -> PredictedTotal:
    """100 published device-hours, and so many times as many predicted; `own` is the spread of the simulated runs."""
    published = replace(published_totals().runs["bloom-176b"], device_hours=100.0, group=group)
    hours = tuple(
        100 * ratio * np.exp(own * normal) for normal in np.linspace(-NORMAL_95 / 0.9, NORMAL_95 / 0.9, 101)
    )
    return PredictedTotal("bloom-176b", published, hours, Plan())


def test_every_total_names_what_exists_and_fills_its_machine() -> None:
    for name, one in published_totals().runs.items():
        load_model(one.model), load_stack(one.stack)
        available = load_machine(one.machine).num_devices
        assert available is None or one.devices <= available, name
        assert one.source and one.why_stack and one.device_hours > 0, name


def test_errors_and_intervals_by_hand() -> None:
    totals = [total(0.9, own=0.1), total(1.3, own=0.1), total(1.01, own=0.1)]
    assert [one.error for one in totals] == pytest.approx([0.1, 0.3, 0.01])
    assert median_error(totals) == pytest.approx(0.1)
    # 5 and 95 % of the simulated runs lie exp(1.645 x 0.1) = 1.18 from the middle: 1.3 is outside
    assert share_held(totals, {"BLOOM": 1e-9}) == pytest.approx(2 / 3)
    assert share_held(totals, {"BLOOM": 0.3}) == 1.0


def test_an_interval_with_delivery_has_the_quantiles_of_both() -> None:
    # 95 % of Student's t with two degrees of freedom, and of the normal distribution, from a table
    for shape, quantile in (({}, 2.92), ({"shape": NORMAL}, 1.645)):
        found = total(1.0).interval(0.3, **shape)
        ends = 100 * np.exp(-0.3 * quantile), 100 * np.exp(0.3 * quantile)
        assert (found.low, found.high) == pytest.approx(ends, rel=0.03)


def test_a_group_is_judged_by_the_scale_of_the_others() -> None:
    near = [total(np.exp(off), group, own=0.01) for off, group in zip((0.1, -0.1, 0.1), "abc", strict=True)]
    far = total(np.exp(2.0), "far", own=0.01)
    judged = judge([*near, far])
    # the group far off widens the intervals of the others, not its own
    assert judged.scales["far"] == min(judged.scales.values())
    assert judged.scales["far"] == pytest.approx(judge(near).scales["a"], rel=0.1)
    assert judged.held == 0.75
    # what a normal tail calls impossible costs it more
    assert judged.log_score > judge([*near, far], NORMAL).log_score


def test_the_page_says_what_is_predicted_and_what_is_not() -> None:
    one, other = total(0.9, own=0.1), total(1.3, "another")
    page = document([one, other])
    found = one.interval(judge([one, other]).scales["BLOOM"])
    assert (
        "| bloom-176b | 384 a100-80gb-sxm | megatron-deepspeed | published | 100 | 90 | "
        f"{found.low:.0f} to {found.high:.0f} | 0.90 | yes |"
    ) in page
    assert "no blind test" in page
    assert "SE-MoE, UFO: 9,216 A100 hours; tokens are not stated" in page


def test_a_tuned_plan_names_the_fields_that_are_known() -> None:
    falcon = replace(total(1.0), published=published_totals().runs["falcon-180b"])
    assert "| tuned; tensor_x 8, pipeline 8, data 64, precision bf16 |" in document([falcon, total(1.1)])


def test_an_unknown_total_is_named(capsys) -> None:
    assert main(["blom"]) == 2
    assert "unknown: blom" in capsys.readouterr().err


@pytest.mark.slow
def test_the_total_of_bloom_is_met_with_its_published_plan() -> None:
    found = predict_total("bloom-176b", published_totals().runs["bloom-176b"], runs=40)
    assert found.error < 0.2
    assert found.held(delivery().scale)


def test_the_documented_table_agrees_with_its_sentence_and_the_gate() -> None:
    page = (Path(__file__).parents[3] / "docs" / "totals.md").read_text(encoding="utf-8")
    rows = [
        line.split("|")[1:-1]
        for line in page.partition("\n## ")[0].splitlines()
        if line.startswith("| ") and "---" not in line
    ][1:]
    assert {row[0].strip() for row in rows} == set(published_totals().runs)
    errors = []
    for row in rows:
        published, predicted = (float(row[column].replace(",", "")) for column in (4, 5))
        assert published == published_totals().runs[row[0].strip()].device_hours
        errors.append(abs(predicted / published - 1))
    middle = sorted(errors)[(len(errors) - 1) // 2 : len(errors) // 2 + 1]
    assert sum(middle) / len(middle) <= 0.2
    held = sum(row[8].strip() == "yes" for row in rows) / len(rows)
    assert held >= 0.85
    assert f"the interval holds {held * 100:.0f} %" in page
    assert f"The scale, {delivery().scale:.3f}," in page
    assert (delivery().runs, delivery().groups) == (
        len(rows),
        len({one.group for one in published_totals().runs.values()}),
    )
