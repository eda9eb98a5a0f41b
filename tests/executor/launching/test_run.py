"""Runs of real processes: that they train, and how they end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from towtank.executor.checkpoint.folder import latest, read_progress
from towtank.executor.launching.ports import free_port

pytestmark = pytest.mark.slow

MODEL = """\
name: small
num_layers: 2
hidden: 32
vocab: 300
sequence: 32
attention: {heads: 4, kv_heads: 2, head_dim: 8}
mlp: {hidden: 64, gated: true}
norm: rmsnorm
tied_embeddings: false
positions: rope
"""
PLAN = "model: small.yaml\nglobal_batch: 4\nprecision: fp32\ndata: 2\n"
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
LONGEST_S = 300
"""After so long a run hangs; machines that run tests may be busy with others."""
FOREVER = ("--steps", "100000")
"""Until a test ends it, however fast the machine is."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(MODEL)
    (tmp_path / "plan.yaml").write_text(PLAN)
    return tmp_path


@contextmanager
def started(
    folder: Path, *arguments: str, environment: dict[str, str] | None = None
) -> Iterator["subprocess.Popen[str]"]:
    """`towtank run plan.yaml`, with a thread for each process."""
    command = [sys.executable, "-m", "towtank.cli", "run", "plan.yaml", "--threads", "1", *arguments]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=ENVIRONMENT | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ran(folder: Path, *arguments: str) -> tuple[int, str, str]:
    with started(folder, *arguments) as process:
        out, err = process.communicate(timeout=LONGEST_S)
    return process.returncode, out, err


def losses(out: str) -> list[tuple[int, float, float]]:
    return [(step["number"], step["loss"], step["gradient_norm"]) for step in json.loads(out)["steps"]]


def wait_for_step(process: "subprocess.Popen[str]", number: int) -> None:
    """Read progress until a step is done."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step ") and int(line.split()[1].partition("/")[0]) >= number:
            return


def ranks_of(process: "subprocess.Popen[str]") -> list[int]:
    """Processes that a launcher has started."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                after_name = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(after_name[1]) == process.pid:
                found.append(int(folder.name))
    return sorted(found)


def gone(processes: Sequence[int]) -> bool:
    """Whether processes end."""
    for _ in range(20 * LONGEST_S):
        if not any(Path(f"/proc/{one}").exists() for one in processes):
            return True
        time.sleep(0.05)
    return False


def test_a_killed_rank_ends_the_run_and_resuming_gives_the_losses_of_an_undisturbed_one(folder: Path) -> None:
    """One kill of the command; ten of runs are in test_killed_ranks."""
    saved = ("--json", "--checkpoint", "ckpt", "--save-every", "1")
    with started(folder, *FOREVER, *saved) as process:
        wait_for_step(process, 1)
        os.kill(ranks_of(process)[1], signal.SIGKILL)
        _, err = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 4
    assert "rank 1 of 2 ended by signal SIGKILL (killed, or out of memory); the other 1 were stopped" in err
    newest = latest(folder / "ckpt")
    steps = str(3 + (0 if newest is None else read_progress(newest).step))
    code, out, _ = ran(folder, "--steps", steps, *saved, "--resume")
    assert (code, len(losses(out))) == (0, 3)
    code, undisturbed, _ = ran(folder, "--steps", steps, "--json")
    assert code == 0
    assert losses(out) == losses(undisturbed)[-3:]  # bit for bit


def test_sigterm_saves_and_ends_well_and_another_plan_goes_on(folder: Path) -> None:
    _, out, _ = ran(folder, "--steps", "8", "--json")
    undisturbed = losses(out)
    with started(folder, *FOREVER, "--json", "--checkpoint", "ckpt") as process:
        wait_for_step(process, 1)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=LONGEST_S)
    found = json.loads(out)
    done = len(found["steps"])
    assert process.returncode == 0
    assert found["ended"] == "terminated"
    assert found["checkpoint"].endswith(f"step-{done:010d}")
    assert losses(out)[:8] == undisturbed[: min(done, 8)]
    again = str(done + 2)
    code, out, _ = ran(
        folder, "--steps", again, "--json", "--checkpoint", "ckpt", "--resume", "--set", "data=1,tensor_x=2"
    )
    assert code == 0
    assert [step for step, _, _ in losses(out)] == [done + 1, done + 2]


def test_sigterm_before_the_ranks_listen_ends_the_run(folder: Path) -> None:
    with started(folder, *FOREVER, "--json", "--checkpoint", "ckpt") as process:
        while len(ranks_of(process)) < 2:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 0, err
    assert json.loads(out)["ended"] == "terminated"
    assert json.loads(out)["steps"]  # the first one at least


def test_ctrl_c_ends_all_processes(folder: Path) -> None:
    with started(folder, *FOREVER) as process:
        wait_for_step(process, 1)
        ranks = ranks_of(process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 130
    assert err.endswith("towtank: interrupted\n")
    assert len(ranks) == 2 and gone(ranks)


def test_processes_end_with_whoever_started_them(folder: Path) -> None:
    with started(folder, *FOREVER) as process:
        wait_for_step(process, 1)
        ranks = ranks_of(process)
        process.kill()
        assert len(ranks) == 2 and gone(ranks)


def test_a_loss_that_is_no_number_stops_with_its_step(folder: Path) -> None:
    code, out, err = ran(folder, "--steps", "50", "--learning-rate", "1e30", "--gradient-clip", "0")
    assert (code, out) == (3, "")
    told = [line for line in err.splitlines() if line.startswith("towtank: ")]
    assert len(told) == 1
    assert " of 50: the loss is " in told[0] and told[0].startswith("towtank: step ")
    assert "Traceback" not in err


def launched(rank: int, port: int) -> dict[str, str]:
    """What torchrun tells a process."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }


def test_processes_of_another_launcher_train_alike_and_rank_0_reports(folder: Path) -> None:
    _, out, _ = ran(folder, "--steps", "4", "--json")
    alone, port = losses(out), free_port()
    arguments = ("--steps", "4", "--json")
    with started(folder, *arguments, environment=launched(1, port)) as other:
        with started(folder, *arguments, environment=launched(0, port)) as first:
            first_out, _ = first.communicate(timeout=LONGEST_S)
        other_out, _ = other.communicate(timeout=LONGEST_S)
    assert (first.returncode, other.returncode) == (0, 0)
    assert losses(first_out) == alone
    assert other_out == ""


def test_a_rank_of_another_launcher_that_is_killed_ends_the_other(folder: Path) -> None:
    port = free_port()
    with (
        started(folder, *FOREVER, environment=launched(1, port)) as other,
        started(folder, *FOREVER, environment=launched(0, port)) as first,
    ):
        wait_for_step(first, 1)
        other.kill()
        _, err = first.communicate(timeout=LONGEST_S)
    assert first.returncode == 4
    assert "towtank: rank 0: " in err and "gone" in err


def test_a_record_adds_up_and_names_what_takes_the_time(folder: Path) -> None:
    larger = MODEL.replace("hidden: 32", "hidden: 256").replace("{hidden: 64", "{hidden: 1024")
    (folder / "small.yaml").write_text(larger.replace("sequence: 32", "sequence: 256"))
    changes = ("--set", "data=1,tensor_x=2", "--warm-up", "1")
    code, _, err = ran(folder, "--steps", "5", "--record", "r.json", "--trace", "t.json", *changes)
    assert code == 0, err
    record = json.loads((folder / "r.json").read_text())
    step = record["step"]
    exposed = {one["name"]: one["exposed_s"] for one in step["operations"] if one["phase"] == "forward"}
    assert sum(one["exposed_s"] for one in step["operations"]) == pytest.approx(step["step_time_s"])
    # what share of the time is named depends on the load of the machine: `towtank run --record` prints it
    assert sum(one["name"] == "unnamed" for one in step["operations"]) <= 1
    assert {"layer.1.mlp.up.forward", "layer.0.attention.core", "layer.1.mlp.down.all-reduce"} <= set(exposed)
    assert [rank["rank"] for rank in record["ranks"]] == [0, 1]
    assert step["peak_memory_bytes"] > 2**20
    events = json.loads((folder / "t.json").read_text())["traceEvents"]
    assert {event["pid"] for event in events} == {0, 1}
