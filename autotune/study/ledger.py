"""Who tries which configuration: no configuration twice, none lost. Works alike on every storage.

Three properties of Optuna's storages are enough. A trial is made with all its attributes at once and gets a number in
the order of making, so whoever reads after making sees every trial with a smaller number. A waiting trial is taken by
one worker only. A trial is finished once only. Hence: make a trial that already names its configuration, look whether
a smaller number has the same name, and if so withdraw it before anything is measured.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from towtank.autotune.study.leases import Watch, Worker
from towtank.autotune.study.records import Outcome, Parameters
from towtank.autotune.study.view import LOST, NAME, REASON, WITHDRAWN, WORKER, View

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.study import Study


@dataclass(frozen=True, slots=True)
class Claim:
    """A configuration that this worker alone tries."""

    number: int
    trial_id: int
    name: str
    parameters: Parameters


class Ledger:
    """The trials of a study as one worker reads and writes them."""

    def __init__(
        self,
        study: "Study",
        storage: "BaseStorage",
        distributions: Mapping[str, "BaseDistribution"],
        worker: Worker,
        watch: Watch,
    ) -> None:
        self._study, self._storage = study, storage
        self._distributions = dict(distributions)
        self._worker, self._watch = worker, watch
        self._study_id = storage.get_study_id_from_name(study.study_name)
        self._view = View()

    def look(self) -> View:
        """The study as it is now."""
        self._view.update(self._study.get_trials(deepcopy=False))
        return self._view

    def put(self, parameters: Parameters, name: str) -> None:
        """Queue a configuration for whoever comes first."""
        from optuna.trial import TrialState

        self._make(TrialState.WAITING, parameters, {NAME: name}, {})

    def take_waiting(self, total: int) -> Claim | None:
        """Take the first queued configuration that nobody has tried; None if there is none within `total`."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        for trial in self.look().open:
            if trial.state != TrialState.WAITING:
                continue
            try:
                if not self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                    continue
            except UpdateFinishedTrialError:
                continue
            self._storage.set_trial_user_attr(trial._trial_id, WORKER, self._worker.identifier)
            claim = Claim(trial.number, trial._trial_id, trial.user_attrs[NAME], trial.params)
            if self._stands(claim, total):
                return claim
        return None

    def take_new(
        self, parameters: Parameters, name: str, total: int, notes: Mapping[str, Any]
    ) -> Claim | None:
        """Claim a configuration that a sampler proposes; None if another trial has it or `total` are there already.

        `notes` are what the sampler keeps on the trial.
        """
        from optuna.trial import TrialState

        user = {NAME: name, WORKER: self._worker.identifier}
        trial_id = self._make(TrialState.RUNNING, parameters, user, notes)
        number = next(trial.number for trial in self.look().open if trial._trial_id == trial_id)
        claim = Claim(number, trial_id, name, parameters)
        return claim if self._stands(claim, total) else None

    def _make(
        self, state: Any, parameters: Parameters, user: Mapping[str, Any], notes: Mapping[str, Any]
    ) -> int:
        from optuna.trial import create_trial

        template = create_trial(
            state=state,
            params=dict(parameters),
            distributions=self._distributions,
            user_attrs=dict(user),
            system_attrs=dict(notes),
        )
        return self._storage.create_new_trial(self._study_id, template_trial=template)

    def _stands(self, claim: Claim, total: int) -> bool:
        """Whether the claim stands by a look after it was made; if not, it is withdrawn."""
        same = self._view.first_with(claim.name)
        if same is not None and same < claim.number:
            self._withdraw(claim, f"trial {same} has this configuration")
            return False
        if self._view.number_before(claim.number) >= total:
            self._withdraw(claim, f"{total} configurations were asked")
            return False
        return True

    def _withdraw(self, claim: Claim, why: str) -> None:
        self._storage.set_trial_user_attr(claim.trial_id, WITHDRAWN, why)
        self._end_as_failed(claim.trial_id)

    def finish(self, claim: Claim, outcome: Outcome) -> bool:
        """Record what was measured; False if another worker has taken this one for dead in the meantime."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import Trial, TrialState

        try:
            trial = Trial(self._study, claim.trial_id)
            for name, value in outcome.constraints.items():
                trial.set_constraint(name, value)
            self._storage.set_trial_state_values(claim.trial_id, TrialState.COMPLETE, outcome.values)
        except UpdateFinishedTrialError:
            return False
        return True

    def fail(self, claim: Claim, reason: str) -> None:
        """Record that the configuration cannot be measured."""
        self._mark_and_end(claim.trial_id, REASON, reason)

    def give_back(self, claim: Claim) -> None:
        """Queue a configuration again whose measurement was broken off."""
        self._mark_and_end(claim.trial_id, LOST, self._worker.identifier)
        self.requeue_lost()

    def give_back_all(self) -> None:
        """Queue again whatever this worker holds: an interrupt comes at any line between taking and ending."""
        from optuna.trial import TrialState

        for trial in self.look().open:
            if trial.state == TrialState.RUNNING and trial.user_attrs.get(WORKER) == self._worker.identifier:
                self._mark_and_end(trial._trial_id, LOST, self._worker.identifier)
        self.requeue_lost()

    def requeue_lost(self) -> None:
        """Queue the configurations of dead workers again.

        Every step may be done by several workers at once or be broken off: what is queued twice is withdrawn when it
        is taken, and what was marked as lost but not queued is queued here the next time.
        """
        from optuna.trial import TrialState

        running = [trial for trial in self.look().open if trial.state == TrialState.RUNNING]
        attributes = self._study.user_attrs if running else {}
        for trial in running:
            owner = trial.user_attrs.get(WORKER, f"of trial {trial.number}")
            if LOST in trial.user_attrs or self._watch.is_dead(owner, attributes):
                self._mark_and_end(trial._trial_id, LOST, owner)
        view = self.look()
        for trial in view.lost:
            if view.first_with(trial.user_attrs[NAME]) is None:
                self.put(trial.params, trial.user_attrs[NAME])
                view = self.look()

    def _mark_and_end(self, trial_id: int, mark: str, text: str) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self._storage.set_trial_user_attr(trial_id, mark, text)
        except UpdateFinishedTrialError:
            return
        self._end_as_failed(trial_id)

    def _end_as_failed(self, trial_id: int) -> None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        with suppress(UpdateFinishedTrialError):  # somebody else was faster
            self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
