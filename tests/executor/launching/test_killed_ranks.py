"""Kill -9 of a rank at a random moment of training, ten times; and a rank that is stopped, not dead."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.executor.tiny import tiny_settings

from towtank.executor.checkpoint.folder import latest, read_progress
from towtank.executor.errors import LostRankError
from towtank.executor.launching.local import run_processes
from towtank.executor.launching.request import RunRequest
from towtank.simulator.plan import Plan

pytestmark = pytest.mark.slow

KILLS = 10
FOREVER = 100_000
"""Steps: until a test ends the run."""
PATIENCE_S = 60
"""What a user is promised: nobody waits longer for a rank that is gone."""


def request(steps: int, folder: Path | None = None) -> RunRequest:
    settings = tiny_settings(Plan(data=2, global_batch=4, precision="fp32"), "fp32", steps=steps, dropout=0.1)
    return RunRequest(
        settings,
        "tiny",
        "towtank-executor",
        {},
        checkpoint=folder,
        save_every=1,
        resume=True,
        threads=1,
        quiet=True,
    )


def our_ranks() -> list[int]:
    """Processes of ranks that this process has started, rank 0 first."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            command = (folder / "cmdline").read_bytes()
        except (OSError, ValueError, IndexError):
            continue
        if parent == os.getpid() and b"towtank.executor.launching.rank" in command:
            found.append(int(folder.name))
    return sorted(found)


def done(folder: Path) -> int:
    """Steps of the newest checkpoint."""
    path = latest(folder)
    try:
        return 0 if path is None else read_progress(path).step
    except ValueError:  # it is just being replaced
        return 0


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Do something beside a run, which is in the main thread as signals want it."""
    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_ten_kills_and_the_losses_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    generator = random.Random(7)
    killed: list[tuple[int, float]] = []
    last = 0
    for _ in range(KILLS):
        until, delay_s = last + generator.randrange(1, 4), generator.uniform(0.0, 0.05)
        victim = generator.randrange(2)

        def kill(until: int = until, delay_s: float = delay_s, victim: int = victim) -> None:
            while done(tmp_path) < until:
                time.sleep(0.01)
            time.sleep(delay_s)  # in the middle of a step, or of saving
            os.kill(our_ranks()[victim], signal.SIGKILL)
            killed.append((victim, time.monotonic()))

        with meanwhile(kill), pytest.raises(LostRankError) as lost:
            run_processes(request(FOREVER, tmp_path))
        assert str(lost.value).startswith(f"rank {victim} of 2 ended by signal SIGKILL")
        assert time.monotonic() - killed[-1][1] < PATIENCE_S
        last = done(tmp_path)
    assert (len(killed), {victim for victim, _ in killed}) == (KILLS, {0, 1})
    rest = run_processes(request(last + 5, tmp_path))
    assert rest.first_step == last >= KILLS
    undisturbed = run_processes(request(last + 5))
    assert len(rest.steps) == 5
    assert [step.loss for step in rest.steps] == [
        step.loss for step in undisturbed.steps[last:]
    ]  # bit for bit


def test_a_rank_that_is_stopped_ends_the_run(tmp_path: Path) -> None:
    def stop() -> None:
        while done(tmp_path) < 2:
            time.sleep(0.01)
        os.kill(our_ranks()[0], signal.SIGSTOP)

    with meanwhile(stop), pytest.raises(LostRankError, match="rank 0 of 2 has given no sign of life for 5 s"):
        run_processes(request(FOREVER, tmp_path), patience_s=5.0)
    assert our_ranks() == []
