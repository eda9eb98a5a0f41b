"""A study from its making to its end, by one worker."""

import json
from pathlib import Path

import pytest
import toy

from towtank.autotune.study import session as sessions
from towtank.autotune.study import storage as storages
from towtank.autotune.study.proposals import worker_seed
from towtank.autotune.study.records import Measure, Outcome, Real, Settings, StudyError, StudyResult
from towtank.autotune.study.session import OpenStudy, create_or_continue, find
from towtank.autotune.study.work import work

TWO = (Measure("y", "minimize", "-"), Measure("minus a", "maximize", "-"))


def run(
    objective: toy.Toy, settings: Settings, place: str = storages.MEMORY
) -> tuple[OpenStudy, StudyResult]:
    opened = create_or_continue(place, "toys", objective, settings)
    return opened, work(opened, objective)


def configurations(opened: OpenStudy) -> list[str]:
    return [trial.user_attrs["configuration"] for trial in opened.study.trials]


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsgaii", "qmc", "brute-force"])
def test_same_seed_and_one_worker_give_the_same_trials(sampler: str) -> None:
    first, _ = run(toy.Toy(), Settings(14, sampler, seed=5))
    second, _ = run(toy.Toy(), Settings(14, sampler, seed=5))
    other, _ = run(toy.Toy(), Settings(14, sampler, seed=6))
    assert configurations(first) == configurations(second)
    assert len(set(configurations(first))) == 14
    assert configurations(other) != configurations(first)


def test_seeds_come_first_and_nothing_is_worse_than_they_are() -> None:
    objective = toy.Toy(seeds=({"a": 6, "b": "u", "c": 3}, {"a": 1, "b": "v", "c": 0}))
    opened, result = run(objective, Settings(6, "random"))
    assert configurations(opened)[:2] == ["6u0", "1v0"]
    assert objective.evaluated[:2] == ["6u0", "1v0"]
    assert result.best[0].outcome.values[0] <= 1.0  # (6 - 7)^2


def test_brute_force_tries_everything_once_and_says_so() -> None:
    objective = toy.Toy()
    _, result = run(objective, Settings(1000, "brute-force"))
    # a is 0..9 but not 4; c counts with b = v only: 9 x (1 + 5) configurations
    assert sorted(objective.evaluated) == sorted(set(objective.evaluated))
    assert len(objective.evaluated) == 54
    assert result.exhausted
    assert (result.counts.complete, result.counts.failed) == (48, 6)  # a = 0 cannot be measured
    assert result.counts.infeasible == 6  # a = 9 breaks the constraint
    assert [trial.name for trial in result.best[:2]] == ["7u0", "6u0"]


def test_real_numbers_are_parameters_too() -> None:
    class Bowl(toy.Toy):
        def name_of(self, parameters: "toy.Parameters") -> str:
            return f"{parameters['x']:.12g}"

        def evaluate(self, parameters: "toy.Parameters") -> "toy.Outcome":
            return Outcome(((float(parameters["x"]) - 3.0) ** 2,), {})

    bowl = Bowl(seeds=({"x": 9.0},))
    bowl.space = {"x": Real(1.0, 10.0, logarithmic=True)}
    _, result = run(bowl, Settings(40, "tpe", seed=1))
    assert result.best[0].outcome.values[0] < 0.1
    with pytest.raises(StudyError, match="tries every value, but a parameter is a real number"):
        run(bowl, Settings(40, "brute-force"))


def test_a_study_goes_on_where_it_stopped(tmp_path: Path) -> None:
    place = str(tmp_path / "toys.journal")
    first, again = toy.Toy(), toy.Toy()
    run(first, Settings(10, "random"), place)
    _, result = run(again, Settings(25, "random"), place)
    assert result.counts.finished == 25
    assert len(again.evaluated) == 15
    assert not set(first.evaluated) & set(again.evaluated)
    nothing_left = toy.Toy()
    run(nothing_left, Settings(25, "random"), place)
    assert nothing_left.evaluated == []


def test_ctrl_c_keeps_what_is_done_and_queues_the_rest_again(tmp_path: Path) -> None:
    class Interrupted(toy.Toy):
        def evaluate(self, parameters: "toy.Parameters") -> "toy.Outcome":
            if len(self.evaluated) == 4:
                raise KeyboardInterrupt
            return super().evaluate(parameters)

    place = str(tmp_path / "toys.journal")
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(), Settings(9, "random"), place)
    again = toy.Toy()
    _, result = run(again, Settings(9, "random"), place)
    assert len(again.evaluated) == 5
    assert (result.counts.finished, result.counts.retried) == (9, 1)
    assert (result.counts.running, result.counts.waiting) == (0, 0)


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii", "nsgaiii"])
def test_several_measures_work_with_every_sampler_for_them(sampler: str) -> None:
    opened, result = run(toy.Toy(measures=TWO), Settings(14, sampler))
    values = [trial.values for trial in opened.study.trials if trial.state.name == "COMPLETE"]
    assert result.counts.finished == 14
    for found in result.best:
        y, minus_a = found.outcome.values
        assert not [v for v in values if v[0] <= y and v[1] >= minus_a and (v[0], v[1]) != (y, minus_a)]


@pytest.mark.parametrize("sampler", ["random", "brute-force"])
def test_several_measures_give_the_front_of_feasible_trials(sampler: str) -> None:
    _, result = run(toy.Toy(measures=TWO), Settings(54, sampler))
    # by hand: y = (a - 7)^2 falls from a = 1 to a = 7, and -a falls too; a = 0 fails, a = 4 is refused
    assert {trial.name for trial in result.best} == {"1u0", "2u0", "3u0", "5u0", "6u0", "7u0"}


def test_constraints_are_those_of_optuna() -> None:
    opened, _ = run(toy.Toy(), Settings(12, "random"))
    complete = [trial for trial in opened.study.trials if trial.state.name == "COMPLETE"]
    assert complete
    for trial in complete:
        assert trial.constraints == {"most": trial.params["a"] - 8.0}


def test_sampler_and_seed_are_in_the_study(tmp_path: Path) -> None:
    opened, _ = run(toy.Toy(), Settings(3, "nsgaii", seed=11), str(tmp_path / "toys.journal"))
    record = opened.study.user_attrs["settings"]
    assert (record["sampler"], record["seed"], record["trials"]) == ("nsgaii", 11, 3)
    assert record["optuna"].startswith("5.")


def test_settings_that_make_no_sense_are_told_all_at_once() -> None:
    with pytest.raises(StudyError) as raised:
        Settings(0, lease_s=float("nan"))
    assert "trials = 0" in str(raised.value)
    assert "lease = nan s" in str(raised.value)


def test_a_storage_that_is_lost_while_a_study_is_made_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "toys.journal"
    monkeypatch.setattr(sessions, "_queue_seeds", lambda opened, objective: (place.unlink(), _write(opened)))
    with pytest.raises(StudyError, match=r"storage .*toys.journal: .*No such file"):
        create_or_continue(str(place), "toys", toy.Toy(), Settings(3, "random"))


def _write(opened: OpenStudy) -> None:
    opened.study.set_user_attr("word", "anything")


def test_another_task_another_sampler_and_another_schema_are_refused(tmp_path: Path) -> None:
    class Other(toy.Toy):
        def identity(self) -> dict[str, object]:
            return {"kind": "toy", "space": 8}

    place = str(tmp_path / "toys.journal")
    opened, _ = run(toy.Toy(), Settings(3, "random"), place)
    with pytest.raises(StudyError, match="is of another task: space 3 there, 8 asked"):
        create_or_continue(place, "toys", Other(), Settings(3, "random"))
    with pytest.raises(
        StudyError, match="uses sampler random with seed 0, but sampler tpe with seed 0 is asked"
    ):
        create_or_continue(place, "toys", toy.Toy(), Settings(3, "tpe"))
    opened.study.set_user_attr("towtank", {"schema": 99})
    with pytest.raises(StudyError, match="has schema 99, and this towtank reads schema 1"):
        create_or_continue(place, "toys", toy.Toy(), Settings(3, "random"))


def test_a_study_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    import optuna

    place = str(tmp_path / "toys.journal")
    study = optuna.create_study(storage=storages.open_storage(place), study_name="toys")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(StudyError, match="was not made by towtank tune"):
        create_or_continue(place, "toys", toy.Toy(), Settings(3))
    with pytest.raises(StudyError, match="was not made by towtank tune"):
        find(place, "toys")


def test_a_worker_finds_the_study_or_hears_which_there_are(tmp_path: Path) -> None:
    place = str(tmp_path / "toys.journal")
    run(toy.Toy(), Settings(3, "random", seed=2), place)
    found, identity = find(place, "toys")
    assert found.settings == Settings(3, "random", seed=2)
    assert identity == {"schema": 1, "kind": "toy", "space": 3}
    with pytest.raises(StudyError, match=r"has no study tops \(there: toys\)"):
        find(place, "tops")


def test_a_journal_that_goes_away_under_a_worker_is_told(tmp_path: Path) -> None:
    place = tmp_path / "toys.journal"

    class Lost(toy.Toy):
        def evaluate(self, parameters: "toy.Parameters") -> "toy.Outcome":
            if len(self.evaluated) == 3:
                place.unlink()
            return super().evaluate(parameters)

    with pytest.raises(StudyError, match=r"toys.journal was lost: .*No such file"):
        run(Lost(), Settings(9, "random"), str(place))


def test_workers_that_start_together_propose_different_things() -> None:
    assert worker_seed(7, "one", 0) == worker_seed(7, "two", 0) == 7
    assert len({worker_seed(7, name, others) for name in ("one", "two") for others in (1, 2)}) == 4


def test_parameters_of_trials_are_readable_in_the_journal(tmp_path: Path) -> None:
    place = tmp_path / "toys.journal"
    run(toy.Toy(), Settings(2, "random"), str(place))
    records = [json.loads(line) for line in place.read_text().splitlines()]
    made = [record for record in records if "params" in record]
    assert made[0]["user_attrs"]["configuration"] == "2u0"
