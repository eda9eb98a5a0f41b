"""Storages by name, and journals that a worker has left in disorder."""

import os
from pathlib import Path

import pytest
import toy

from towtank.autotune.study.journal import journal_backend
from towtank.autotune.study.records import Settings, StudyError
from towtank.autotune.study.session import create_or_continue
from towtank.autotune.study.storage import open_storage, shown, storage_of
from towtank.autotune.study.work import work


def test_storages_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage_of(None, "llama") == str(tmp_path / "llama.journal")
    assert storage_of("memory", "llama") == "memory"
    assert storage_of("here.log", "llama") == str(tmp_path / "here.log")
    assert storage_of("sqlite:///a.db", "llama") == f"sqlite:///{tmp_path / 'a.db'}"
    assert storage_of("sqlite:////b/a.db", "llama") == "sqlite:////b/a.db"
    assert storage_of("postgresql://u@h/d", "llama") == "postgresql+psycopg://u@h/d"


@pytest.mark.parametrize("text", ["mysql://u@h/d", "redis://h", "sqlite://a.db", "sqlite:///"])
def test_storages_of_other_kinds_are_refused(text: str) -> None:
    with pytest.raises(StudyError):
        storage_of(text, "llama")


def test_passwords_are_not_shown() -> None:
    assert shown("postgresql+psycopg://me:secret@host/d") == "postgresql+psycopg://me:***@host/d"
    assert shown("postgresql+psycopg://me@host/d") == "postgresql+psycopg://me@host/d"
    with pytest.raises(StudyError) as raised:
        storage_of("mysql://me:secret@host/d", "llama")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("form", ["{}", "sqlite:///{}"])
def test_files_that_cannot_be_used_say_why(form: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="is a folder"):
        open_storage(form.format(tmp_path))
    with pytest.raises(StudyError, match="does not exist; make it first"):
        open_storage(form.format(tmp_path / "no" / "file"))
    text = tmp_path / "text"
    text.write_text("this is neither\nof the two\n")
    with pytest.raises(StudyError, match="is not a"):
        open_storage(form.format(text))


def test_a_database_out_of_reach_says_why() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(
        StudyError, match=r"cannot be opened: .*me:\*\*\*@127.0.0.1|cannot be opened: connection"
    ):
        open_storage("postgresql+psycopg://me:secret@127.0.0.1:1/d")


def test_half_a_line_of_a_killed_worker_does_not_spoil_the_journal(tmp_path: Path) -> None:
    place = tmp_path / "toys.journal"
    objective = toy.Toy()
    work(create_or_continue(str(place), "toys", objective, Settings(5, "random")), objective)
    whole = place.read_bytes()
    place.write_bytes(whole + b'{"op_code": 6, "worker_id": "x", "tri')
    again = toy.Toy()
    result = work(create_or_continue(str(place), "toys", again, Settings(8, "random")), again)
    assert result.counts.finished == 8
    assert len(again.evaluated) == 3
    assert place.read_bytes().startswith(whole)


def test_half_lines_longer_than_a_block_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "long.journal"
    path.write_bytes(b'{"a": 1}\n' + b"x" * 10_000)
    backend = journal_backend(str(path), 5)
    backend.append_logs([{"b": 2}])
    assert path.read_bytes() == b'{"a": 1}\n{"b":2}\n'
    path.write_bytes(b"y" * 5_000)
    backend.append_logs([{"c": 3}])
    assert path.read_bytes() == b'{"c":3}\n'
    assert sorted(os.listdir(tmp_path)) == ["long.journal"]
