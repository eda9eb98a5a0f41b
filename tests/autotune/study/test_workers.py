"""Several workers on one storage, one of them killed in mid-trial."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import toy

from towtank.autotune.study.records import Settings
from towtank.autotune.study.session import create_or_continue
from towtank.autotune.study.work import result_of

TRIALS = 30
WORKERS = 4
FOR_EVER_S = 1e6
GIVE_UP_S = 300
"""Nothing here depends on how fast the workers are; this only ends a test that hangs."""


def start(place: str, log: Path, pause_s: float) -> "subprocess.Popen[bytes]":
    """A worker whose trials take so long, from when all workers have begun one."""
    words = [place, log, TRIALS, pause_s, WORKERS]
    return subprocess.Popen([sys.executable, toy.__file__, *map(str, words)])


def own_lines(log: Path, worker: "subprocess.Popen[bytes]") -> list[list[str]]:
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.split() for line in lines if line.endswith(f" {worker.pid}")]


def kill_in_mid_trial(
    log: Path, victim: "subprocess.Popen[bytes]", others: list["subprocess.Popen[bytes]"]
) -> str:
    """Kill the victim while it evaluates a configuration and all others have begun too; returns the configuration."""
    give_up = time.monotonic() + GIVE_UP_S
    while time.monotonic() < give_up:
        last = own_lines(log, victim)[-1:]
        measuring = last and last[0][0] == "begin" and last[0][1][0] != "0"  # those with a = 0 fail
        if measuring and all(own_lines(log, worker) for worker in others):
            os.kill(victim.pid, signal.SIGKILL)
            victim.wait()
            assert own_lines(log, victim)[-1] == last[0]
            return last[0][1]
        assert victim.poll() is None, "the victim ended by itself"
        time.sleep(0.01)
    raise AssertionError("the workers never came to work side by side")


def four_workers_one_killed(place: str, folder: Path) -> tuple[list[list[str]], str]:
    """Lines of the log as words, and the configuration during which one worker was killed."""
    log = folder / "log.txt"
    create_or_continue(place, "toys", toy.Toy(), Settings(TRIALS, "random", lease_s=20.0)).close()
    victim = start(place, log, FOR_EVER_S)
    others = [start(place, log, 0.02) for _ in range(WORKERS - 1)]
    try:
        lost = kill_in_mid_trial(log, victim, others)
        for worker in others:
            assert worker.wait(GIVE_UP_S) == 0
    finally:
        for worker in (victim, *others):
            worker.kill()
            worker.wait()
    return [line.split() for line in log.read_text().splitlines()], lost


def accounts(place: str, lines: list[list[str]], lost: str) -> dict[str, object]:
    """What became of all configurations of the study, by its storage and by the log of its workers."""
    opened = create_or_continue(place, "toys", toy.Toy(), Settings(TRIALS, "random", lease_s=20.0))
    counts = result_of(opened, toy.Toy()).counts
    begun = Counter(name for what, name, _ in lines if what == "begin")
    ended = Counter(name for what, name, _ in lines if what == "end")
    complete = [trial for trial in opened.study.trials if trial.state.name == "COMPLETE"]
    names = Counter(trial.user_attrs["configuration"] for trial in complete)
    opened.close()
    return {
        "finished": counts.finished,
        "left": counts.running + counts.waiting,
        "retried": counts.retried,
        "begun more than once": {name: number for name, number in begun.items() if number > 1},
        "ended": set(ended.values()),
        "lost": names[lost],
        "complete, and not ended": (names - ended, ended - names),
    }


def whole(lost: str) -> dict[str, object]:
    """Accounts of a study of which one configuration was lost once: all accounted for, none twice but that one."""
    return {
        "finished": TRIALS,
        "left": 0,
        "retried": 1,
        "begun more than once": {lost: 2},
        "ended": {1},
        "lost": 1,
        "complete, and not ended": (Counter(), Counter()),
    }


@pytest.mark.slow
def test_journal_file_with_four_workers_and_one_killed(tmp_path: Path) -> None:
    place = str(tmp_path / "toys.journal")
    lines, lost = four_workers_one_killed(place, tmp_path)
    assert accounts(place, lines, lost) == whole(lost)


@pytest.mark.slow
def test_sqlite_with_four_workers_and_one_killed(tmp_path: Path) -> None:
    place = f"sqlite:///{tmp_path / 'toys.db'}"
    lines, lost = four_workers_one_killed(place, tmp_path)
    assert accounts(place, lines, lost) == whole(lost)


@pytest.mark.slow
def test_postgresql_with_four_workers_and_one_killed(tmp_path: Path, postgres: str) -> None:
    lines, lost = four_workers_one_killed(postgres, tmp_path)
    assert accounts(postgres, lines, lost) == whole(lost)
