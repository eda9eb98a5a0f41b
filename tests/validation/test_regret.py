"""What a choice by prediction costs."""

from dataclasses import replace

import pytest
from made_runs import result

from towtank.validation.evaluate import Result, evaluate
from towtank.validation.figures import figures
from towtank.validation.grouping import definitions
from towtank.validation.mapping.rules import matches
from towtank.validation.regret import Choice, choice, choices, losses
from towtank.validation.rows import RUNS, read_runs


def _row(name: str, measured: float, predicted: float, micro_batch: int, fits: bool | None = True) -> Result:
    made = result(measured, predicted)
    return replace(made, run=replace(made.run, id=name, micro_batch=micro_batch), fits=fits)


def test_the_choice_is_the_one_predicted_fastest() -> None:
    rows = [_row("a", 1.0, 1.2, 1), _row("b", 2.0, 1.1, 2), _row("c", 3.0, 3.0, 4)]
    found = choice("sweep", rows)
    # rates go as 1 / time: the best is twice as fast as the chosen
    assert found == Choice("sweep", 3, chosen="b", best="a", loss=pytest.approx(1.0))


def test_what_is_predicted_not_to_fit_is_not_chosen() -> None:
    rows = [_row("a", 1.0, 1.2, 1), _row("b", 2.0, 1.1, 2, fits=False), _row("c", 3.0, 3.0, 4)]
    assert choice("sweep", rows).chosen == "a"
    # where nothing fits, the time decides
    none = [replace(row, fits=False) for row in rows]
    assert choice("sweep", none).chosen == "b"


def test_repeats_count_once_with_the_median_of_their_rates() -> None:
    # three runs of one configuration: 1, 2 and 4 seconds; the median rate is that of 2 seconds
    rows = [_row(name, measured, 1.0, 1) for name, measured in (("a", 1.0), ("b", 2.0), ("c", 4.0))]
    rows += [_row("d", 1.6, 1.5, 2), _row("e", 3.0, 3.0, 4)]
    found = choice("sweep", rows)
    assert found.configurations == 3
    assert found.chosen == "a"
    assert found.best == "d"
    assert found.loss == pytest.approx(2.0 / 1.6 - 1)


def test_losses_by_family_and_of_all() -> None:
    found = [Choice(f"x, {place}", 3, "a", "b", loss) for place, loss in enumerate((0.0, 0.1, 0.2))]
    table = losses([*found, Choice("y", 3, "a", "b", 1.0)])
    assert list(table) == ["x", "y", "all sweeps"]
    assert (table["x"].sweeps, table["x"].median, table["x"].worst) == (3, pytest.approx(0.1), 0.2)
    assert table["x"].p90 == pytest.approx(0.18)
    assert table["all sweeps"].median == pytest.approx(0.15)
    assert losses([]) == {}


def test_figures_of_regret_by_hand() -> None:
    # one sweep of the erratic kind: the best is twice as fast as the chosen, a loss of 100 %
    rows = [_row("a", 1.0, 1.2, 1), _row("b", 2.0, 1.1, 2), _row("c", 3.0, 3.0, 4)]
    sweep = [
        replace(
            row, run=replace(row.run, source="Nanotron sweep", model="Llama-like 1B", framework="Nanotron")
        )
        for row in rows
    ]
    assert len(choices(sweep)) == 1
    found = {figure.key: figure for figure in figures(sweep)}
    assert found["regret_median"].value == pytest.approx(100.0)
    assert (found["regret_p90"].rows, found["regret_p90"].reached) == (1, False)
    assert (found["regret_p90_calm"].value, found["regret_p90_calm"].rows) == (None, 0)


def _of_a_sweep() -> list[Result]:
    runs = [
        run
        for run in read_runs(RUNS)
        if any(matches(run, sweep["when"]) for sweep in definitions()["sweeps"])
    ]
    return evaluate(runs)


@pytest.fixture(scope="module")
def found() -> tuple[Choice, ...]:
    return choices(_of_a_sweep())


@pytest.mark.slow
def test_the_chosen_configuration_is_within_5_percent_at_the_median(found, capsys) -> None:
    table = losses(found)
    with capsys.disabled():
        for name, loss in table.items():
            print(
                f"\n{name}: {loss.sweeps} sweeps, chosen by prediction behind the measured best by "
                f"{100 * loss.median:.1f} % at the median, {100 * loss.p90:.1f} % at the 90th percentile",
                end="",
            )
    assert set(table) == {"BLOOM 384 A100", "Nanotron", "JUPITER", "MPT", "all sweeps"}
    assert table["all sweeps"].sweeps >= 30
    assert table["all sweeps"].median <= 0.05
    assert table["Nanotron"].median <= 0.05


@pytest.mark.slow
def test_the_chosen_configuration_is_within_15_percent_at_the_90th_percentile_of_calm_sweeps(found) -> None:
    # The goal holds for all sweeps. In the Nanotron sweep it is out of reach: it mixes runs before and after a repair
    # of its pipeline (groups.yaml), and one plan may have been timed before it, the next one after.
    calm = losses([each for each in found if each.family != "Nanotron"])["all sweeps"]
    assert calm.sweeps >= 5
    assert calm.p90 <= 0.15
