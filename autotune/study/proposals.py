"""Asking a sampler for configurations that nobody has tried."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from towtank.autotune.study.records import (
    Choice,
    Objective,
    Outcome,
    Parameter,
    Parameters,
    RefusedError,
    Settings,
    Whole,
)
from towtank.autotune.study.samplers import make_sampler
from towtank.autotune.study.view import NAME, View, counts, finished_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

_TRIES = 20
"""Proposals in a row that may be known or refused before the sampler gives way to chance."""
_CHANCES = 200
"""Proposals by chance that may be known or refused before nothing is left."""


def distribution_of(parameter: Parameter) -> "BaseDistribution":
    """The parameter in Optuna's terms."""
    from optuna import distributions

    if isinstance(parameter, Choice):
        return distributions.CategoricalDistribution(parameter.values)
    if isinstance(parameter, Whole):
        return distributions.IntDistribution(parameter.least, parameter.most, log=parameter.logarithmic)
    return distributions.FloatDistribution(parameter.least, parameter.most, log=parameter.logarithmic)


def worker_seed(seed: int, worker: str, others: int) -> int:
    """Seed of one worker's sampler: the user's where no `others` have worked on the study, else mixed with who it is.

    Two workers with the same stream of random numbers would propose the same configurations, and so would a study
    that goes on.
    """
    if others == 0:
        return seed
    return zlib.crc32(f"{seed} {worker} {others}".encode())


@dataclass(frozen=True, slots=True)
class Proposal:
    """A configuration that nobody has tried as far as this worker knows."""

    parameters: Parameters
    name: str
    notes: Mapping[str, Any]
    """What the sampler keeps on the trial, such as its generation."""


class Proposer:
    """A sampler over a copy of the study in memory.

    The sampler reads and writes a study much more often than a trial is worth; in memory that costs nothing, and the
    shared storage sees a proposal as one record. Proposals that are refused or known never reach it.
    """

    def __init__(
        self,
        objective: Objective,
        distributions: Mapping[str, "BaseDistribution"],
        settings: Settings,
        seed: int,
    ) -> None:
        import optuna

        self._objective, self._distributions = objective, dict(distributions)
        self._storage = optuna.storages.InMemoryStorage()
        self._study = optuna.create_study(
            storage=self._storage,
            sampler=make_sampler(settings.sampler, seed),
            directions=[measure.direction for measure in objective.measures],
        )
        self._chance = make_sampler("random", seed + 1)
        self._known: set[str] = set()
        """Names of configurations that somebody has begun."""
        self._seen = 0
        self._own: set[int] = set()
        self._open: dict[int, Trial] = {}
        """Trials of the copy that this worker has begun, by their number in the study."""
        self._all_tried = False

    def see(self, view: View) -> None:
        """Take over what other workers and earlier runs have begun and measured."""
        for trial in view.open:
            if counts(trial):
                self._known.add(trial.user_attrs[NAME])
        for trial in view.finished[self._seen :]:
            self._known.add(trial.user_attrs[NAME])
            if trial.number not in self._own and finished_of(trial) is not None:
                self._study.add_trial(trial)
        self._seen = len(view.finished)

    def propose(self) -> tuple[Proposal, "Trial"] | None:
        """The next configuration, with the trial of the copy; None where the sampler finds nothing new."""
        sampler = self._study.sampler
        if self._all_tried:
            return None
        try:
            for attempt in range(_TRIES + _CHANCES):
                if attempt == _TRIES:
                    self._study.sampler = self._chance
                trial = self._study.ask(self._distributions)
                found = self._new(trial)
                if found is not None:
                    return found, trial
        finally:
            self._study.sampler = sampler
        return None

    def _new(self, trial: "Trial") -> Proposal | None:
        parameters = trial.params
        try:
            name = self._objective.name_of(parameters)
        except RefusedError:
            self._reject(trial)
            return None
        if name in self._known:  # told again it would draw the sampler to where it was
            self._reject(trial)
            return None
        return Proposal(parameters, name, self._storage.get_trial(trial._trial_id).system_attrs)

    def begin(self, number: int, proposal: Proposal, trial: "Trial") -> None:
        """Note that the proposal was claimed as trial `number` of the study."""
        self._own.add(number)
        self._known.add(proposal.name)
        self._open[number] = trial

    def reject(self, trial: "Trial") -> None:
        """Note that the proposal could not be claimed."""
        self._reject(trial)

    def end(self, number: int, outcome: Outcome | None) -> None:
        """Tell the sampler what came out of a trial of this worker; None if it could not be measured."""
        trial = self._open.pop(number, None)
        if trial is None:
            return  # it was queued, so the sampler sees it as it sees those of other workers
        if outcome is None:
            self._reject(trial)
        else:
            self._tell(trial, outcome)

    def _tell(self, trial: "Trial", outcome: Outcome) -> None:
        for name, value in outcome.constraints.items():
            trial.set_constraint(name, value)
        self._finish(trial, list(outcome.values))

    def _reject(self, trial: "Trial") -> None:
        self._finish(trial, None)

    def _finish(self, trial: "Trial", values: Sequence[float] | None) -> None:
        from optuna.trial import TrialState

        state = TrialState.FAIL if values is None else TrialState.COMPLETE
        try:
            self._study.tell(trial, values, state=state)
        except RuntimeError as error:
            # the brute-force sampler calls Study.stop after its last value, which only optimize() may hear
            if "Study.stop" not in str(error):
                raise
            self._all_tried = True
