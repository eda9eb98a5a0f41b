"""Files that several processes write at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from towtank.kernels import store
from towtank.kernels.errors import KernelError

ADD = """
import sys
from pathlib import Path
from towtank.kernels import store

path, name = Path(sys.argv[1]), sys.argv[2]
for number in range(20):
    store.update(path, lambda entries: entries.update({f"{name}{number}": 1}))
"""


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "both.json"
    writers = [subprocess.Popen([sys.executable, "-c", ADD, str(path), name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert sorted(store.read(path)) == sorted(f"{name}{number}" for name in "ab" for number in range(20))


def test_a_change_that_fails_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    store.update(path, lambda entries: entries.update(a=1))
    with pytest.raises(TypeError):
        store.update(path, lambda entries: entries.update(b=object()))
    assert store.read(path) == {"a": 1}
    assert json.loads(path.read_text())["version"] == store.VERSION
    assert sorted(each.name for each in tmp_path.iterdir()) == [".kept.json.lock", "kept.json"]


KILLED = """
import os, sys
from pathlib import Path
from towtank.kernels import store

path = Path(sys.argv[1])
store.update(path, lambda entries: entries.update(a=1))
store.os.fsync = lambda descriptor: os.kill(os.getpid(), 9)
store.update(path, lambda entries: entries.update(b=2))
"""


def test_a_writer_that_is_killed_leaves_the_old_file_and_nothing_for_long(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -9
    assert store.read(path) == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 3  # with its lock and what was half written
    store.update(path, lambda entries: entries.update(c=3))
    assert store.read(path) == {"a": 1, "c": 3}
    assert sorted(each.name for each in tmp_path.iterdir()) == [".kept.json.lock", "kept.json"]


def test_a_full_disk_says_whose_file_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        store.update(tmp_path / "kept.json", lambda entries: entries.update(a=1))
    assert caught.value.filename == str(tmp_path / "kept.json")


def test_a_user_without_a_home_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("TOWTANK_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(store.Path, "home", home)
    with pytest.raises(KernelError, match="name a folder by TOWTANK_CACHE"):
        store.cache_folder()


def test_the_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOWTANK_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.cache_folder() == tmp_path / "towtank"
    monkeypatch.setenv("TOWTANK_CACHE", str(tmp_path / "own"))
    assert store.cache_folder() == tmp_path / "own"
