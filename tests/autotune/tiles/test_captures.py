"""A record of tiles that is broken off goes on where it was."""

from collections.abc import Callable
from pathlib import Path

import pytest

from towtank.autotune.tiles import captures
from towtank.autotune.tiles.captures import record
from towtank.autotune.tiles.journal import Journal, Sample
from towtank.kernels import launch
from towtank.kernels.errors import KernelError

pytest.importorskip("torch")
TILES = [{"mr": 1, "nr": 8, "threads": 1}, {"mr": 2, "nr": 8, "threads": 1}, {"mr": 4, "nr": 8, "threads": 1}]
SHAPES = [(8, 8, 8), (8, 16, 8)]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Tiles that were run, without running them; the clock counts them."""
    seen: list[object] = []

    def call(shape: tuple[int, int, int]) -> Callable[[object], None]:
        return seen.append

    monkeypatch.setattr(captures, "_call", call)
    monkeypatch.setattr(launch, "find", lambda *_: (None, None))
    monkeypatch.setattr(launch, "require", lambda *_: None)
    monkeypatch.setattr(captures.time, "thread_time", lambda: float(len(seen)) ** 1.5)
    return seen


def test_what_was_measured_is_not_measured_again(
    calls: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = record(TILES, SHAPES, 2)
    total, path = len(calls), tmp_path / "record.part"
    assert total == 2 * 2 * len(TILES) * len(SHAPES)  # each after the first tile
    calls.clear()

    def stop(text: str) -> None:
        if len(calls) == 14:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(TILES, SHAPES, 2, stop, path)
    assert len(path.read_text().splitlines()) == 1 + 7
    path.write_text(path.read_text() + "1 0 0 0.5")  # killed within a line
    again = record(TILES, SHAPES, 2, journal=path)
    assert len(calls) == total
    assert again == whole


def test_a_journal_of_something_else_is_left_alone(calls: list[object], tmp_path: Path) -> None:
    path = tmp_path / "record.part"
    record(TILES, SHAPES, 1, journal=path)
    before = path.read_text()
    for tiles, shapes, rounds in ((TILES[:2], SHAPES, 1), (TILES, SHAPES[:1], 1), (TILES, SHAPES, 2)):
        with pytest.raises(KernelError, match="is left of a record of something else"):
            record(tiles, shapes, rounds, journal=path)
    assert path.read_text() == before
    path.write_text(before + "1 2 three\n")
    with pytest.raises(KernelError, match="holds a line that is no measurement"):
        record(TILES, SHAPES, 1, journal=path)


def test_samples_are_text_and_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j", "of this")
    assert journal.samples() == []
    journal.add(Sample(0, 3, 1, 0.1, 1 / 3))
    assert Journal(tmp_path / "j", "of this").samples() == [Sample(0, 3, 1, 0.1, 1 / 3)]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--rounds", "0"), "--rounds must be 1 or more"),
        (("--shapes", "512x512"), "got '512x512'"),
        (("--shapes", " "), "name one at least"),
        (("--out", "none/a.csv.gz"), "the folder none does not exist"),
    ],
)
def test_wrong_input_is_one_message(
    arguments: tuple[str, ...], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["captures", "--out", "a.csv.gz", *arguments])
    with pytest.raises(SystemExit) as left:
        captures.main()
    assert left.value.code == 2
    assert text in capsys.readouterr().err
