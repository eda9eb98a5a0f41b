"""`towtank capacity`."""

import json

import pytest

from towtank.autotune.capacity.choose import Limits
from towtank.autotune.capacity.study import NoPlan, Quantiles, Request
from towtank.cli.capacity import _write
from towtank.cli.capacity_options import Written
from towtank.cli.capacity_text import spread
from towtank.cli.failure import InputError
from towtank.hardware_profiles.load import load_machine
from towtank.simulator.models.load import load_model
from towtank.simulator.stacks.load import load_stack


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


@pytest.mark.parametrize(
    ("median", "scale", "words"),
    [
        (27_418_843.0, 1.0, "27.4M [13.7, 54.8]"),
        (27_418.0, 1.0, "27.4k [13.7, 54.8]"),
        (2_741.0, 1.0, "2,741 [1,370, 5,482]"),
        (42_712_000.0, 1e-3, "42.7k [21.4, 85.4]"),
        (3.0e9, 1.0, "3.00G [1.50, 6.00]"),
    ],
)
def test_large_figures_and_their_intervals_share_a_letter(median: float, scale: float, words: str) -> None:
    assert spread(Quantiles(median / 2, median, median * 2), scale) == words


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


def test_faults_of_every_kind_are_told_at_once(towtank, tmp_path) -> None:
    outcome = towtank(
        "capacity", "--model", "llama2-7b", "--tokens", "1T", "--machines", "dgx-h100:nodes=2,dgx-h100:nodes=4",
        "--ramp", "64:2T", "--html", str(tmp_path / "no" / "plan.html"), "--job-limit", "0h",
        "--checkpoint-interval", "0s", "--maintenance", "8h:14d", "--evaluation", "0:60s", "--stragglers", "1:1:1h",
        "--failures-per-node-day", "0.1", "--reliability", "llama3-h100", "--checkpoint", "eager", "--chance", "0",
    )  # fmt: skip
    assert outcome.code == 2
    for text in (
        "dgx-h100 is named twice", "--ramp 64:2T", "there is no folder", "--job-limit 0h: must be above 0",
        "--checkpoint-interval 0s: must be above 0", "--maintenance 8h:14d", "--evaluation 0:60s",
        "--stragglers 1:1:1h", "give one of them", "--checkpoint eager", "--chance 0",
    ):  # fmt: skip
        assert text in outcome.err, text
    assert "11 inputs are wrong" in outcome.err


def test_a_folder_that_goes_while_computing_costs_no_answer(tmp_path, capsys) -> None:
    machine = load_machine("dgx-h100")
    request = Request(load_model("llama2-7b"), 1e11, 256, load_stack("any"))
    written = Written(tmp_path / "gone" / "plan.html", tmp_path / "plan.md", tmp_path / "gone" / "plan.csv")
    with pytest.raises(InputError) as caught:
        _write(written, request, [NoPlan(machine, 8, "too small")], Limits(), [])
    assert "plan.html" in str(caught.value) and "plan.csv" in str(caught.value)
    assert "too small" in (tmp_path / "plan.md").read_text(encoding="utf-8")
    assert f"wrote {tmp_path / 'plan.md'}" in capsys.readouterr().err
