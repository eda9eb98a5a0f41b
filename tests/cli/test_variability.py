"""`predict --variability`: every kind is read, and what is wrong is told at once."""

import pytest

from towtank.cli.failure import InputError
from towtank.cli.variability import variability_of
from towtank.simulator.network.variability import Variability


def test_every_kind() -> None:
    text = "speed=0.02,jitter=0.01,stragglers=0.001:1.3,slow-links=0.01:0.5,noise=10:25us"
    assert variability_of(text) == Variability(0.02, 0.01, 0.001, 1.3, 0.01, 0.5, 10.0, 25e-6)
    assert variability_of(None) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sped=0.1", "did you mean 'speed'"),
        ("noise=10", "noise = '10' is not understood; write it like noise=10:25us"),
        ("noise=10:25", "'25' has no unit"),
        ("noise=10:25GB", "noise: "),
        ("speed=0.1:2", "write it like speed=0.02"),
        ("jitter=x,jitter=0.1", "jitter is given twice"),
        ("stragglers=0.1:0.5,speed=nan", "write 1 or more"),
        ("", "is no kind"),
    ],
)
def test_wrong_words(text: str, message: str) -> None:
    with pytest.raises(InputError, match="--variability") as found:
        variability_of(text)
    assert message in str(found.value)
