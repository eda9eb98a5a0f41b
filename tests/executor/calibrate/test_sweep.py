from pathlib import Path
from typing import cast

import pytest

from towtank.executor.calibrate.build import Request, request_for
from towtank.executor.calibrate.journal import Journal
from towtank.executor.calibrate.pool import CalibrationError, Order, Pool
from towtank.executor.calibrate.sweep import Swept, sweep
from towtank.hardware_profiles.calibrated.here import Here

HERE = Here("Test Processor", 2, 16 * 2.0**30, 2.0**25, (), None, None)


class _Instant:
    """Answers at once: a microsecond for each thousand FLOP or bytes, times the processes at work."""

    def __init__(self, most: int | None = None) -> None:
        self.orders: list[Order] = []
        self.most = most

    def measure(self, order: Order) -> list[float]:
        if self.most is not None and len(self.orders) == self.most:
            raise CalibrationError("stopped")
        self.orders.append(order)
        return [1e-6 * order.processes * (1 + len(point.key)) for point in order.points]


def _sweep(pool: _Instant, journal: Journal, seen: list[tuple[int, int]]) -> Swept:
    return sweep(
        "cpu", "quick", (1, 2, 4), ("fp32",), 2, journal, lambda *done: seen.append(done), cast("Pool", pool)
    )


def test_every_point_is_measured_in_every_setting(tmp_path: Path) -> None:
    pool, seen = _Instant(), list[tuple[int, int]]()
    found = _sweep(pool, Journal(tmp_path / "j", {}), seen)
    settings = {(order.threads, order.processes) for order in pool.orders}
    assert settings == {(2, 1), (1, 1), (1, 2), (1, 4)}
    by_setting = {
        setting: [s for s in found.samples if (s.threads, s.processes) == setting] for setting in settings
    }
    assert len({len(samples) for samples in by_setting.values()}) == 1
    assert seen[-1] == (seen[-1][1], seen[-1][1])
    assert {(row.size, row.processes) for row in found.collectives} == {(2, 2), (2, 4), (4, 4)}


def test_an_interrupted_sweep_goes_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", {})
    with pytest.raises(CalibrationError):
        _sweep(_Instant(most=5), journal, [])
    rest, whole = _Instant(), _Instant()
    again = _sweep(rest, Journal(tmp_path / "j", {}), [])
    assert again == _sweep(whole, Journal(tmp_path / "k", {}), [])
    assert len(rest.orders) == len(whole.orders) - 5


def test_nothing_is_measured_twice(tmp_path: Path) -> None:
    journal, pool = Journal(tmp_path / "j", {}), _Instant()
    _sweep(_Instant(), journal, [])
    _sweep(pool, journal, [])
    assert pool.orders == []


def test_the_request_of_a_cpu() -> None:
    found = request_for("lab", "quick", None, HERE)
    assert found == Request("lab", "quick", "cpu", (1, 2, 4), ("fp32", "bf16"), 2)
    assert request_for("lab", "full", 6, HERE).process_counts == (1, 2, 4, 6)


def test_all_faults_of_a_request_at_once() -> None:
    with pytest.raises(CalibrationError) as caught:
        request_for("frontier", "quick", 99, HERE)
    assert "a machine of that name is known" in str(caught.value)
    assert "this machine has 2 cores; take at most 16" in str(caught.value)
