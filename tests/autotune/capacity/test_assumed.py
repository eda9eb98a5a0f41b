"""Inputs that are uncertain even where nobody gives a range."""

from dataclasses import replace

import numpy as np
import pytest

from towtank.autotune.capacity.assumed import assumed_ranges, failure_range
from towtank.autotune.capacity.draws import acts, importance, job_with, luck
from towtank.autotune.capacity.request import Operation, Uncertainty
from towtank.autotune.capacity.run.records import (
    Allocation,
    Checkpoints,
    FailureCause,
    Recovery,
    Stragglers,
    Stretch,
    TrainingJob,
)

JOB = TrainingJob(
    8, (Stretch(100, 1.0),), Checkpoints(10, write_s=2.0), (FailureCause("node", 1e-6),), Recovery(restart_s=600.0)
)  # fmt: skip
STILL = replace(JOB, causes=())


def test_failure_rates_are_as_far_apart_as_those_of_two_published_clusters() -> None:
    # 6.50 and 2.34 failures of a thousand nodes and day
    low, high = failure_range()
    assert high / low == pytest.approx(6.50 / 2.34)
    assert low * high == pytest.approx(1.0)


def test_what_is_given_is_not_drawn() -> None:
    found = assumed_ranges(Operation(), JOB, Uncertainty())
    assert set(found.ranges) == {"failure_rate", "restart"} and len(found.words) == 2
    operation = Operation(failures_per_node_day=0.01, restart_s=600.0)
    assert assumed_ranges(operation, JOB, Uncertainty()).ranges == {}
    given = Uncertainty(ranges={"failure_rate": (1.0, 1.0), "restart": (1.0, 1.1)})
    assert assumed_ranges(Operation(), JOB, given).ranges == {}


def test_nothing_hangs_on_a_rate_of_nothing() -> None:
    assert assumed_ranges(Operation(), STILL, Uncertainty()).ranges == {}


@pytest.mark.parametrize(
    ("job", "name", "changes"),
    [
        (STILL, "failure_rate", False),
        (JOB, "failure_rate", True),
        (STILL, "restart", False),
        (replace(STILL, allocation=Allocation(100.0, start_s=600.0)), "restart", True),
        (replace(STILL, allocation=Allocation(100.0, start_s=20.0)), "restart", False),
        (replace(STILL, stragglers=Stragglers(1e-6, 1.2, 60.0)), "restart", True),
        (JOB, "storage", True),
        (replace(JOB, checkpoints=Checkpoints(10)), "storage", False),
        (JOB, "queue", False),
        (replace(JOB, allocation=Allocation(queue_s=5.0)), "queue", True),
        (STILL, "delivery", True),
    ],
)
def test_an_input_acts_where_the_run_has_it(job: TrainingJob, name: str, changes: bool) -> None:
    assert acts(job, name) is changes


def test_jobs_that_start_as_long_as_a_restart_are_drawn_with_it() -> None:
    job = replace(JOB, allocation=Allocation(100.0, start_s=600.0))
    assert job_with(job, {"restart": 2.0}).allocation.start_s == 1200.0
    given = replace(JOB, allocation=Allocation(100.0, start_s=20.0))
    assert job_with(given, {"restart": 2.0}).allocation.start_s == 20.0


def test_inputs_without_influence_are_mostly_no_more_than_luck() -> None:
    rng = np.random.default_rng(0)
    elapsed = rng.uniform(size=100)
    ranks = [importance({"queue": rng.uniform(size=100)}, elapsed)[0][1] for _ in range(200)]
    beyond = np.mean([abs(rank) > luck(100) for rank in ranks])
    # 5 % of 200 are 10, give or take 3
    assert 0.01 <= beyond <= 0.1
