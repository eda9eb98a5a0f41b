"""The engine is chosen by name, and a wrong name is an error."""

import pytest

from towtank import Plan, predict
from towtank.simulator.errors import PlanError


def test_unknown_engine_is_refused() -> None:
    with pytest.raises(PlanError, match="'fast' is not known; choose compiled, simpy or flows"):
        predict("tiny-llama", "dgx-a100", Plan(), stack="torchtitan", engine="fast")  # type: ignore[arg-type]
