"""`towtank scale`."""

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
    "text", ["", "x", "0", "64..", "..64", "64..8", "8..64:0", "8..x", "8:16", "-8", "1..100000:1"]
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
        (["--devices", "8", "--plot", "no/where/s.svg"], ["--plot", "there is no folder"]),
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
