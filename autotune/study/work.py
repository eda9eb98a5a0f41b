"""One worker of a study: take a configuration, measure it, write it down, until there are as many as asked."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from towtank.autotune.study.leases import PREFIX, Heartbeat, Worker
from towtank.autotune.study.ledger import Claim, Ledger
from towtank.autotune.study.pareto import best_of
from towtank.autotune.study.proposals import Proposer, worker_seed
from towtank.autotune.study.records import (
    Finished,
    Objective,
    Outcome,
    StudyCounts,
    StudyError,
    StudyResult,
    TrialError,
)
from towtank.autotune.study.session import OpenStudy, distributions_of, ledger_of
from towtank.autotune.study.storage import MEMORY, reason_of, shown
from towtank.autotune.study.view import View, finished_of

_LOOK_S = 1.0
"""Time between two looks for dead workers."""
_WAIT_S = 0.2
"""Time between two looks for work when others hold all that is left."""

Progress = Callable[[StudyCounts, Finished | None], None]
"""Called after each trial with the counts and, with one measure, the best trial so far."""


def work(opened: OpenStudy, objective: Objective, progress: Progress | None = None) -> StudyResult:
    """Try configurations until the study has as many as asked, together with whoever else works on it.

    Ctrl-C (KeyboardInterrupt) queues the configuration in hand again and is passed on.

    Raises:
        StudyError: the storage is out of reach; what was written before is there.
    """
    from optuna.exceptions import StorageInternalError

    worker = Worker.this_process()
    ledger = ledger_of(opened, objective, worker)
    try:
        with _signs_of_life(opened, worker):  # first, so that workers that start at once see each other
            seed = worker_seed(opened.settings.seed, worker.identifier, _others(opened, ledger, worker))
            proposer = Proposer(objective, distributions_of(objective), opened.settings, seed)
            shift = _Shift(ledger, proposer, objective, opened.settings.trials)
            try:
                exhausted = shift.run(progress)
            except KeyboardInterrupt:
                ledger.give_back_all()
                raise
    except StorageInternalError as error:
        raise StudyError(f"storage {shown(opened.place)} was lost: {reason_of(error)}") from error
    return result_of(opened, objective, exhausted=exhausted)


def _others(opened: OpenStudy, ledger: Ledger, worker: Worker) -> int:
    """A number that is 0 for the first worker of a study, as long as it is the only one."""
    counts = ledger.look().tally()
    workers = [key for key in opened.study.user_attrs if key.startswith(PREFIX)]
    return counts.finished + counts.running + len(set(workers) - {PREFIX + worker.identifier})


def _signs_of_life(opened: OpenStudy, worker: Worker) -> AbstractContextManager[Any]:
    if opened.place == MEMORY:
        return nullcontext()
    interval_s = opened.settings.lease_s / 4
    return Heartbeat(opened.study, worker, interval_s, opened.storage.remove_session)


class _Shift:
    """One worker at work."""

    def __init__(self, ledger: Ledger, proposer: Proposer, objective: Objective, total: int) -> None:
        self._ledger, self._proposer, self._objective, self._total = ledger, proposer, objective, total
        self._looked = float("-inf")
        self._exhausted = False
        self._reported = 0
        self._best: Finished | None = None

    def run(self, progress: Progress | None) -> bool:
        """Work until nothing is left; returns whether the sampler found nothing new."""
        while True:
            self._look_for_lost()
            claim = self._next()
            if claim is not None:
                self._try(claim)
                if progress is not None:
                    self._report(progress)
                continue
            counts = self._ledger.look().tally()
            if counts.finished >= self._total:
                return False
            if counts.running:
                time.sleep(_WAIT_S)  # others are at it: one of them may die
            elif self._exhausted and not counts.waiting:
                return True

    def _look_for_lost(self) -> None:
        now = time.monotonic()
        if now - self._looked >= _LOOK_S:
            self._ledger.requeue_lost()
            self._looked = now

    def _next(self) -> Claim | None:
        """A queued configuration, or one that the sampler proposes while fewer than asked are there."""
        view = self._ledger.look()
        counts = view.tally()
        if counts.finished + counts.running >= self._total:
            return None
        if counts.waiting:
            return self._ledger.take_waiting(self._total)
        if self._exhausted:
            return None
        self._proposer.see(view)
        return self._propose()

    def _propose(self) -> Claim | None:
        found = self._proposer.propose()
        if found is None:
            self._exhausted = True
            return None
        proposal, trial = found
        claim = self._ledger.take_new(proposal.parameters, proposal.name, self._total, proposal.notes)
        if claim is None:
            self._proposer.reject(trial)
        else:
            self._proposer.begin(claim.number, proposal, trial)
        return claim

    def _try(self, claim: Claim) -> None:
        outcome: Outcome | None = None
        try:
            outcome = self._objective.evaluate(claim.parameters)
        except TrialError as failure:
            self._ledger.fail(claim, str(failure))
        except BaseException:
            self._ledger.give_back(claim)
            raise
        else:
            self._ledger.finish(claim, outcome)
        self._proposer.end(claim.number, outcome)

    def _report(self, progress: Progress) -> None:
        """Report the counts and the best trial, looking at those only that have ended since the last report."""
        view, measures = self._ledger.look(), self._objective.measures
        for trial in view.finished[self._reported :]:
            found = finished_of(trial)
            if found is not None and found.outcome.feasible and len(measures) == 1:
                self._best = best_of([found, *([self._best] if self._best else [])], measures)[0]
        self._reported = len(view.finished)
        progress(view.tally(), self._best)


def result_of(opened: OpenStudy, objective: Objective, *, exhausted: bool = False) -> StudyResult:
    """What the study has found so far."""
    view = View()
    view.update(opened.study.get_trials(deepcopy=False))
    best = best_of(view.feasible(), objective.measures)
    return StudyResult(opened.study.study_name, objective.measures, view.tally(), tuple(best), exhausted)
