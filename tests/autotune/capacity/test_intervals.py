"""The best checkpoint interval by simulation beside Young's and Daly's."""

import math

import pytest

from towtank.autotune.capacity.intervals import interval_study
from towtank.autotune.capacity.run.records import Checkpoints, FailureCause, Stretch, TrainingJob


def job(write_s: float = 20.0, rate: float = 1e-4) -> TrainingJob:
    causes = (FailureCause("failure", per_job_s=rate, breaks_node=False),)
    return TrainingJob(8, (Stretch(1000, 10.0),), Checkpoints(60, "sync", write_s), causes)


def test_the_best_simulated_interval_is_dalys() -> None:
    study = interval_study(job(), runs=8)
    assert study is not None
    # sqrt(2 x 20 s x 10,000 s)
    assert study.young_s == pytest.approx(math.sqrt(400_000))
    assert study.daly_s == pytest.approx(study.young_s * (1 + math.sqrt(0.001) / 3 + 0.001 / 9) - 20)
    goodput = dict(study.simulated)
    assert study.daly_s / 1.5 < study.best_s < study.daly_s * 1.5
    assert goodput[study.best_s] > max(goodput[min(goodput)], goodput[max(goodput)])


def test_nothing_to_choose_without_failures_or_cost() -> None:
    assert interval_study(job(rate=0.0)) is None
    assert interval_study(job(write_s=0.0)) is None
