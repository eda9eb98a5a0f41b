"""`--memory-margin` of tune and scale."""

import json
from pathlib import Path

import pytest

from towtank.validation.memory_margin import memory_margin

JOB = ["tune", "--model", "llama3-8b", "--machine", "dgx-h100:nodes=1", "--global-batch", "8", "--workers", "1",
       "--finalists", "0", "--stack", "nanotron", "--fix", "recompute=none"]  # fmt: skip
CAPACITY = 80 * 2**30


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOWTANK_STORAGE", raising=False)
    return tmp_path


def _answer(towtank, *options: str) -> dict:
    found = towtank(*JOB, "--json", *options)
    assert found.code == 0, found.err
    return json.loads(found.out)


def test_the_measured_margin_is_the_default_and_is_told(towtank) -> None:
    answer = _answer(towtank)
    share = memory_margin("nanotron").share
    assert answer["memory_margin"] == share
    assert answer["memory_capacity_bytes"] == CAPACITY
    assert all(plan["peak_memory_bytes"] * (1 + share) <= CAPACITY for plan in answer["plans"])
    text = " ".join(towtank(*JOB).out.split())
    assert f"do not fit with {100 * share:.1f} % to spare for the error of predicted memory" in text
    assert "published runs of nanotron needs more" in text


def test_more_room_leaves_fewer_plans(towtank) -> None:
    none, much = _answer(towtank, "--memory-margin", "0"), _answer(towtank, "--memory-margin", "40%")
    assert (none["memory_margin"], much["memory_margin"]) == (0.0, 0.4)
    assert none["counts"]["legal"] == much["counts"]["legal"]
    assert none["counts"]["do_not_fit"] < much["counts"]["do_not_fit"]
    assert "to spare" not in towtank(*JOB, "--memory-margin", "0").out


def test_where_nothing_fits_with_room_that_is_said(towtank) -> None:
    # by --memory-margin 1 a plan must need half of the memory at most; the states of all 8 devices fill more
    found = towtank(
        *JOB, "--memory-margin", "1", "--fix", "zero_stage=0", "--fix", "data=2", "--fix", "tensor_x=4"
    )
    assert found.code == 2
    text = " ".join(found.err.split())
    assert "fits into 80.0 GiB with 100.0 % to spare for the error of predicted memory" in text
    assert "less room for the error of predicted memory (--memory-margin 0)" in text


@pytest.mark.parametrize("share", ["much", "-0.1", "1.5", "nan", "%", ""])
def test_a_wrong_margin_is_one_message_with_the_others(towtank, share: str) -> None:
    found = towtank(*JOB, f"--memory-margin={share}", "--budget", "never")
    assert found.code == 2
    assert f"--memory-margin {share}: must be auto, or a share from 0 to 1 such as 0.05 or 5%" in found.err
    assert "--budget never" in found.err


def test_the_front_and_the_study_keep_the_room(towtank) -> None:
    front = _answer(towtank, "--measure", "throughput", "--measure", "headroom", "--memory-margin", "0.3")
    assert front["memory_margin"] == 0.3
    assert all(plan["peak_memory_bytes"] * 1.3 <= CAPACITY for plan in front["plans"])
    study = _answer(
        towtank, "--method", "optuna", "--sampler", "random", "--trials", "6", "--memory-margin", "0.3"
    )
    assert study["memory_margin"] == 0.3
    assert all(plan["peak_memory_bytes"] * 1.3 <= CAPACITY for plan in study["plans"])
    other = towtank(*JOB, "--method", "optuna", "--trials", "7", "--memory-margin", "0.2")
    assert other.code == 2
    assert "memory_margin" in other.err


def test_scale_keeps_the_room(towtank) -> None:
    job = ["scale", *JOB[1:3], "--machine", "dgx-h100", "--devices", "8", "--global-batch", "8", "--jobs", "1",
           "--stack", "nanotron", "--fix", "recompute=none"]  # fmt: skip
    document = json.loads(towtank(*job, "--json").out)
    share = memory_margin("nanotron").share
    assert document["memory_margin"] == share
    assert document["points"][0]["peak_memory_bytes"] * (1 + share) <= CAPACITY
    assert f"plans keep {100 * share:.1f} % of their predicted memory free" in towtank(*job).out


def test_axonns_own_method_takes_no_margin(towtank) -> None:
    job = ["tune", "--model", "gpt-5b", "--machine", "perlmutter", "--devices", "8", "--global-batch", "64"]
    found = towtank(*job, "--stack", "axonn", "--method", "axonn", "--memory-margin", "0.1")
    assert found.code == 2
    assert "--memory-margin: not read by --method axonn" in found.err
