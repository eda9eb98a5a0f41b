"""Several intervals in one event: what is done of them at any time."""

import pytest

from towtank.autotune.capacity.run.blocks import Block, intervals_before


@pytest.mark.parametrize(
    ("elapsed_s", "expected"),
    [
        (0.0, (0, 0.0, 0.0)),
        (6.0, (0, 6.0, 0.0)),
        (11.0, (0, 10.0, 1.0)),
        (12.0, (1, 0.0, 0.0)),
        (35.5, (2, 10.0, 1.5)),
        (36.0, (3, 0.0, 0.0)),
    ],
)
def test_intervals_of_ten_seconds_and_checkpoints_of_two(
    elapsed_s: float, expected: tuple[int, float, float]
) -> None:
    block = Block(3, 10.0, 2.0)
    assert block.seconds == 36.0
    assert block.after(elapsed_s) == expected


@pytest.mark.parametrize(("left_s", "intervals"), [(9.0, 0), (11.0, 1), (21.0, 1), (23.0, 2), (34.5, 3)])
def test_training_must_end_in_time_and_its_checkpoint_need_not(left_s: float, intervals: int) -> None:
    assert intervals_before(left_s, 10.0, 2.0) == intervals
