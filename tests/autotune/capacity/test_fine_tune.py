"""AxoNN's fine-tune of Llama 3.1 405B on Frontier: a plan that fits is found, and its memory is shown."""

from pathlib import Path

import pytest

from towtank.autotune.capacity.fine_tunes import fine_tunes, lines, planned
from towtank.autotune.scaling.series import ScalePoint
from towtank.autotune.scaling.study import TunedPoint
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.count import parameters
from towtank.simulator.models.load import load_model


@pytest.mark.slow
def test_a_plan_for_405_billion_parameters_fits_1024_devices_of_frontier() -> None:
    one = fine_tunes()["axonn-405b"]
    point = planned(one)
    assert point.found is not None, point.why_not
    plan, peak = point.found.plan, point.found.peak_memory_bytes
    shards = plan.tensor_x * plan.tensor_y * plan.tensor_z
    capacity = load_machine("frontier").device.memory_capacity_bytes
    assert capacity is not None
    # more than the states of mixed-precision AdamW, 16 bytes a parameter, in its shards; and within the device
    assert 16 * parameters(load_model(one.model)).total / shards < peak < capacity
    assert plan.num_devices == one.devices == shards * plan.data * plan.pipeline
    (row,) = [line for line in lines({"axonn-405b": point}) if line.startswith("| axonn-405b")]
    assert f"{peak / 2**30:.1f} of {capacity / 2**30:.1f}" in row


def test_a_fine_tune_without_a_plan_says_why() -> None:
    one = fine_tunes()["axonn-405b"]
    point = TunedPoint(ScalePoint(one.devices, load_model(one.model), one.global_batch), None, "too small")
    assert "| axonn-405b | 1,024 of frontier | axonn | too small |  |  |" in lines({"axonn-405b": point})


def test_the_page_has_every_fine_tune_with_its_memory() -> None:
    page = (Path(__file__).parents[3] / "docs" / "totals.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and " of frontier | axonn | " in line]
    assert [row.split("|")[1].strip() for row in rows] == list(fine_tunes())
    peak, capacity = (float(word) for word in rows[0].split("|")[5].split(" of "))
    assert 0 < peak < capacity
