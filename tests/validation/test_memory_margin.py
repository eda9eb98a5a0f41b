"""Room for the error of predicted memory, from published runs."""

from dataclasses import replace

import pytest
from made_runs import result

from towtank.validation.evaluate import Result
from towtank.validation.memory_margin import ALL, counted, margin_from, memory_margin, to_mapping

GIB = 2**30


def _row(measured: float, predicted: float = 50.0, **changes: object) -> Result:
    """A run on devices of 80 GiB, all of whose predicted need its source's figure holds."""
    fields = {
        "measured_peak_memory_bytes": measured * GIB,
        "comparable_memory_bytes": predicted * GIB,
        "predicted_peak_memory_bytes": predicted * GIB,
    }
    return result(1.0, 1.0, **{**fields, **changes})


def test_the_margin_is_the_ninetieth_percentile_of_measured_over_predicted() -> None:
    # measured 50 to 60 of 50 predicted: 0, 2, .. 20 % above; the 90th percentile of eleven is the tenth
    found = margin_from([_row(50.0 + number) for number in range(11)])
    assert found.share == pytest.approx(0.18)
    assert (found.rows, found.groups, found.of) == (11, 1, ALL)
    assert margin_from([_row(30.0), _row(40.0)]).share == 0.0  # never negative: what is free stays usable


def test_only_runs_that_fill_half_to_four_fifths_of_the_device_count() -> None:
    rows = [_row(60.0, 39.9), _row(60.0, 40.0), _row(60.0, 64.0), _row(60.0, 64.1)]
    rows.append(_row(60.0, measured_peak_memory_bytes=None))
    left_out = _row(60.0)
    left_out = replace(left_out, run=replace(left_out.run, gate=False))
    assert counted([*rows, left_out]) == rows[1:3]


def test_a_stack_with_enough_runs_has_a_margin_of_its_own() -> None:
    rows = [_row(55.0, stack="nanotron")] * 30 + [_row(70.0, stack="torchtitan")] * 29
    found = {one["of"]: one for one in to_mapping(rows)["margins"]}
    assert set(found) == {ALL, "nanotron"}
    assert found["nanotron"]["share"] == pytest.approx(0.1)
    assert (found[ALL]["rows"], found[ALL]["share"]) == (59, pytest.approx(0.4))


def test_the_shipped_margins_are_within_reason() -> None:
    own, other = memory_margin("nanotron"), memory_margin("any")
    assert own.of == "nanotron"
    assert own.rows >= 100
    assert other.of == ALL
    assert other == memory_margin("megatron-core")  # twenty runs of one source are too few
    assert all(0.03 < each.share < 0.25 and each.sources for each in (own, other))
