"""`towtank capacity`."""

import json

import pytest


@pytest.mark.slow
def test_the_command(towtank) -> None:
    outcome = towtank(
        "capacity", "--model", "llama2-7b", "--tokens", "10G", "--machines", "dgx-h100:nodes=4", "--devices", "16,32",
        "--global-batch", "64", "--deadline", "20d", "--stack", "torchtitan", "--runs", "10", "--json",
        "--price-per-device-hour", "2",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert [one["devices"] for one in found["candidates"]] == [16, 32]
    first = found["candidates"][0]
    assert first["cost_usd"]["median"] == pytest.approx(2 * first["device_hours"]["median"])
    assert first["energy_kwh"] is None
    assert found["chosen"] in (0, 1)
    # the time of a checkpoint is not known, so there is no best interval
    assert found["checkpoint_intervals"] is None
    assert first["power_w"] is None


def test_the_command_tells_all_faults(towtank) -> None:
    outcome = towtank(
        "capacity", "--model", "llama2-7b", "--tokens", "2x", "--machines", "perlmutte", "--restart", "5",
        "--range", "foo=1", "--pue", "0", "--maintenance", "3d",
    )  # fmt: skip
    assert outcome.code == 2
    for text in ("--tokens 2x", "perlmutte", "--restart 5", "foo is unknown", "--pue 0", "--maintenance 3d"):
        assert text in outcome.err


def test_ramp_and_files_that_cannot_be_are_refused(towtank) -> None:
    common = ("capacity", "--model", "llama2-7b", "--tokens", "1T", "--machines", "dgx-h100")
    outcome = towtank(*common, "--ramp", "64:2T,abc")
    assert outcome.code == 2
    assert "takes all of the 1e+12 tokens" in outcome.err and "--ramp abc" in outcome.err
    outcome = towtank(*common, "--html", "/no/such/folder/plan.html", "--deadline", "0d")
    assert outcome.code == 2 and "there is no folder" in outcome.err
    assert towtank(*common, "--deadline", "0d").err.strip().endswith("--deadline 0d: must be above 0")


def test_wrong_numbers_of_the_operation_are_told(towtank) -> None:
    outcome = towtank(
        "capacity", "--model", "llama2-7b", "--tokens", "1T", "--machines", "dgx-h100", "--storage-files", "0",
        "--start", "5", "--failures-per-node-day", "-1",
    )  # fmt: skip
    assert outcome.code == 2
    for text in ("--storage-files 0", "--start 5", "--failures-per-node-day -1"):
        assert text in outcome.err


def test_more_devices_than_the_machine_has_is_no_plan_and_no_fault(towtank) -> None:
    outcome = towtank(
        "capacity",
        "--model",
        "llama2-7b",
        "--tokens",
        "1T",
        "--machines",
        "frontier",
        "--devices",
        "100000000",
    )
    assert outcome.code == 0, outcome.err
    assert "no plan for 100,000,000 devices of frontier" in outcome.out and "no plan fits" in outcome.out
