"""One training run in discrete events: by hand, against closed forms, and what must hold for every run."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from towtank.autotune.capacity.errors import CapacityError
from towtank.autotune.capacity.run.closed_forms import daly_elapsed_s, daly_interval_s, young_interval_s
from towtank.autotune.capacity.run.monte_carlo import simulate_many
from towtank.autotune.capacity.run.records import (
    Allocation,
    Checkpoints,
    Evaluation,
    FailureCause,
    Maintenance,
    Recovery,
    RunOutcome,
    Stragglers,
    Stretch,
    TrainingJob,
)
from towtank.autotune.capacity.run.simulation import _Run, simulate

HOUR, DAY = 3600.0, 86400.0


def run(job: TrainingJob, seed: int = 0) -> RunOutcome:
    return simulate(job, np.random.default_rng(seed))


def test_without_failures_a_run_is_its_steps_and_its_checkpoints() -> None:
    job = TrainingJob(4, (Stretch(100, 2.0), Stretch(50, 4.0)), Checkpoints(60, write_s=7.0))
    outcome = run(job)
    # 100 x 2 + 50 x 4 s of steps; checkpoints after steps 60, 120 and 150
    assert outcome.elapsed_s == pytest.approx(400 + 3 * 7, rel=1e-12)
    assert (outcome.checkpoints, outcome.jobs, outcome.num_interruptions) == (3, 1, 0)


def test_an_asynchronous_checkpoint_stops_the_job_for_its_copy_and_the_last_one_until_it_is_written() -> None:
    job = TrainingJob(1, (Stretch(100, 1.0),), Checkpoints(50, "async", write_s=30.0, copy_s=2.0))
    # the first is written beside training, the second has to be waited for: 100 + 2 + 2 + 30
    assert run(job).elapsed_s == pytest.approx(134.0, rel=1e-12)


def test_a_checkpoint_waits_for_one_that_is_still_being_written() -> None:
    job = TrainingJob(1, (Stretch(20, 1.0),), Checkpoints(10, "async", write_s=25.0, copy_s=2.0))
    # written from 12 to 37; the second copy begins at 37 rather than 22, ends at 39 and is written at 64
    assert run(job).elapsed_s == pytest.approx(64.0, rel=1e-12)


def test_a_lazy_copy_hides_under_the_passes() -> None:
    checkpoints = Checkpoints(10, "lazy", write_s=5.0, copy_s=3.0, hidden_s=2.5)
    assert checkpoints.blocking_s == 0.5


def test_jobs_of_limited_length_are_chained() -> None:
    allocation = Allocation(limit_s=100.0, start_s=10.0)
    job = TrainingJob(1, (Stretch(20, 10.0),), Checkpoints(1000, write_s=5.0), allocation=allocation)
    outcome = run(job)
    # a job of 100 s starts in 10 s and leaves time for two writes, so does 8 steps and saves: 95 s;
    # 8 + 8 + 4 steps take three jobs
    assert outcome.jobs == 3
    assert outcome.elapsed_s == pytest.approx(95 + 95 + 55, rel=1e-12)
    assert outcome.parts_s["start of jobs"] == 30


def test_maintenance_and_evaluation_stop_the_run() -> None:
    job = TrainingJob(
        1, (Stretch(100, 10.0),), Checkpoints(10, write_s=1.0),
        maintenance=Maintenance(500.0, 200.0), evaluation=Evaluation(25, 4.0),
    )  # fmt: skip
    outcome = run(job)
    assert outcome.parts_s["evaluation"] == 16
    assert outcome.parts_s["training"] == pytest.approx(1000)
    assert outcome.jobs == 3
    # a standstill of 200 s, and what of the time before it was too short for a step
    assert 2 * 200 <= outcome.parts_s["maintenance"] <= 2 * 220


@pytest.mark.parametrize(("mean_s", "interval_steps"), [(24 * HOUR, 117), (6 * HOUR, 57)])
@pytest.mark.slow
def test_goodput_under_failures_is_dalys(mean_s: float, interval_steps: int) -> None:
    # the examples of figures 3 and 4 of Daly 2006, with a whole number of intervals
    step_s, checkpoint_s, restart_s = 60.0, 300.0, 600.0
    steps = round(500 * HOUR / (interval_steps * step_s)) * interval_steps
    job = TrainingJob(
        1, (Stretch(steps, step_s),), Checkpoints(interval_steps, write_s=checkpoint_s),
        (FailureCause("any", per_job_s=1 / mean_s, breaks_node=False),), Recovery(restart_s=restart_s),
    )  # fmt: skip
    mean = np.mean([outcome.elapsed_s for outcome in simulate_many(job, 600, seed=1).runs])
    expected = daly_elapsed_s(steps * step_s, interval_steps * step_s, checkpoint_s, restart_s, mean_s)
    assert mean == pytest.approx(expected, rel=0.003)


def test_best_intervals_are_the_published_ones() -> None:
    # Daly 2006, captions of figures 3 to 5: 117, 57 and 9.1 minutes
    minutes = [daly_interval_s(300.0, mean) / 60 for mean in (24 * HOUR, 6 * HOUR, 900.0)]
    assert [round(minutes[0]), round(minutes[1]), round(minutes[2], 1)] == [117, 57, 9.1]
    assert young_interval_s(300.0, 24 * HOUR) / 60 == pytest.approx(120)
    assert daly_interval_s(300.0, 100.0) == 100.0


def test_no_interval_is_better_than_dalys_in_the_closed_form() -> None:
    best = daly_interval_s(300.0, 6 * HOUR)
    elapsed = [daly_elapsed_s(500 * HOUR, best * f, 300.0, 600.0, 6 * HOUR) for f in (0.9, 1.0, 1.1)]
    assert elapsed[1] == min(elapsed)


def one_failure(recovery: Recovery, nodes: int = 4) -> RunOutcome:
    """A run that fails about once, its outcome for a seed with one failure."""
    job = TrainingJob(
        nodes, (Stretch(100, 1.0),), Checkpoints(10), (FailureCause("node", 1 / (100.0 * nodes)),), recovery
    )  # fmt: skip
    return next(found for seed in range(100) if (found := run(job, seed)).num_interruptions == 1)


def test_a_spare_takes_the_place_at_once_and_without_one_the_job_waits() -> None:
    with_spare = one_failure(Recovery(detection_s=3.0, restart_s=4.0, spare_nodes=1, repair_s=1000.0))
    without = one_failure(Recovery(detection_s=3.0, restart_s=4.0, repair_s=1000.0))
    assert with_spare.elapsed_s - with_spare.parts_s["lost work"] == pytest.approx(107.0)
    assert without.parts_s["waiting for a node"] == pytest.approx(1000.0)


def test_an_elastic_job_goes_on_with_fewer_nodes() -> None:
    outcome = one_failure(Recovery(restart_s=4.0, elastic_nodes=2, repair_s=1e5))
    assert outcome.parts_s["training"] == pytest.approx(100.0)
    # the steps left after the last checkpoint take twice as long on two of four nodes
    done = 100.0 - outcome.parts_s["fewer nodes"]
    assert 0 <= done < 100 and done % 10 == pytest.approx(0)
    assert "waiting for a node" not in outcome.parts_s


def test_a_job_waits_for_the_node_that_is_repaired_first() -> None:
    # two failures close together and no spare left: the second wait ends when the first node is back
    job = TrainingJob(
        4, (Stretch(400, 1.0),), Checkpoints(10), (FailureCause("node", 1 / (200.0 * 4)),),
        Recovery(spare_nodes=1, repair_s=1000.0),
    )  # fmt: skip
    outcome = next(found for seed in range(100) if (found := run(job, seed)).num_interruptions == 2)
    assert 600 < outcome.parts_s["waiting for a node"] < 1000
    # nothing but training passed between the two failures
    between = 1000 - outcome.parts_s["waiting for a node"]
    assert between <= 400 + outcome.parts_s["lost work"]


def test_no_job_holds_its_nodes_longer_than_its_limit() -> None:
    # without a spare the wait of 1,000 s does not fit into a job of 300 s
    job = TrainingJob(
        4, (Stretch(100, 1.0),), Checkpoints(10, write_s=1.0), (FailureCause("node", 1 / (150.0 * 4)),),
        Recovery(detection_s=100.0, restart_s=100.0, repair_s=1000.0), Allocation(limit_s=300.0),
    )  # fmt: skip
    for seed in range(20):
        outcome = run(job, seed)
        assert outcome.allocated_s <= 300 * outcome.jobs * (1 + 1e-12)
        if outcome.num_interruptions:
            assert outcome.parts_s["queue"] + outcome.parts_s["waiting for a node"] >= 1000 - 1e-6


def test_a_step_on_few_nodes_that_fits_no_job_waits_for_repairs() -> None:
    # on 1 of 4 nodes a step takes 40 s, and a job only 30
    job = TrainingJob(
        4, (Stretch(50, 10.0),), Checkpoints(2), (FailureCause("node", 1 / (100.0 * 4)),),
        Recovery(repair_s=2000.0, elastic_nodes=3), Allocation(limit_s=30.0),
    )  # fmt: skip
    outcome = next(found for seed in range(100) if (found := run(job, seed)).num_interruptions)
    assert outcome.parts_s["training"] == pytest.approx(500.0)
    assert outcome.parts_s["queue"] > 0


def test_stragglers_cost_what_they_slow_and_a_restart() -> None:
    job = TrainingJob(
        1, (Stretch(1000, 1.0),), Checkpoints(100), recovery=Recovery(restart_s=5.0),
        stragglers=Stragglers(1 / 500.0, slowdown=1.25, detection_s=50.0),
    )  # fmt: skip
    outcome = next(found for seed in range(50) if (found := run(job, seed)).parts_s["restart"] == 5.0)
    assert outcome.parts_s["training"] == pytest.approx(1000)
    # 50 s at 1.25 of the time lose 10 s, and less than one step
    assert 10 <= outcome.parts_s["stragglers"] < 11


@given(
    mean_s=st.floats(200, 1e5), mode=st.sampled_from(["sync", "async", "lazy"]),
    limit_s=st.sampled_from([None, 900.0]), spares=st.integers(0, 2),
    elastic=st.sampled_from([None, 1]), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_the_parts_are_the_whole(
    mean_s: float, mode: str, limit_s: float | None, spares: int, elastic: int | None, seed: int
) -> None:
    job = TrainingJob(
        4, (Stretch(40, 10.0), Stretch(30, 20.0)),
        Checkpoints(8, mode, write_s=20.0, copy_s=4.0, hidden_s=3.0),  # type: ignore[arg-type]
        (FailureCause("node", 0.8 / mean_s / 4), FailureCause("software", 0.0, 0.2 / mean_s, breaks_node=False)),
        Recovery(5.0, 10.0, spares, 300.0, elastic),
        Allocation(limit_s, queue_s=30.0, start_s=10.0),
        Maintenance(2000.0, 100.0),
        Evaluation(20, 5.0),
        Stragglers(0.1 / mean_s, 1.2, 60.0),
    )  # fmt: skip
    outcome = run(job, seed)
    assert sum(outcome.parts_s.values()) == pytest.approx(outcome.elapsed_s, rel=1e-9)
    assert outcome.parts_s["training"] == pytest.approx(job.training_s, rel=1e-9)
    assert 0 < outcome.goodput <= 1 + 1e-9
    assert outcome.allocated_s <= outcome.elapsed_s * (1 + 1e-9)
    assert outcome.elapsed_s == run(job, seed).elapsed_s


@given(
    mean_s=st.floats(300, 1e5), limit_s=st.sampled_from([None, 1500.0]), write_s=st.sampled_from([0.0, 7.0]),
    elastic=st.sampled_from([None, 1]), every=st.sampled_from([None, 8, 15]), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_intervals_in_one_event_are_intervals_one_by_one(
    mean_s: float, limit_s: float | None, write_s: float, elastic: int | None, every: int | None, seed: int
) -> None:
    job = TrainingJob(
        4, (Stretch(41, 10.0), Stretch(90, 20.0)), Checkpoints(4, write_s=write_s),
        (FailureCause("node", 0.8 / mean_s / 4), FailureCause("software", 0.0, 0.2 / mean_s, breaks_node=False)),
        Recovery(5.0, 10.0, 1, 300.0, elastic), Allocation(limit_s, queue_s=30.0, start_s=10.0),
        Maintenance(4000.0, 100.0), Evaluation(every, 5.0) if every else None, Stragglers(0.1 / mean_s, 1.2, 60.0),
    )  # fmt: skip
    found = run(job, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Run, "intervals_undisturbed", lambda self: 0)
        single = run(job, seed)
    assert (found.checkpoints, found.jobs, found.interruptions) == (
        single.checkpoints, single.jobs, single.interruptions,
    )  # fmt: skip
    times = {part: seconds for part, seconds in single.parts_s.items() if seconds > 1e-6}
    assert {part: seconds for part, seconds in found.parts_s.items() if seconds > 1e-6} == pytest.approx(
        times
    )


def test_more_failures_never_help() -> None:
    def elapsed(rate: float) -> float:
        job = TrainingJob(
            10, (Stretch(500, 10.0),), Checkpoints(20, write_s=10.0), (FailureCause("n", rate),), Recovery(30.0, 60.0)
        )  # fmt: skip
        return float(np.mean([outcome.elapsed_s for outcome in simulate_many(job, 40, seed=3).runs]))

    times = [elapsed(rate) for rate in (0.0, 1e-5, 4e-5, 1.6e-4)]
    assert times == sorted(times)


def test_faults_are_told_together() -> None:
    job = TrainingJob(0, (Stretch(0, 1.0),), Checkpoints(0))
    with pytest.raises(CapacityError) as caught:
        run(job)
    assert len(caught.value.faults) == 3


def test_a_run_that_cannot_end_is_refused() -> None:
    job = TrainingJob(
        10, (Stretch(100, 10.0),), Checkpoints(50, write_s=100.0), (FailureCause("node", 0.01),),
        allocation=Allocation(limit_s=60.0),
    )  # fmt: skip
    with pytest.raises(CapacityError, match="never end") as caught:
        run(job)
    assert "has no room" in caught.value.faults[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"maintenance": Maintenance(1000.0, 990.0)}, "time between maintenances = 10 s has no room"),
        ({"stretches": (Stretch(10**9, 10.0),)}, "the steps alone take 317 years"),
        ({"stragglers": Stragglers(0.1, 1.5, 60.0)}, "slow nodes are expected"),
    ],
)
def test_runs_that_would_never_end_say_why(changes: dict[str, Any], words: str) -> None:
    job = TrainingJob(1, (Stretch(100, 10.0),), Checkpoints(10, write_s=5.0))
    with pytest.raises(CapacityError, match=words):
        run(replace(job, **changes))
