"""`towtank tune` with a study, with several measures, and as a worker."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

JOB = ["tune", "--model", "llama3-8b", "--machine", "dgx-h100:nodes=4", "--global-batch", "64"]
SMALL = [
    *JOB, "--stack", "megatron-core", "--fix", "pipeline=4", "--fix", "tensor_x=2", "--fix", "tensor_y=1", "--fix",
    "context=1", "--fix", "micro_batch=1", "--fix", "virtual_stages=1", "--fix", "zero_stage=1",
]  # fmt: skip
STUDY = [*SMALL, "--method", "optuna", "--sampler", "random"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOWTANK_STORAGE", raising=False)
    return tmp_path


def test_a_study_is_at_least_as_good_as_the_exact_search_and_goes_on(towtank, folder: Path) -> None:
    exact = towtank(*SMALL, "--json", "--finalists", "0", "--workers", "1")
    assert exact.code == 0, exact.err
    best = json.loads(exact.out)["plans"][0]["step_time_s"]
    first = towtank(*STUDY, "--trials", "8", "--json")
    assert first.code == 0, first.err
    found = json.loads(first.out)
    assert found["counts"]["simulated"] == 8
    assert found["plans"][0]["step_time_s"] < best  # an uneven split
    assert found["plans"][0]["plan"]["stage_layers"]
    assert (found["sampler"], found["seed"], found["proven"]) == ("random", 0, False)
    assert found["storage"] == str(folder / "tune.journal")
    more = json.loads(towtank(*STUDY, "--trials", "12", "--json").out)
    assert more["counts"]["simulated"] == 12
    assert more["plans"][0]["step_time_s"] <= found["plans"][0]["step_time_s"]
    predicted = towtank("predict", "--plan", "plan.yaml", "--json")
    assert json.loads(predicted.out)["step_time_s"] == pytest.approx(more["plans"][0]["step_time_s"])


def test_the_table_of_a_study(towtank) -> None:
    shown = towtank(*STUDY, "--trials", "3", "--storage", "memory", "--seed", "4")
    assert shown.code == 0, shown.err
    assert "study tune: 3 plans tried" in shown.out
    assert "sampler random, seed 4" in shown.out
    assert "stage_layers=[" in shown.out


def test_several_measures_give_an_exact_front(towtank) -> None:
    arguments = [*SMALL, "--measure", "throughput", "--measure", "cost", "--measure", "devices"]
    found = towtank(
        *arguments, "--devices", "16", "--or-devices", "32", "--price-per-device-hour", "2", "--json"
    )
    assert found.code == 0, found.err
    document = json.loads(found.out)
    counts = document["counts"]
    assert document["proven"]
    assert counts["legal"] == counts["do_not_fit"] + counts["pruned"] + counts["simulated"]
    assert {plan["values"]["devices"] for plan in document["plans"]} == {16.0, 32.0}
    for plan in document["plans"]:
        values = plan["values"]
        # 2 USD an hour for each device, over the tokens of an hour
        assert values["cost"] == pytest.approx(2 * values["devices"] / (values["throughput"] * 3600) * 1e9)
    assert document["devices"] == [16, 32]
    assert all(plan["devices"] == plan["values"]["devices"] for plan in document["plans"])
    assert "exact Pareto front" in towtank(*arguments, "--price-per-device-hour", "2").out


def test_a_front_over_several_numbers_of_devices_says_how_many_each_plan_has(towtank) -> None:
    shown = towtank(
        *SMALL, "--devices", "8", "--or-devices", "16", "--or-devices", "32", "--measure", "throughput"
    )
    assert shown.code == 0, shown.err
    heading, *_ = shown.out.splitlines()
    assert "legal plans on 8, 16 or 32 devices" in heading
    head, first = shown.out.split("\n\n")[1].splitlines()[1:3]
    assert head.split()[:3] == ["rank", "throughput", "devices"]
    assert first.split("  ")[-2].strip() == "32"  # more devices, more tokens a second
    assert "legal plans on 16 devices" in towtank(*SMALL, "--devices", "16", "--measure", "throughput").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*STUDY, "--method", "optun"], "--method optun is unknown; did you mean 'optuna'?"),
        ([*STUDY, "--sampler", "tpee"], "sampler tpee is unknown; did you mean 'tpe'?"),
        (
            [*STUDY, "--storage", "mysql://me:secret@host/d"],
            "mysql://me:***@host/d is of a kind that is not known",
        ),
        ([*STUDY, "--storage", "no/such/folder.journal"], "does not exist; make it first"),
        ([*STUDY, "--slurm", "no/such/folder.sh"], "--slurm no/such/folder.sh: there is no folder no/such"),
        ([*STUDY, "--lease", "inf"], "lease = inf s, but it must be a time of 1 s or more"),
        (
            [*STUDY, "--measure", "cost", "--price-per-device-hour", "inf"],
            "price_per_device_hour = inf, but it must be a number",
        ),
        ([*STUDY, "--study", "a/b"], "--study 'a/b' must be of letters"),
        (
            [*STUDY, "--measure", "cost"],
            "dgx-h100: price_per_device_hour is unknown and the measure cost needs it",
        ),
        ([*STUDY, "--slurm", "x.sh", "--storage", "memory"], "workers cannot share a storage in memory"),
        ([*STUDY, "--slurm", "no/x.sh"], "--slurm no/x.sh: there is no folder no"),
        ([*STUDY, "--slurm-nodes", "2"], "--slurm-nodes: not read by a study"),
        (["tune", "--model", "llama3-8b"], "--machine, --global-batch must be given"),
        (["tune", "--worker"], "there is no"),
        (["tune", "--worker", "--storage", "memory"], "--worker needs a --storage that others can reach"),
    ],
)
def test_what_is_wrong_is_said(towtank, folder: Path, arguments: list[str], message: str) -> None:
    outcome = towtank(*arguments)
    assert outcome.code == 2
    assert message in outcome.err
    assert "secret" not in outcome.err
    assert list(folder.iterdir()) == []


def test_faults_are_told_together(towtank) -> None:
    wrong = ["--measure", "speed", "--sampler", "annealing", "--slurm", "x.sh", "--slurm-nodes", "0"]
    outcome = towtank(*STUDY, *wrong)
    assert outcome.code == 2
    for fault in (
        "measure speed is unknown",
        "sampler annealing is unknown",
        "--slurm-nodes 0 must be 1 or more",
    ):
        assert fault in outcome.err


def test_a_script_for_slurm_whose_workers_find_the_study(towtank, folder: Path) -> None:
    made = towtank(*STUDY, "--trials", "5", "--slurm", "workers.sh", "--slurm-nodes", "2", "--study", "llama")
    assert made.code == 0, made.err
    assert "2 x 1 workers on study llama" in made.out
    assert not (folder / "plan.yaml").exists()
    script = (folder / "workers.sh").read_text()
    assert subprocess.run(["bash", "-n", "workers.sh"]).returncode == 0
    command = next(line for line in script.splitlines() if line.startswith("srun")).split(" -m towtank.cli ")[
        1
    ]
    worked = towtank(*command.split(), "--json")
    assert worked.code == 0, worked.err
    assert json.loads(worked.out)["counts"]["simulated"] == 5


def test_workers_in_other_folders_find_a_model_of_the_user(
    towtank, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captures = Path(__file__).parents[1] / "captures" / "hf_configs"
    (folder / "config.json").write_text((captures / "llama-3.1-8b" / "config.json").read_text())
    arguments = ["--model", "config.json", *STUDY[3:]]
    assert towtank("tune", *arguments, "--trials", "2", "--slurm", "workers.sh").code == 0
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    outcome = towtank("tune", "--worker", "--storage", str(folder / "tune.journal"), "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["counts"]["simulated"] == 2


def test_a_worker_refuses_what_is_not_here_what_it_was(towtank, folder: Path) -> None:
    assert towtank(*STUDY, "--trials", "2").code == 0
    journal = folder / "tune.journal"
    journal.write_text(journal.read_text().replace('"records":"', '"records":"0'))
    outcome = towtank("tune", "--worker")
    assert outcome.code == 2
    assert "is not here what the study was made with" in outcome.err


@pytest.mark.slow
def test_a_worker_gives_back_what_it_has_in_hand_when_it_is_told_to_stop(towtank, folder: Path) -> None:
    assert towtank(*STUDY, "--trials", "100000", "--slurm", "workers.sh").code == 0
    arguments = [sys.executable, "-m", "towtank.cli", "tune", "--worker", "--json"]
    worker = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    journal = folder / "tune.journal"
    give_up = time.monotonic() + 300  # only ends a test that hangs
    while '"state":1' not in journal.read_text():  # no trial is complete
        assert worker.poll() is None and time.monotonic() < give_up
        time.sleep(0.1)
    os.kill(worker.pid, signal.SIGTERM)
    out, err = worker.communicate(timeout=300)
    assert worker.returncode == 130
    assert "what is done is kept" in err
    counts = json.loads(out)["counts"]
    assert counts["simulated"] >= 1
    assert counts["running"] == 0
