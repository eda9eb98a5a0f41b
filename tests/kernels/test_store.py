"""Files that several processes write at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from towtank.kernels import store

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


def test_the_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOWTANK_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.cache_folder() == tmp_path / "towtank"
    monkeypatch.setenv("TOWTANK_CACHE", str(tmp_path / "own"))
    assert store.cache_folder() == tmp_path / "own"
