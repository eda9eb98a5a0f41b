"""The trials of a study as they stand, kept up to date at the cost of what has changed."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import TYPE_CHECKING

from towtank.autotune.study.records import Finished, Outcome, StudyCounts

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

NAME = "configuration"
"""Attribute of trials: name of their configuration."""
WORKER = "worker"
"""Who has taken the trial."""
LOST = "lost"
"""On trials whose worker died; the value is the worker."""
WITHDRAWN = "withdrawn"
"""On trials that were given up before anything was measured; the value is why."""
REASON = "reason"
"""On trials that could not be measured; the value is why."""


class View:
    """What has become of the trials so far."""

    def __init__(self) -> None:
        self.finished: list[FrozenTrial] = []
        """Trials that ended and stand for their configuration, in the order in which this worker saw them end."""
        self.open: list[FrozenTrial] = []
        """Trials that wait or run, by number."""
        self.lost: list[FrozenTrial] = []
        """Trials that ended because their worker died."""
        self._read = 0
        self._numbers: list[int] = []
        self._first: dict[str, int] = {}
        self._complete = self._infeasible = self._failed = 0

    def update(self, trials: Sequence["FrozenTrial"]) -> None:
        """Take over all trials of the study, as storages list them: by number, from 0, without a gap."""
        numbers = [trial.number for trial in self.open]
        numbers += range(self._read, len(trials))
        self._read = len(trials)
        self.open = []
        for number in numbers:
            trial = trials[number]
            if trial.state.is_finished():
                self._end(trial)
            else:
                self.open.append(trial)

    def _end(self, trial: "FrozenTrial") -> None:
        from optuna.trial import TrialState

        if not counts(trial):
            if WITHDRAWN not in trial.user_attrs:
                self.lost.append(trial)
            return
        self.finished.append(trial)
        insort(self._numbers, trial.number)
        name = trial.user_attrs[NAME]
        self._first[name] = min(self._first.get(name, trial.number), trial.number)
        if trial.state == TrialState.COMPLETE:
            self._complete += 1
            self._infeasible += not outcome_of(trial).feasible
        else:
            self._failed += 1

    def first_with(self, name: str) -> int | None:
        """Smallest number of the trials that stand for this configuration."""
        numbers = [trial.number for trial in self.open if counts(trial) and trial.user_attrs[NAME] == name]
        if name in self._first:
            numbers.append(self._first[name])
        return min(numbers, default=None)

    def number_before(self, number: int) -> int:
        """How many trials with a smaller number stand for a configuration."""
        waiting = sum(trial.number < number and counts(trial) for trial in self.open)
        return bisect_left(self._numbers, number) + waiting

    def tally(self) -> StudyCounts:
        """Numbers of configurations by what has become of them."""
        from optuna.trial import TrialState

        standing = [trial for trial in self.open if counts(trial)]
        running = sum(trial.state == TrialState.RUNNING for trial in standing)
        return StudyCounts(
            complete=self._complete,
            infeasible=self._infeasible,
            failed=self._failed,
            running=running,
            waiting=len(standing) - running,
            retried=len(self.lost),
        )

    def feasible(self) -> list[Finished]:
        """The measured configurations that keep all constraints."""
        return [found for trial in self.finished if (found := finished_of(trial)) and found.outcome.feasible]


def counts(trial: "FrozenTrial") -> bool:
    """Whether a trial stands for its configuration: waiting, running, measured, or found impossible to measure."""
    from optuna.trial import TrialState

    if trial.state == TrialState.COMPLETE:
        return True
    return WITHDRAWN not in trial.user_attrs and LOST not in trial.user_attrs


def outcome_of(trial: "FrozenTrial") -> Outcome:
    """What a complete trial gave."""
    return Outcome(tuple(trial.values), dict(trial.constraints))


def finished_of(trial: "FrozenTrial") -> Finished | None:
    """A measured configuration; None for one that could not be measured."""
    from optuna.trial import TrialState

    if trial.state != TrialState.COMPLETE:
        return None
    return Finished(trial.number, trial.user_attrs[NAME], trial.params, outcome_of(trial))
