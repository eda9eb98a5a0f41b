"""The bar on the standard error stream."""

import io

import pytest

from towtank.cli import progress
from towtank.cli.failure import complain


class Terminal(io.StringIO):
    """A terminal of 80 columns, as far as a bar is concerned."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError("no descriptor")


def test_half_of_it_is_full_at_half_of_the_work() -> None:
    assert progress.bar_line("points", 2, 4, 80) == f"  [{'#' * 20}{'.' * 20}] 2 of 4 points"
    assert progress.bar_line("points", 0, 7, 80) == f"  [{'.' * 40}] 0 of 7 points"


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 200])
def test_it_never_wraps(columns: int) -> None:
    for done in (0, 999, 1000):
        assert len(progress.bar_line("measurements", done, 1000, columns)) < columns


def test_a_line_is_written_over_as_a_whole_and_gone_at_the_end(monkeypatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    progress.progress_bar("very long nouns", done=1, total=3)
    progress.progress_bar("nouns", done=2, total=3)
    first, second = terminal.getvalue().split("\r")[1:]
    assert len(first) == len(second) == 79
    assert "2 of 3 nouns" in second
    progress.progress_bar("nouns", done=3, total=3)
    assert terminal.getvalue().endswith("\r" + " " * 79 + "\r")


def test_a_message_takes_the_place_of_a_bar(monkeypatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    progress.progress_bar("nouns", done=1, total=3)
    complain("interrupted")
    assert terminal.getvalue().endswith("\r" + " " * 79 + "\rtowtank: interrupted\n")


def test_nothing_is_drawn_where_nobody_watches(capsys) -> None:
    progress.progress_bar("nouns", done=1, total=3)
    progress.wipe()
    assert capsys.readouterr() == ("", "")
