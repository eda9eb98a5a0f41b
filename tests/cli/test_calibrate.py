from pathlib import Path

import pytest
from tests.hardware_profiles.calibrated.examples import calibration

from towtank.cli import main
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
