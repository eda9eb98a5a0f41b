"""Claims of two workers on one study, step by step."""

import pytest
import toy
from optuna.trial import TrialState

from towtank.autotune.study.leases import Watch, Worker
from towtank.autotune.study.ledger import Ledger
from towtank.autotune.study.records import Outcome, Settings
from towtank.autotune.study.session import OpenStudy, create_or_continue, distributions_of
from towtank.autotune.study.storage import MEMORY

A, B = {"a": 1, "b": "u", "c": 0}, {"a": 2, "b": "u", "c": 0}
DONE = Outcome((1.0,), {})


@pytest.fixture
def opened() -> OpenStudy:
    return create_or_continue(MEMORY, "toys", toy.Toy(seeds=()), Settings(9))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def worker(opened: OpenStudy, name: str, clock: Clock | None = None, lease_s: float = 10.0) -> Ledger:
    who = Worker(name, f"node of {name}", 1, "1")
    watch = Watch(who, lease_s, clock or Clock())
    return Ledger(opened.study, opened.storage, distributions_of(toy.Toy()), who, watch)


def states(opened: OpenStudy) -> list[TrialState]:
    return [trial.state for trial in opened.study.trials]


def test_of_two_claims_on_one_configuration_the_first_stands(opened: OpenStudy) -> None:
    one, two = worker(opened, "one"), worker(opened, "two")
    assert one.take_new(A, "A", 9, {}) is not None
    assert two.take_new(A, "A", 9, {}) is None
    assert two.take_new(B, "B", 9, {}) is not None
    assert opened.study.trials[1].user_attrs["withdrawn"] == "trial 0 has this configuration"
    assert states(opened) == [TrialState.RUNNING, TrialState.FAIL, TrialState.RUNNING]
    counts = one.look().tally()
    assert (counts.running, counts.finished, counts.retried) == (2, 0, 0)


def test_no_more_configurations_than_asked_are_begun(opened: OpenStudy) -> None:
    one, two = worker(opened, "one"), worker(opened, "two")
    assert one.take_new(A, "A", 1, {}) is not None
    assert two.take_new(B, "B", 1, {}) is None
    assert one.look().tally().running == 1


def test_a_queued_configuration_is_taken_once(opened: OpenStudy) -> None:
    one, two = worker(opened, "one"), worker(opened, "two")
    one.put(A, "A")
    taken = one.take_waiting(9)
    assert taken is not None
    assert taken.parameters == A
    assert two.take_waiting(9) is None


def test_what_is_queued_twice_is_done_once(opened: OpenStudy) -> None:
    one, two = worker(opened, "one"), worker(opened, "two")
    one.put(A, "A")
    two.put(A, "A")
    claim = one.take_waiting(9)
    assert claim is not None
    assert two.take_waiting(9) is None
    one.finish(claim, DONE)
    counts = one.look().tally()
    assert (counts.complete, counts.waiting, counts.running) == (1, 0, 0)


def test_the_configuration_of_a_silent_worker_is_queued_again_after_the_lease(opened: OpenStudy) -> None:
    clock = Clock()
    one, two = worker(opened, "one"), worker(opened, "two", clock)
    opened.study.set_user_attr("worker one", {"node": "node of one", "process": 1, "started": "1", "sign": 0})
    lost = one.take_new(A, "A", 9, {})
    assert lost is not None
    two.requeue_lost()
    clock.now = 9.0
    two.requeue_lost()
    assert states(opened) == [TrialState.RUNNING]
    opened.study.set_user_attr("worker one", {"node": "node of one", "process": 1, "started": "1", "sign": 1})
    clock.now = 12.0  # the sign has changed: the lease begins anew
    two.requeue_lost()
    clock.now = 21.0
    two.requeue_lost()
    assert states(opened) == [TrialState.RUNNING]
    clock.now = 22.5
    two.requeue_lost()
    two.requeue_lost()
    assert states(opened) == [TrialState.FAIL, TrialState.WAITING]
    again = two.take_waiting(9)
    assert again is not None
    assert again.name == "A"
    # the silent worker was alive after all: what it says comes too late
    assert not one.finish(lost, DONE)
    assert two.finish(again, DONE)
    counts = two.look().tally()
    assert (counts.complete, counts.retried, counts.waiting) == (1, 1, 0)


def test_a_worker_that_has_left_is_lost_at_once(opened: OpenStudy) -> None:
    one, two = worker(opened, "one"), worker(opened, "two")
    one.take_new(A, "A", 9, {})
    opened.study.set_user_attr(
        "worker one", {"node": "node of one", "process": 1, "started": "1", "sign": -1}
    )
    two.requeue_lost()
    assert states(opened) == [TrialState.FAIL, TrialState.WAITING]


def test_a_trial_that_was_lost_but_not_queued_is_queued_later(opened: OpenStudy) -> None:
    one, two = worker(opened, "one"), worker(opened, "two")
    claim = one.take_new(A, "A", 9, {})
    assert claim is not None
    # whoever found it lost died in between
    opened.storage.set_trial_user_attr(claim.trial_id, "lost", "one")
    opened.storage.set_trial_state_values(claim.trial_id, TrialState.FAIL)
    two.requeue_lost()
    assert states(opened) == [TrialState.FAIL, TrialState.WAITING]


def test_what_could_not_be_measured_is_not_tried_again(opened: OpenStudy) -> None:
    one, two = worker(opened, "one"), worker(opened, "two")
    claim = one.take_new(A, "A", 9, {})
    assert claim is not None
    one.fail(claim, "out of memory")
    two.requeue_lost()
    assert two.take_new(A, "A", 9, {}) is None
    counts = two.look().tally()
    assert (counts.failed, counts.waiting) == (1, 0)
    assert opened.study.trials[0].user_attrs["reason"] == "out of memory"
