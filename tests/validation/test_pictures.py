"""Plots of errors against their possible causes."""

import pytest
from made_runs import result

from towtank.validation.page import page
from towtank.validation.pictures import drivers, message_mib, trend
from towtank.validation.plots import Axis
from towtank.validation.report import report_on


def test_bytes_that_a_micro_batch_hands_on() -> None:
    # 2 sequences of 4096 tokens, 4096 wide, 2 bytes, shared by 2 ranks of context: 32 MiB
    assert message_mib(result(2.0, 1.9, micro_batch=2, cp=2)) == 32.0
    assert message_mib(result(2.0, 1.9, hidden=None)) is None


def test_a_trend_joins_medians_of_equal_parts_of_the_axis() -> None:
    axis = Axis(1, 256, (1, 256))  # eight parts of a factor of two
    points = [(1.5, y) for y in (1.0, 2.0, 3.0, 4.0, 9.0)] + [(200.0, 2.0)] * 5 + [(20.0, 7.0)] * 4
    assert trend(axis, points) == [(1.5, 3.0), (200.0, 2.0)]  # four points are too few


@pytest.mark.parametrize(
    "driver",
    [
        "devices",
        "tensor degree",
        "micro-batch",
        "tokens of a sequence",
        "bits of a multiply",
        "share of bubble",
    ],
)
def test_every_driver_has_its_plot(driver: str) -> None:
    assert f">{driver}<" in drivers([result(2.0, 1.9), result(2.0, 2.2)])


def test_the_page_lists_fitted_parameters_and_left_out_sources() -> None:
    text = page(report_on([result(2.0, 1.9)]))
    assert "free parameters, fitted to" in text
    assert "<td>gh200-96gb</td><td>device</td>" in text
    assert "median without it" in text
