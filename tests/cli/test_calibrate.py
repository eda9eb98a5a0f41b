import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.hardware_profiles.calibrated.examples import calibration

from towtank.cli import main
from towtank.executor import trials, verify
from towtank.hardware_profiles.calibrated.read import ENVIRONMENT, write_calibration


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["calibrate", "--quick", "--full"], "keep one of the two"),
        (["calibrate", "--from"], "needs at least one record"),
        (["calibrate", "--from", "run.json", "--full"], "leave --quick, --full and --processes out"),
        (["calibrate", "run.json"], "write --from before"),
        (["calibrate", "run.json", "--quick", "--full"], "2 inputs are wrong"),
        (["calibrate", "--out", "frontier"], "a machine of that name is known already"),
        (["calibrate", "--out", "A B", "--processes", "0"], "a number from 1"),
        (["calibrate", "--processes", "100000"], "take at most"),
        (["calibrate", "--from", "run.json"], "run `towtank calibrate` first"),
        (
            ["verify", "--model", "tiny-llama", "--global-batch", "4", "--machine", "frontier"],
            "take --machine local",
        ),
        (
            ["verify", "--model", "tiny-llama", "--global-batch", "4", "--machine", "nothing"],
            "no machine is named",
        ),
        (
            ["verify", "--model", "tiny-llama", "--global-batch", "4", "--study", "a", "--seed", "1"],
            "--seed, --study: not read without --trials N",
        ),
        (
            ["verify", "--model", "tiny-llama", "--global-batch", "4", "--trials", "4", "--sampler", "tpee"],
            "sampler tpee is unknown; did you mean 'tpe'",
        ),
    ],
)
def test_wrong_input_is_one_message(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_a_prediction_says_what_it_stands_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_calibration(folder / "lab.yaml", calibration("lab"), "")
    arguments = ["predict", "--model", "tiny-llama", "--machine", "lab", "--stack", "towtank-executor"]
    assert main([*arguments, "--set", "data=2,global_batch=4,precision=fp32"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "calibration lab, Test Processor, quick calibration of 2026-01-01" in text


def test_the_machine_of_a_calibration_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_calibration(folder / "lab.yaml", calibration("lab"), "")
    assert main(["machines", "show", "lab"]) == 0
    assert "this machine as calibrated: Test Processor, 2 cores" in capsys.readouterr().out


class _Pool:
    """Runs of 2 s, without processes."""

    def __init__(self, counts: tuple[int, ...], device: str) -> None:
        assert counts == (2,)

    def train(self, settings: Any, threads: int, steps: int, warm_up: int) -> Any:
        return SimpleNamespace(step=SimpleNamespace(step_time_s=2.0))

    def close(self) -> None:
        pass


def test_plans_run_as_trials_of_a_study_that_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_calibration(folder / "lab.yaml", calibration("lab"), "")
    monkeypatch.setattr(verify, "check_machine", lambda machine: None)
    monkeypatch.setattr(trials, "Pool", _Pool)
    monkeypatch.chdir(tmp_path)
    job = ["verify", "--model", "tiny-llama", "--devices", "2", "--global-batch", "4", "--machine", "lab"]
    assert main([*job, "--trials", "3", "--sampler", "random", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["counts"] == {"measured": 3, "failed": 0, "retried": 0}
    assert document["storage"] == str(tmp_path / "verify.journal")
    first = document["plans"][0]
    assert (first["rank"], first["measured_s"]) == (1, 2.0)
    assert first["error"] == pytest.approx(first["predicted_s"] / 2.0 - 1)
    assert main([*job, "--trials", "5", "--sampler", "random"]) == 0
    text = capsys.readouterr().out
    assert "study verify: 5 plans ran" in text
    assert max(map(len, text.splitlines()[:-1])) <= 100
    assert main([*job, "--trials", "5", "--sampler", "random", "--steps", "9"]) == 2
    assert "is of another task: steps 4 there, 9 asked" in capsys.readouterr().err
