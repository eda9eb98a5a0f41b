"""Times: by a clock that the test turns itself."""

from random import Random

import pytest

from towtank.kernels import timing


class _Clock:
    """Calls that take given times, one after the other, on a clock of their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.order: list[str] = []
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def call(self, name: str, *times_s: float):
        left = list(times_s)

        def run() -> None:
            self.order.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


def test_medians_of_calls_that_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    # two to warm up and one to see how long it takes, then the samples: 1, 5, 3
    slow = clock.call("slow", 9, 9, 1, 1, 5, 3)
    fast = clock.call("fast", 0.5)
    first, second = timing.timings([slow, fast], "cpu", samples=3, budget_s=100)
    assert (first.median_s, first.least_s, first.samples, first.calls) == (3, 1, 3, 1)
    assert (second.median_s, second.least_s) == (0.5, 0.5)
    assert clock.order[-6:] == ["slow", "fast"] * 3


def test_settled_turns_begin_with_a_pause_and_a_call_that_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = _Clock(monkeypatch)
    pauses: list[float] = []
    monkeypatch.setattr(timing.time, "sleep", pauses.append)
    # warm-up, then each sample after one that does not count
    slow = clock.call("slow", 9, 9, 9, 9, 9, 1, 9, 5, 9, 3)
    (found,) = timing.timings([slow], "cpu", samples=3, budget_s=100, settle=True)
    assert (found.median_s, found.least_s) == (3, 1)
    assert pauses == [timing.SETTLE_S] * 4


def test_short_calls_are_repeated_within_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    (found,) = timing.timings([clock.call("a", 1e-5)], "cpu", samples=4)
    assert found.calls == 50  # half a millisecond
    assert found.median_s == pytest.approx(1e-5)
    assert len(clock.order) == timing.WARM_UP + 1 + 4 * 50


def test_the_budget_bounds_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    (found,) = timing.timings([clock.call("a", 1.0)], "cpu", samples=100, budget_s=7)
    assert found.samples == 7
    (found,) = timing.timings([clock.call("a", 1.0)], "cpu", samples=100, budget_s=0.1)
    assert found.samples == 3


def test_turns_are_shuffled_and_each_call_comes_after_one_that_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = _Clock(monkeypatch)
    # two to warm up, one to see how long it takes; then each turn's after one of 9
    calls = [clock.call("a", 9, 9, 1, 9, 1, 9, 2, 9, 3, 9, 4), clock.call("b", 9, 9, 1, 9, 5)]
    calls.append(clock.call("c", 1))
    rows = timing.shuffled_turns(calls, "cpu", Random(0), turns=4, budget_s=100)
    assert [row[0] for row in rows] == [1, 2, 3, 4]
    assert rows[0][1:] == [5, 1]
    pairs = [clock.order[at : at + 2] for at in range(len(clock.order) - 4 * 6, len(clock.order), 2)]
    assert all(first == second for first, second in pairs)
    orders = ["".join(first for first, _ in pairs[at : at + 3]) for at in range(0, 12, 3)]
    assert {"".join(sorted(order)) for order in orders} == {"abc"}
    assert len(set(orders)) > 1


def test_there_are_two_turns_for_either_half_however_small_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = _Clock(monkeypatch)
    rows = timing.shuffled_turns([clock.call("a", 1.0)], "cpu", Random(0), turns=40, budget_s=1e-9)
    assert rows == [[1.0]] * 4
