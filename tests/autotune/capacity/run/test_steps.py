"""The clock of steps, held against a sum over single steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towtank.autotune.capacity.run.records import Stretch
from towtank.autotune.capacity.run.steps import StepClock


def test_steps_of_two_lengths_by_hand() -> None:
    clock = StepClock([Stretch(10, 2.0), Stretch(5, 4.0)])
    assert (clock.steps, clock.longest_s) == (15, 4.0)
    # two short steps and one long one
    assert clock.seconds(8, 3) == 8.0
    assert clock.seconds(0, 15) == 40.0
    assert [clock.steps_within(8, seconds) for seconds in (0.0, 1.9, 2.0, 7.9, 8.0, 24.0, 99.0)] == [
        0, 0, 1, 2, 3, 7, 7,
    ]  # fmt: skip


@given(
    stretches=st.lists(
        st.builds(Stretch, st.integers(1, 20), st.sampled_from([0.3, 1.0, 7.1])), min_size=1, max_size=4
    ),
    data=st.data(),
)
def test_the_clock_is_the_sum_of_its_steps(stretches: list[Stretch], data: st.DataObject) -> None:
    single = [stretch.step_time_s for stretch in stretches for _ in range(stretch.steps)]
    clock = StepClock(stretches)
    step = data.draw(st.integers(0, len(single)))
    steps = data.draw(st.integers(0, len(single) - step))
    seconds = clock.seconds(step, steps)
    assert seconds == pytest.approx(sum(single[step : step + steps]))
    # just the time of these steps holds these steps, and a little less one fewer
    assert clock.steps_within(step, seconds) == steps
    assert clock.steps_within(step, seconds - 0.01) == max(0, steps - 1)
