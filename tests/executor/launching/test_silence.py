"""Signs of life: who counts as silent, and who was only not looked at."""

import os
import socket
import time
from pathlib import Path

import pytest

from towtank.executor.launching import ports
from towtank.executor.launching.alive import Watch, show_life
from towtank.executor.launching.silence import Silence


class Clock:
    """Turned by the test."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_silence_is_counted_from_the_last_new_number() -> None:
    clock = Clock()
    silence = Silence(2.0, clock)
    found = []
    for number in (1, 1, 1, 2, 2):
        clock.now += 1.5
        found.append(silence.look(number))
    assert found == [0.0, 1.5, 3.0, 0.0, 1.5]


def test_whoever_was_stopped_himself_counts_no_more_than_one_look() -> None:
    clock = Clock()
    silence = Silence(2.0, clock)
    silence.look(1)
    clock.now += 3600.0
    assert silence.look(1) == 2.0


def test_nobody_waits_for_one_who_has_not_begun() -> None:
    clock = Clock()
    silence = Silence(2.0, clock)
    for _ in range(100):
        clock.now += 1.0
        assert silence.look(None) == 0.0


def test_a_file_that_is_not_touched_any_more_is_of_a_lost_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = Clock()
    monkeypatch.setattr(time, "monotonic", now)
    files = [tmp_path / name for name in ("touched", "stopped", "not begun")]
    for path in files[:2]:
        path.touch()
    watch, found = Watch(files, patience_s=3.0), []
    for second in range(1, 9):
        now.now += 0.5
        os.utime(files[0], (second, second))
        found.append(watch.lost())
    assert found[:6] == [[]] * 6
    assert found[-1] == [1]


def test_a_process_that_lives_touches_its_file(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    show_life(path)
    first = path.stat().st_mtime_ns
    for _ in range(600):
        if path.stat().st_mtime_ns != first:
            break
        time.sleep(0.05)
    assert path.stat().st_mtime_ns > first


def test_a_port_is_free_and_none_that_connections_get() -> None:
    found = {ports.free_port() for _ in range(20)}
    lowest = ports._first_of_kernel()
    assert len(found) > 1
    for port in found:
        assert 15_000 <= port < max(lowest, 65_536 if lowest <= 15_000 else lowest)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))


def test_a_port_in_use_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        number = taken.getsockname()[1]
        monkeypatch.setattr(ports, "_LOWEST", number)
        monkeypatch.setattr(ports, "_first_of_kernel", lambda: number + 1)  # this one or any one
        assert ports.free_port() != number
