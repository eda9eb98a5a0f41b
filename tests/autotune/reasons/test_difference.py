"""What a sentence says about the difference of two steps."""

import pytest

from towtank.autotune.reasons.difference import slower_text, step_difference
from towtank.autotune.reasons.words import gibibytes, percent, seconds, words
from towtank.simulator.plan import Plan

WINNER = {"matmul": 1.0, "bubble": 0.5, "exposed gradient reduction data": 0.1, "recompute": 0.4}
LOSER = {"matmul": 0.99, "bubble": 0.59, "exposed gradient reduction data": 0.31, "attention": 0.39}


def test_rows_of_either_step_are_compared() -> None:
    found = step_difference(LOSER, WINNER)

    assert list(found) == ["attention", "exposed gradient reduction data", "bubble", "matmul", "recompute"]
    assert found["attention"] == 0.39
    assert found["recompute"] == -0.4
    assert sum(found.values()) == pytest.approx(2.28 - 2.0)


def test_the_sentence_of_the_issue() -> None:
    slower = {"matmul": 1.0, "bubble": 0.59, "exposed gradient reduction data": 0.31, "recompute": 0.38}
    text = slower_text(Plan(), 2.28, Plan(), 2.0, step_difference(slower, WINNER))

    assert text == "14 % slower: data-parallel all-reduce exposed 210 ms longer, pipeline bubble +90.0 ms"


def test_what_is_won_back_is_told_after_a_but() -> None:
    text = slower_text(Plan(), 2.28, Plan(), 2.0, step_difference(LOSER, WINNER))

    assert text == (
        "14 % slower: attention +390 ms, data-parallel all-reduce exposed 210 ms longer, pipeline bubble +90.0 ms; "
        "but recomputation -400 ms"
    )


def test_a_faster_plan_is_told_what_it_saves() -> None:
    text = slower_text(Plan(), 2.0, Plan(), 2.28, step_difference(WINNER, LOSER))

    assert text.startswith("12 % faster: attention -390 ms, data-parallel all-reduce exposed 210 ms less")
    assert text.endswith("; but recomputation +400 ms")


def test_equal_steps_are_as_fast() -> None:
    assert slower_text(Plan(), 2.0, Plan(), 2.0, step_difference(WINNER, WINNER)) == "as fast"


@pytest.mark.parametrize(
    ("kind", "plan", "expected"),
    [
        ("exposed gradient reduction data", Plan(data=8), "data-parallel all-reduce"),
        ("exposed gradient reduction data", Plan(data=8, zero_stage=1), "data-parallel reduce-scatter"),
        (
            "exposed gradient reduction data",
            Plan(data=8, data_shard=4, zero_stage=2),
            "data-parallel reduce-scatter and all-reduce",
        ),
        ("exposed all-reduce tensor_y", Plan(tensor_y=2), "tensor-parallel all-reduce over y"),
        ("exposed all-gather weight_shard", Plan(tensor_z=2), "all-gather of sharded weights"),
        ("exposed reduce-scatter expert_shard", Plan(), "reduce-scatter of sharded gradients of experts"),
        ("exposed all-to-all expert", Plan(expert=2), "expert-parallel all-to-all"),
        ("exposed send pipeline", Plan(pipeline=2), "pipeline send"),
        ("gradient norm", Plan(), "gradient norm"),
    ],
)
def test_rows_have_names_of_the_field(kind: str, plan: Plan, expected: str) -> None:
    assert words(kind, plan) == expected


def test_a_collective_is_named_by_the_plan_that_has_more_of_it() -> None:
    sharded, copied = Plan(data=8, zero_stage=1), Plan(data=8)
    row = {"exposed gradient reduction data": 1.0}

    assert "data-parallel reduce-scatter exposed 1.00 s longer" in slower_text(sharded, 2.0, copied, 1.0, row)
    row = {"exposed gradient reduction data": -1.0}
    assert "data-parallel all-reduce exposed 1.00 s less" in slower_text(sharded, 1.0, copied, 2.0, row)


def test_numbers_have_two_or_three_digits() -> None:
    assert [seconds(value) for value in (0.21, 0.0902, 1.238, 12.34, 0.9999, 3e-6)] == [
        "210 ms",
        "90.2 ms",
        "1.24 s",
        "12.3 s",
        "1.00 s",
        "3.00 us",
    ]
    assert [percent(value) for value in (0.14, 0.0321, 1.5)] == ["14 %", "3.2 %", "150 %"]
    assert [gibibytes(value) for value in (3.1 * 2**30, 2**20)] == ["3.1 GiB", "0.00098 GiB"]
