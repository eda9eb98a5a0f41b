import pytest
from tests.hardware_profiles.calibrated.examples import calibration, fit

from towtank.hardware_profiles.calibrated.records import (
    CollectiveTimes,
    KernelTimes,
    bracket,
    collective_seconds,
    settings_of,
    threads_of,
)
from towtank.hardware_profiles.errors import UnknownFigure


def test_time_is_the_sum_of_terms_by_features() -> None:
    found = fit("matmul.forward", 1, launch=2e-6, flop=1e-11).seconds({"launch": 1, "flop": 4e6, "other": 9})
    assert found == pytest.approx(2e-6 + 4e-5)


@pytest.mark.parametrize(
    ("load", "expected"),
    [(0.5, (1, 1, 0.0)), (1.5, (1, 2, 0.5)), (3.0, (2, 4, 0.5)), (4, (4, 4, 0.0)), (9, (4, 4, 0.0))],
)
def test_loads_lie_between_measured_counts(load: float, expected: tuple[int, int, float]) -> None:
    assert bracket((1, 2, 4), load) == expected


def test_kernels_between_measured_loads_are_a_straight_line() -> None:
    times = KernelTimes(calibration(), "fp32", 1, 3.0)  # halfway from 2 (factor 2) to 4 (factor 4)
    assert times.terms("matmul.forward")["flop"] == pytest.approx(3e-11)


def test_the_threads_of_a_process_tell_fits_apart() -> None:
    alone = KernelTimes(calibration(), "fp32", 2, 1.0).terms("matmul.forward")["flop"]
    one_thread = KernelTimes(calibration(), "fp32", 1, 1.0).terms("matmul.forward")["flop"]
    assert (alone, one_thread) == (pytest.approx(1e-11), pytest.approx(2e-11))


def test_a_kernel_that_was_not_measured_is_unknown() -> None:
    with pytest.raises(UnknownFigure, match=r"holds no rope\.forward in fp32; run `towtank calibrate"):
        KernelTimes(calibration(), "fp32", 1, 1.0).terms("rope.forward")
    with pytest.raises(UnknownFigure, match="in bf16"):
        KernelTimes(calibration(), "bf16", 1, 1.0).terms("matmul.forward")


@pytest.mark.parametrize(
    ("cores", "processes", "expected"), [(2, 1, 2), (2, 2, 1), (2, 4, 1), (64, 4, 16), (None, 8, 1)]
)
def test_processes_share_the_cores(cores: int | None, processes: int, expected: int) -> None:
    assert threads_of(cores, processes) == expected


def test_settings_cover_idle_processes_of_pipelines() -> None:
    # one process has both cores; two and four have one thread each, and some of them may be idle
    assert settings_of(2, (1, 2, 4)) == [(1, 1), (2, 1), (1, 2), (1, 4)]


def test_collectives_are_straight_in_log_log_and_keep_the_last_rate() -> None:
    row = CollectiveTimes("all-reduce", 2, 2, (1.0, 100.0), (1.0, 4.0))
    assert row.time_s(10.0) == pytest.approx(2.0)
    assert row.time_s(0.1) == 1.0
    assert row.time_s(1000.0) == pytest.approx(40.0)


def test_groups_beside_a_group_slow_it() -> None:
    pair_alone = collective_seconds(calibration(), "all-reduce", 2, 2, 1048576.0)
    two_pairs = collective_seconds(calibration(), "all-reduce", 2, 4, 1048576.0)
    assert (pair_alone, two_pairs) == (pytest.approx(2e-3), pytest.approx(4e-3))


def test_a_group_of_three_lies_between_two_and_four() -> None:
    found = collective_seconds(calibration(), "all-gather", 3, 4, 4.0)
    assert found == pytest.approx(4e-4)


def test_an_unmeasured_collective_is_unknown() -> None:
    with pytest.raises(UnknownFigure, match="holds no gossip"):
        collective_seconds(calibration(), "gossip", 2, 2, 4.0)


def test_a_calibration_says_what_it_is() -> None:
    assert calibration().described == (
        "Test Processor, quick calibration of 2026-01-01 (torch 2.13.0, gloo), 1, 2, 4 processes at once, "
        "median error of kernels 1%"
    )
