"""Checkpoints: whole or not there, cut otherwise on the way back, refused where they do not fit."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from towtank.executor.checkpoint import folder as checkpoint
from towtank.executor.checkpoint.folder import Progress, latest, load, read_progress, save
from towtank.executor.checkpoint.parts import Part
from towtank.executor.errors import CheckpointError

PROGRESS = Progress(step=3, sequences=24, updates=3, seed=7, data="text", model="tiny")


@dataclass(frozen=True)
class Rectangle:
    full_shape: tuple[int, ...]
    offset: tuple[int, ...]
    size: tuple[int, ...]


def cut(name: str, whole: torch.Tensor, rows: Sequence[int], columns: Sequence[int]) -> list[Part]:
    """Parts of a matrix between the given edges."""
    parts = []
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            box = Rectangle(tuple(whole.shape), (top, left), (bottom - top, right - left))
            parts.append(Part(name, box, whole[top:bottom, left:right].clone()))  # type: ignore[arg-type]
    return parts


WHOLE = torch.arange(42, dtype=torch.float64).reshape(6, 7) / 3


def test_other_cuts_read_the_same_numbers(tmp_path: Path) -> None:
    path = save(tmp_path, PROGRESS, cut("master.a", WHOLE, (0, 2, 6), (0, 7)))
    empty = cut("master.a", torch.zeros_like(WHOLE), (0, 1, 5, 6), (0, 3, 7))
    load(path, empty)
    for part in empty:
        top, left = part.box.offset
        height, width = part.box.size
        assert torch.equal(part.tensor, WHOLE[top : top + height, left : left + width])
    assert read_progress(path) == PROGRESS


def test_other_precision_is_converted(tmp_path: Path) -> None:
    path = save(tmp_path, PROGRESS, cut("master.a", WHOLE, (0, 6), (0, 7)))
    single = cut("master.a", torch.zeros(6, 7), (0, 6), (0, 7))
    load(path, single)
    assert torch.equal(single[0].tensor, WHOLE.float())


def test_parts_of_no_elements_are_left_out(tmp_path: Path) -> None:
    parts = cut("bias", WHOLE, (0, 6, 6), (0, 7))
    path = save(tmp_path, PROGRESS, parts)
    again = cut("bias", torch.zeros_like(WHOLE), (0, 0, 6), (0, 7))
    load(path, again)
    assert torch.equal(again[1].tensor, WHOLE)


def test_views_are_read_in_place(tmp_path: Path) -> None:
    path = save(tmp_path, PROGRESS, cut("a", WHOLE, (0, 6), (0, 7)))
    flat = torch.zeros(50, dtype=torch.float64)
    box = Rectangle((6, 7), (2, 0), (2, 7))
    load(path, [Part("a", box, flat[3:17].view(2, 7))])  # type: ignore[arg-type]
    assert torch.equal(flat[3:17], WHOLE[2:4].reshape(-1))
    assert flat[:3].abs().sum() == 0 and flat[17:].abs().sum() == 0


def test_latest_and_how_many_stay(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    assert latest(tmp_path / "nothing") is None
    for step in (2, 4, 10):
        save(tmp_path, replace(PROGRESS, step=step), cut("a", WHOLE, (0, 6), (0, 7)), keep=2)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-0000000004", "step-0000000010"]
    assert latest(tmp_path) == tmp_path / "step-0000000010"


def test_a_killed_save_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, PROGRESS, cut("a", WHOLE, (0, 6), (0, 7)))
    parts = cut("a", WHOLE + 1, (0, 6), (0, 7))
    with monkeypatch.context() as patch:
        # as if killed between the last byte and the name
        patch.setattr(checkpoint, "_finish", lambda *_: None)
        save(tmp_path, replace(PROGRESS, step=4), parts)
    assert (tmp_path / "step-0000000004.partial").is_dir()
    assert latest(tmp_path) == tmp_path / "step-0000000003"
    save(tmp_path, replace(PROGRESS, step=5), parts)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-0000000003", "step-0000000005"]


def test_the_same_step_once_more(tmp_path: Path) -> None:
    save(tmp_path, PROGRESS, cut("a", WHOLE, (0, 6), (0, 7)))
    path = save(tmp_path, PROGRESS, cut("a", WHOLE + 1, (0, 6), (0, 7)), keep=1)
    again = cut("a", torch.zeros_like(WHOLE), (0, 6), (0, 7))
    load(path, again)
    assert torch.equal(again[0].tensor, WHOLE + 1)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    # killed between the two names: the one before is still found
    path.rename(path.with_name(path.name + ".before"))
    found = latest(tmp_path)
    assert found is not None and read_progress(found).step == 3


def test_all_that_does_not_fit_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, PROGRESS, cut("a", WHOLE, (0, 6), (0, 7)))
    wrong = cut("a", torch.zeros(6, 8), (0, 6), (0, 8)) + cut("b", WHOLE, (0, 6), (0, 7))
    with pytest.raises(CheckpointError) as error:
        load(path, wrong)
    assert "a has shape (6, 7) in the checkpoint and (6, 8) in this model" in str(error.value)
    assert "no tensor b" in str(error.value)


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, PROGRESS, cut("a", WHOLE, (0, 6), (0, 7)))
    whole = json.loads((path / "progress.json").read_text())
    changed = [{"step": "3"}, {"loss_scale": -1.0}, {"sequences": -1}, {"data": None}]
    for damage in ("{", '{"format": 9}', "[]", *(json.dumps({**whole, **one}) for one in changed)):
        (path / "progress.json").write_text(damage)
        with pytest.raises(CheckpointError):
            read_progress(path)
    next(path.glob("*.distcp")).write_bytes(b"short")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(path, cut("a", torch.zeros_like(WHOLE), (0, 6), (0, 7)))
    shutil.rmtree(path)
    with pytest.raises(CheckpointError, match="no such folder"):
        read_progress(path)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="could not be written"):
        save(tmp_path / "file", PROGRESS, cut("a", WHOLE, (0, 6), (0, 7)))
