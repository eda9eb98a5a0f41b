"""`towtank tune --method axonn`."""

import json
from pathlib import Path

from towtank.simulator.plan_file import load_plan_file

JOB = ["tune", "--model", "gpt-5b", "--machine", "perlmutter", "--devices", "8", "--global-batch", "64"]


def test_axonns_ranking_is_printed_and_its_plan_written(towtank, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    outcome = towtank(*JOB, "--stack", "axonn", "--method", "axonn", "--top", "3", "-o", str(path))

    assert outcome.code == 0, outcome
    assert "AxoNN's communication model ranks" in outcome.out
    assert "Tensor parallelism in the node plus HSDP" in outcome.out
    assert f"plan: {path} (the fastest of AxoNN's first 3 grids)" in outcome.out
    written = load_plan_file(path)
    assert (written.model, written.machine, written.stack) == ("gpt-5b", "perlmutter", "axonn")
    assert written.plan.num_devices == 8
    assert written.plan.global_batch == 64


def test_axonns_ranking_as_json(towtank, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    arguments = [*JOB, "--stack", "axonn", "--method", "axonn", "--top", "2", "-o", str(path), "--json"]
    document = json.loads(towtank(*arguments).out)

    assert document["method"] == "axonn"
    assert [grid["rank"] for grid in document["grids"]] == [1, 2]
    assert document["output"] == str(path)


def test_an_unknown_method_is_told(towtank) -> None:
    outcome = towtank(*JOB, "--method", "axon")

    assert outcome.code == 2
    assert "--method axon is unknown; did you mean 'axonn'" in outcome.err


def test_a_model_that_axonn_does_not_know_is_told(towtank, tmp_path: Path) -> None:
    job = [
        "tune",
        "--model",
        "mixtral-8x7b",
        "--machine",
        "perlmutter",
        "--devices",
        "8",
        "--global-batch",
        "64",
    ]
    outcome = towtank(*job, "--method", "axonn", "-o", str(tmp_path / "plan.yaml"))

    assert outcome.code == 2
    assert "unknown to AxoNN's communication model" in outcome.err


def test_what_axonns_method_does_not_read_is_told(towtank) -> None:
    for option, value in (("--budget", "60s"), ("--memory-margin", "0.1")):
        outcome = towtank(*JOB, "--method", "axonn", option, value)
        assert outcome.code == 2
        assert f"{option}: not read by --method axonn" in outcome.err
