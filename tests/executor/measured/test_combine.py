"""Ranks and steps into one record, on numbers that can be added in the head."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towtank.executor.measured.combine import combine, is_communication, middle_steps, rank_times
from towtank.executor.measured.spans import Key, Seconds, StepMeasurement, Wait
from towtank.simulator.operations import Phase

MATMUL = Key("layer.0.mlp.up.forward", "matmul", Phase.FORWARD)
AGAIN = Key("layer.0.mlp.up.forward", "matmul", Phase.RECOMPUTE)
REDUCE = Key("layer.0.mlp.up.all-reduce", "all-reduce tensor_x", Phase.FORWARD)
SEND = Key("send-forward", "send pipeline", Phase.FORWARD)


def step(number: int, seconds: float, waits: tuple[Wait, ...] = (), **_: float) -> StepMeasurement:
    return StepMeasurement(
        number,
        0.0,
        seconds,
        {MATMUL: Seconds(4, 4), AGAIN: Seconds(2, 2), REDUCE: Seconds(3, 1)},
        waits,
    )


def test_means_over_devices_and_a_row_for_what_has_no_name() -> None:
    slow = rank_times(1, [step(0, 12)], peak_memory_bytes=5)
    record, ranks = combine([rank_times(0, [step(0, 8)], 7), slow], 10, shared_clock=True)
    assert record.step_time_s == 10
    assert record.breakdown_s == pytest.approx(
        {"matmul": 4, "unnamed": 3, "recompute": 2, "exposed all-reduce tensor_x": 1}
    )
    by_name = {(one.name, one.phase): (one.seconds, one.exposed_s) for one in record.operations}
    assert by_name[REDUCE.name, "forward"] == (3, 1)
    assert by_name["unnamed", "forward"] == (3, 3)
    assert record.peak_memory_bytes == 7
    assert [rank.step_time_s for rank in ranks] == [8, 12]
    assert ranks[1].breakdown_s["unnamed"] == 5


def test_steps_around_the_median_count_and_are_scaled_to_it() -> None:
    # means over two devices: 3, 1, 2, 9, 4, 5, 30, 6
    chosen, median_s = middle_steps([[2, 1, 2, 9, 4, 5, 30, 6], [4, 1, 2, 9, 4, 5, 30, 6]])
    assert (chosen, median_s) == ([0, 4, 5, 7], 4.5)
    record, _ = combine([rank_times(0, [step(0, 8), step(1, 10)])], 4.5, shared_clock=True)
    assert sum(record.breakdown_s.values()) == pytest.approx(4.5)
    assert record.breakdown_s["matmul"] == pytest.approx(4 * 4.5 / 9)


def test_waiting_before_the_sender_sends_is_bubble() -> None:
    def sender(at: float) -> tuple[Wait, ...]:
        return (Wait(SEND, 0, 1, True, at, at),)

    def receiver(start: float, finish: float) -> tuple[Wait, ...]:
        return (Wait(SEND, 0, 1, False, start, finish),)

    first = [
        StepMeasurement(0, 0, 10, {SEND: Seconds(0, 0)}, sender(6)),
        StepMeasurement(1, 0, 10, {SEND: Seconds(0, 0)}, sender(1)),
    ]
    second = [
        StepMeasurement(0, 0, 10, {SEND: Seconds(5, 5)}, receiver(2, 7)),  # 4 of 5 before the message left
        StepMeasurement(1, 0, 10, {SEND: Seconds(5, 5)}, receiver(2, 7)),  # it had left before
    ]
    times = [rank_times(0, first), rank_times(1, second)]
    record, ranks = combine(times, 10, shared_clock=True)
    assert ranks[1].breakdown_s == pytest.approx({"bubble": 2, "exposed send pipeline": 3, "unnamed": 5})
    assert record.breakdown_s["bubble"] == pytest.approx(1)
    apart, _ = combine(times, 10, shared_clock=False)
    assert "bubble" not in apart.breakdown_s
    assert apart.breakdown_s["exposed send pipeline"] == pytest.approx(2.5)


@given(
    st.lists(
        st.lists(st.floats(0.001, 100), min_size=3, max_size=3),
        min_size=1,
        max_size=9,
    )
)
def test_operations_and_rows_add_up_to_the_median_step(seconds: list[list[float]]) -> None:
    ranks = list(zip(*seconds, strict=True))
    chosen, median_s = middle_steps(ranks)
    times = [
        rank_times(rank, [step(index, 7 + own[index]) for index in chosen]) for rank, own in enumerate(ranks)
    ]
    record, _ = combine(times, 7 + median_s, shared_clock=True)
    assert sum(record.breakdown_s.values()) == pytest.approx(7 + median_s)
    assert sum(one.exposed_s for one in record.operations) == pytest.approx(7 + median_s)


def test_kinds_of_communication() -> None:
    kinds = ("all-reduce tensor_x", "send pipeline", "gradient reduction data", "parameter all-gather data")
    assert all(is_communication(kind) for kind in kinds)
    assert not any(
        is_communication(kind) for kind in ("matmul", "gradient norm", "optimizer", "unnamed", "bubble")
    )
