"""`towtank explain`."""

import json
from pathlib import Path

import pytest

PLAN = """\
schema: 1
model: gpt-5b
machine: selene:nodes=1
tensor_x: 2
pipeline: 2
data: 2
global_batch: 16
recompute: full
"""


@pytest.fixture
def plan(tmp_path: Path) -> str:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return str(path)


def test_it_names_the_limit_and_what_to_do(towtank, plan: str) -> None:
    outcome = towtank("explain", plan)
    assert outcome.code == 0
    assert "Limited by FLOP" in outcome.out
    assert "recompute full -> none" in outcome.out
    assert "device.flop" in outcome.out


def test_json_sums_to_the_step_and_answers_what_if(towtank, plan: str) -> None:
    outcome = towtank("explain", plan, "--set", "device.flop*=2", "--json")
    found = json.loads(outcome.out)
    assert sum(part["seconds"] for part in found["critical_path"]) == pytest.approx(found["step_time_s"])
    assert found["what_if"]["step_time_s"] < 0.75 * found["step_time_s"]
    assert found["sensitivities"]["device.flop"] < -0.5


def test_wrong_settings_end_with_one_message(towtank, plan: str) -> None:
    outcome = towtank("explain", plan, "--set", "device.flops*=2", "--set", "network.latency=3")
    assert outcome.code == 2
    assert "device.flops cannot be set; did you mean 'device.flop'" in outcome.err
    assert "'3' has no unit" in outcome.err
