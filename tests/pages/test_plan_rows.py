"""Plans as rows of a page."""

from towtank.pages.plan_rows import plan_rows
from towtank.simulator.plan import Overlap, Plan


def test_rows_are_written_as_settings_are() -> None:
    plan = Plan(tensor_x=4, sequence_parallel=True, recompute="full", overlap=Overlap(tensor=True))
    assert plan_rows(plan) == [
        ("tensor_x", "4"),
        ("sequence_parallel", "true"),
        ("recompute", "full"),
        ("overlap.tensor", "true"),
    ]
