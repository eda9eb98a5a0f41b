"""`towtank run`: everything that is wrong is told before a process starts."""

from pathlib import Path
from typing import Any

import pytest

from towtank.cli.run_job import Asked
from towtank.cli.run_options import Checkpoints, Measuring, Training

Run = Any


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text("model: tiny-llama\nglobal_batch: 4\ndata: 2\nprecision: fp32\n")
    return path


def test_all_faults_are_told_at_once(towtank: Run, plan: Path, tmp_path: Path) -> None:
    found = towtank(
        "run", str(plan), "--model", "tiny-lama", "--steps", "0", "--dtype", "f8", "--device", "gpu", "--save-every",
        "2", "--resume", "--goldfish", "1", "--data", str(tmp_path / "none"), "--record", str(tmp_path / "no" / "r"),
        "--seed", "-1", "--threads", "0",
    )  # fmt: skip
    assert found.code == 2
    assert found.out == ""
    for told in (
        "no model 'tiny-lama' in the zoo; did you mean 'tiny-llama'",
        "--steps 0 must be 1 or more",
        "--dtype f8 is unknown (known: float64, fp32, bf16, fp16)",
        "--device gpu is unknown; did you mean 'cpu'? (known: cpu, cuda)",
        "--save-every needs a folder for checkpoints; give --checkpoint DIR",
        "--resume needs the folder of checkpoints; give --checkpoint DIR",
        "goldfish k=1 must be 2 or more",
        "none: no such file or folder",
        "make it first",
        "--seed -1 must be 0 or more",
        "--threads 0 must be 1 or more",
    ):
        assert told in found.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--set", "data=3"), "global_batch"),
        (("--set", "tensr_x=2"), "unknown key tensr_x; did you mean 'tensor_x'"),
        (("--set", "precision=fp8"), "fp8"),
        (("--steps", "3", "--warm-up", "3"), "--warm-up 3 leaves none of --steps 3 to measure"),
        (("--model", "tiny-mla"), "latent attention"),
        (("--dropout", "1.5"), "dropout = 1.5"),
        (("--learning-rate", "nan"), "learning_rate = nan, but it must be a number of 0 or more"),
        (("--weight-decay", "-1"), "weight_decay = -1.0, but it must be a number of 0 or more"),
        (("--gradient-clip", "nan"), "gradient_clip = nan"),
        (("--goldfish-context", "5"), "give --goldfish K too"),
        (("--stack", "megatron-cor"), "did you mean 'megatron-core'"),
    ],
)
def test_plans_and_options_that_cannot_be_run(
    towtank: Run, plan: Path, arguments: tuple[str, ...], told: str
) -> None:
    found = towtank("run", str(plan), *arguments)
    assert (found.code, found.out) == (2, "")
    assert told in found.err
    assert "Traceback" not in found.err


def test_a_plan_without_a_model_asks_for_one(towtank: Run) -> None:
    found = towtank("run", "--set", "global_batch=2")
    assert found.code == 2
    assert "no model is given; give --model NAME" in found.err


def test_a_plan_file_that_is_not_there_is_the_only_fault(towtank: Run, tmp_path: Path) -> None:
    found = towtank("run", str(tmp_path / "none.yaml"))
    assert found.code == 2
    assert "none.yaml: cannot be read" in found.err
    assert "no model is given" not in found.err


def test_a_launcher_with_another_number_of_processes_is_refused(
    towtank: Run, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "x", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    found = towtank("run", str(plan))
    assert found.code == 2
    assert "torchrun started 4 processes, but the plan has 2 devices" in found.err


def test_ranks_of_srun_take_the_gpus_of_their_node(
    plan: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The plan has more devices than a node has GPUs; a rank of torchrun without enough of them runs on the CPU."""
    import torch

    from towtank.cli import run_job
    from towtank.cli.run_options import ALL_DEVICES

    asked = Asked(plan, (None, None, None), (), (), Training(), ALL_DEVICES, Measuring(), Checkpoints())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    step = {
        "PROCID": "5",
        "STEP_NUM_TASKS": "8",
        "LOCALID": "1",
        "NODEID": "1",
        "STEP_TASKS_PER_NODE": "4(x2)",
    }
    for name, value in {**step, "STEP_NODELIST": "n[1-2]", "JOB_ID": "7", "STEP_ID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert run_job._device(asked, 8) == "cuda"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert run_job._device(asked, 8) == "cpu"


def test_more_gpus_than_there_are_is_refused(towtank: Run, plan: Path) -> None:
    found = towtank("run", str(plan), "--device", "cuda", "--set", "data=64,global_batch=64")
    assert found.code == 2
    assert "the plan has 64 devices, but this machine has" in found.err


def test_a_plan_for_a_cluster_is_not_started_on_this_machine(
    towtank: Run, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from towtank.executor.launching import local

    monkeypatch.setattr(local, "usable_cores", lambda: 6)
    found = towtank("run", str(plan), "--device", "cpu", "--set", "data=25,global_batch=25")
    assert (found.code, found.out) == (2, "")
    assert "the plan has 25 devices, and this machine with 6 cores starts 24 processes at most" in found.err


def test_checkpoints_of_an_earlier_run_are_not_mixed_with_new_ones(
    towtank: Run, plan: Path, tmp_path: Path
) -> None:
    earlier = tmp_path / "ckpt" / "step-0000000003"
    earlier.mkdir(parents=True)
    for name in ("progress.json", ".metadata"):
        (earlier / name).write_text("{}")
    found = towtank("run", str(plan), "--checkpoint", str(tmp_path / "ckpt"))
    assert found.code == 2
    assert "holds step-0000000003 of an earlier run; give --resume to go on, or another folder" in found.err
