"""`towtank scale`."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from towtank.cli.failure import InputError
from towtank.cli.scale import device_counts

JOB = ["scale", "--model", "tiny-llama", "--machine", "dgx-h100:nodes=2", "--global-batch", "16"]


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("64..512", (64, 128, 256, 512)),
        ("64..500", (64, 128, 256)),
        ("64,96,128", (64, 96, 128)),
        ("64..256:64", (64, 128, 192, 256)),
        ("8, 16..64", (8, 16, 32, 64)),
        ("128,64,64", (64, 128)),
        ("3..24", (3, 6, 12, 24)),
    ],
)
def test_numbers_of_devices(text: str, counts: tuple[int, ...]) -> None:
    assert device_counts(text) == counts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "0",
        "64..",
        "..64",
        "64..8",
        "8..64:0",
        "8..x",
        "8:16",
        "-8",
        "1..100000:1",
        "1..9999999999999:1",
    ],
)
def test_wrong_numbers_of_devices(text: str) -> None:
    with pytest.raises(InputError, match="--devices"):
        device_counts(text)


@pytest.mark.parametrize(
    ("arguments", "phrases"),
    [
        (["--devices", "8..x"], ["--devices 8..x"]),
        (["--devices", "8", "--mode", "strnog"], ["--mode strnog", "did you mean 'strong'"]),
        (["--devices", "8", "--grow", "width"], ["--grow width", "layers, hidden"]),
        (["--devices", "8", "--budget", "soon"], ["--budget soon"]),
        (["--devices", "8", "--budget", "0s"], ["--budget 0s", "above 0"]),
        (["--devices", "8", "--sequence", "0"], ["--sequence 0"]),
        (["--devices", "8", "--fix", "tensor=8"], ["--fix tensor", "did you mean", "'tensor_x'"]),
        (["--devices", "8", "--plot", "no/where/s.svg"], ["--plot", "there is no folder"]),
        (["--devices", "8", "--plot", "s.png"], ["--plot s.png", "s.svg"]),
        (["--devices", "x", "--stack", "anny"], ["2 inputs are wrong", "anny", "--devices x"]),
        (["--devices", "8,12", "--mode", "weak-batch", "--global-batch", "9"], ["13.5 on 12"]),
        ([], ["--devices"]),
    ],
)
def test_wrong_input_is_one_clear_message(towtank, arguments: list[str], phrases: list[str]) -> None:
    outcome = towtank(*JOB, *arguments)

    assert outcome.code == 2, outcome
    assert outcome.out == ""
    for phrase in phrases:
        assert phrase in outcome.err, outcome.err


@pytest.mark.slow
def test_a_study_has_a_row_for_each_point_and_a_plot(towtank, tmp_path: Path) -> None:
    path = tmp_path / "s.svg"
    arguments = [*JOB, "--devices", "1,2,7,64", "--jobs", "1", "--stack", "torchtitan", "--plot", str(path)]
    outcome = towtank(*arguments)

    assert outcome.code == 0, outcome
    assert "tiny-llama on dgx-h100:nodes=2 under torchtitan: strong scaling" in outcome.out
    assert "none: no plan of tiny-llama on 7 devices" in " ".join(outcome.out.split())
    assert "none: dgx-h100 has 16 devices" in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 100
    assert ET.parse(path).getroot().tag.endswith("svg")
    document = json.loads(towtank(*arguments[:-2], "--json").out)
    first, second, third, last = document["points"]
    assert first["efficiency"] == 1.0
    assert first["proven"]
    assert second["tokens_per_s"] == pytest.approx(16 * 256 / second["step_time_s"])
    assert (third["plan"], last["plan"]) == (None, None)
