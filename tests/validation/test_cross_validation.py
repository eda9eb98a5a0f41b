"""Cross-validation: what is left out is never fitted to."""

from pathlib import Path

import pytest
from made_observations import made, three_stacks_and_a_device
from made_runs import result, run

from towtank.validation import cross_validation as module
from towtank.validation.cross_validation import (
    FOLDS,
    by_fold,
    by_source,
    cross_validate,
    cross_validation_figures,
    recorded,
    refit_for,
    step_times,
    write,
)
from towtank.validation.evaluate import evaluate_run
from towtank.validation.factors import fit
from towtank.validation.rates import Observation, group_of

ROWS = [
    result(2.0, 1.9, id=f"{source} {tp}", source=source, tp=tp)
    for source in ("NVIDIA/dgxc-benchmarking", "MosaicML llm-foundry", "IBM fms-fsdp")
    for tp in (1, 2, 4, 8)
]


def _observations() -> list[Observation]:
    families = {"NVIDIA/dgxc-benchmarking": "NVIDIA DGX Cloud", "IBM fms-fsdp": "IBM fms-fsdp"}
    return [
        Observation(
            row.run.id,
            families.get(row.run.source, row.run.source),
            group_of(row.run),
            "megatron-core",
            "h100-80gb-sxm",
            0.8,
        )
        for row in ROWS
    ]


@pytest.mark.parametrize(("part", "name"), [(by_fold, "group"), (by_source, "source")])
def test_a_group_or_source_is_never_on_both_sides(monkeypatch: pytest.MonkeyPatch, part, name: str) -> None:
    seen: list[set[str]] = []

    def spy(observations, free=None):
        seen.append({getattr(each, name) for each in observations})
        return fit(observations, free)

    monkeypatch.setattr(module, "fit", spy)
    all_names = {getattr(each, name) for each in _observations()}
    found = refit_for(_observations(), ROWS, part)
    order = list(dict.fromkeys(id(one) for one, _ in found))
    fits = dict(zip(order, seen, strict=True))
    assert len(seen) > 1
    for (one, _), observation in zip(found, _observations(), strict=True):
        inside = fits[id(one)]
        assert getattr(observation, name) not in inside
        assert inside < all_names


def test_every_fold_holds_some_groups() -> None:
    folds = {by_fold(group_of(run(tp=tp, pp=pp)), "") for tp in range(1, 9) for pp in range(1, 9)}
    assert folds == set(range(FOLDS))


def test_what_a_left_out_source_alone_has_seen_is_not_known() -> None:
    # the family of ROWS[0] alone has runs of megatron-core and of the H100: the level (median of 0.5, 0.7, 0.8) x 1
    alone = made("megatron-core", "h100-80gb-sxm", 0.6, 20, source="NVIDIA DGX Cloud")
    ((without, rate),) = refit_for([*three_stacks_and_a_device(), *alone], ROWS[:1], by_source)
    assert rate == pytest.approx(0.7)
    assert "megatron-core" not in without.stacks
    # another source with the same stack and device keeps the factor
    other = made("megatron-core", "h100-80gb-sxm", 0.64, 20, source="elsewhere")
    ((_, rate),) = refit_for([*three_stacks_and_a_device(), *alone, *other], ROWS[:1], by_source)
    assert rate == pytest.approx(0.64)


def test_a_step_is_predicted_anew() -> None:
    slow, known, fast = step_times((run(), (0.5, 0.8, 0.9)))
    assert slow > known > fast
    # communication and waiting do not get faster with compute
    assert known / fast < 0.9 / 0.8


def test_errors_are_those_of_the_steps_without_the_group(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [evaluate_run(run(id=str(tp), tp=tp, dp=16 // tp, step_time_s=1.5)) for tp in (1, 2, 4)]
    rows += [evaluate_run(run(gate=False)), result(2.0, None)]
    rows += [result(2.0, 1.0, source="Nanotron Ultra-Scale Playbook sweep")]
    monkeypatch.setattr(module, "step_times", lambda task: [1.5 * 1.1, 1.5 * 0.7])
    found = cross_validate(_observations() + three_stacks_and_a_device(), rows, jobs=1)
    assert (found.rows, found.groups) == (3, 3)
    assert found.grouped_median == pytest.approx(0.1)
    assert found.sources_mean == pytest.approx(0.3)
    assert found.ratio == pytest.approx(0.1 / found.fitted_median)
    one = found.sources["NVIDIA DGX Cloud"]
    assert (one.rows, one.left_out) == (3, pytest.approx(0.3))
    write(found, tmp_path / "record.json")
    again = recorded(tmp_path / "record.json")
    assert again.sources["NVIDIA DGX Cloud"].unknown == one.unknown
    assert again.fitted_mean == pytest.approx(found.fitted_mean, abs=1e-5)
    figures = {figure.key: figure for figure in cross_validation_figures(again)}
    assert figures["cross_validation_median"].value == pytest.approx(10.0)
    assert figures["cross_validation_median"].verdict == "-"
    assert figures["cross_validation_ratio"].reached is (found.ratio <= 1.3)
