"""How sure fitted factors are, and the file that they are written to."""

from pathlib import Path

import pytest
from made_observations import made, three_stacks_and_a_device

from towtank.hardware_profiles.calibration import BOUNDS, FILE, calibration, training_rate
from towtank.hardware_profiles.errors import InvalidProfile
from towtank.simulator.errors import StackError
from towtank.simulator.stacks.load import fitted_as, list_stacks, load_stack
from towtank.validation.confidence import bootstrap, to_text
from towtank.validation.factors import ANCHOR


def test_exact_rates_leave_no_doubt() -> None:
    found = bootstrap(three_stacks_and_a_device(200), resamples=20)
    assert found.stacks["slow"] == (pytest.approx(0.5), pytest.approx(0.5))
    assert found.devices["other"] == (pytest.approx(0.9), pytest.approx(0.9))


@pytest.mark.parametrize(("groups", "widest", "narrowest"), [(4, 0.5, 0.25), (40, 0.25, 0.0)])
def test_groups_are_resampled_not_rows(groups: int, widest: float, narrowest: float) -> None:
    # 40 rows spread from 0.7 to 1.1: as four groups of ten equal rows they say far less than as 40 groups
    runs = made("one", ANCHOR, 0.8, 40)
    for group in range(groups):
        rate = 0.8 * (0.7 + 0.4 * group / (groups - 1))
        runs += made("one", "other", rate, 40 // groups, source=f"source {group}", groups=1)
    low, high = bootstrap(runs, resamples=60).devices["other"]
    assert narrowest <= high - low <= widest


def test_the_file_repeats_itself_and_is_read_as_written(tmp_path: Path) -> None:
    runs = [*three_stacks_and_a_device(200), *made("fast", "rare", 0.4, 2)]
    text = to_text(runs, resamples=5)
    assert to_text(runs, resamples=5) == text
    path = tmp_path / "training.yaml"
    path.write_text(text, encoding="utf-8")
    found = calibration(path)
    assert found.fit["free_parameters"] == 5
    assert found.fit["rows"] == 1002
    assert (found.fit["groups"], found.fit["bounds"]) == (22, list(BOUNDS))
    assert found.stacks["slow"].rate == 0.5
    assert found.stacks["slow"].rows == 200
    assert training_rate("other", path).interval_90 == (0.9, 0.9)
    assert training_rate("other", path).sources == ("source",)
    for held in ("rare", ANCHOR):
        assert (training_rate(held, path).rate, training_rate(held, path).interval_90) == (1.0, None)
    assert training_rate("not listed", path).rate == 1.0


def test_a_wrong_file_says_all_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "training.yaml"
    path.write_text(
        "name: training\nstacks: {a: {rate: 1}}\n"
        "devices: {b: {rate: 7.0, interval_90: null, rows: 1, groups: 1, sources: []}}\n"
    )
    with pytest.raises(InvalidProfile) as raised:
        calibration(path)
    assert all(
        part in str(raised.value) for part in ("stacks.a must have", "devices.b.rate = 7.0", "fit must say")
    )


def test_stacks_take_their_rates_from_the_calibration() -> None:
    fitted = calibration(FILE).stacks
    for name in list_stacks():
        key = fitted_as(name)
        if name == "axonn":
            # its runs print no grid: they cannot take part in the common fit
            assert key is None and "fitted to twelve runs" in load_stack(name).fitted.source
            continue
        assert key is not None, f"{name}: name a stack of the calibration"
        assert load_stack(name).fitted.compute_efficiency == fitted[key].rate
        assert f"{fitted[key].rows} published dense runs" in load_stack(name).fitted.source
    assert {fitted_as(name) for name in fitted} == set(fitted), "a fitted stack takes its own rate"


def test_a_stack_that_names_no_fitted_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("from: megatron-core\nname: mine\nfitted: {compute_efficiency: megatron-cor}\n")
    with pytest.raises(StackError, match=r"megatron-cor.*megatron-core"):
        load_stack(str(path))
    path = tmp_path / "number.yaml"
    path.write_text("from: megatron-core\nname: number\nfitted: {compute_efficiency: 0.5}\n")
    assert load_stack(str(path)).fitted.compute_efficiency == 0.5
