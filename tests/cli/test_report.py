"""`towtank report`: its files, and what it says of wrong ones."""

import errno
import shlex
from pathlib import Path

import pytest

from towtank.cli.failure import InputError
from towtank.cli.report import write_page
from towtank.pages.records import Page, Section


@pytest.fixture
def plan(tmp_path: Path) -> str:
    path = tmp_path / "plan.yaml"
    path.write_text("schema: 1\nmodel: gpt-5b\nmachine: selene:nodes=1\ntensor_x: 2\nglobal_batch: 16\n")
    return str(path)


def test_it_writes_every_kind_that_is_asked(towtank, plan: str, tmp_path: Path) -> None:
    names = {kind: str(tmp_path / f"step.{kind}") for kind in ("html", "markdown", "csv")}
    outcome = towtank("report", plan, *[word for kind, name in names.items() for word in (f"--{kind}", name)])
    assert outcome.code == 0
    assert outcome.out == "".join(f"wrote {name}\n" for name in names.values())
    assert Path(names["html"]).read_text().startswith("<!DOCTYPE html>")
    assert Path(names["markdown"]).read_text().startswith("# gpt-5b on 2 devices of selene")
    assert Path(names["csv"]).read_text().startswith("section,row,column,value\n")


def test_wrong_paths_are_told_together_before_the_work(towtank, plan: str, tmp_path: Path) -> None:
    missing = tmp_path / "none" / "step.html"
    outcome = towtank("report", plan, "--html", str(missing), "--csv", str(tmp_path))
    assert outcome.code == 2
    assert f"{missing}: there is no folder {missing.parent}" in outcome.err
    assert f"{tmp_path}: is a folder" in outcome.err


def test_two_kinds_in_one_file_are_refused(towtank, plan: str, tmp_path: Path) -> None:
    name = str(tmp_path / "step.html")
    outcome = towtank("report", plan, "--html", name, "--csv", name)
    assert outcome.code == 2
    assert "two kinds of the report are asked in one file" in outcome.err


def test_a_file_that_cannot_be_written_stays_what_it_was(tmp_path: Path, monkeypatch) -> None:
    path, page = tmp_path / "step.md", Page("t", "s", [])
    path.write_text("before")

    def full(self: Path, text: str, **_: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(InputError, match=r"step\.md: No space left on device"):
            list(write_page(page, None, path, None))
    assert path.read_text() == "before"
    assert [found.name for found in tmp_path.iterdir()] == ["step.md"]
    assert list(write_page(page, None, path, None)) == [path]
    assert path.read_text().startswith("# t")


def test_a_folder_that_goes_away_meanwhile_is_one_message(
    towtank, plan: str, tmp_path: Path, monkeypatch
) -> None:
    from towtank.pages import step_report

    folder = tmp_path / "out"
    folder.mkdir()
    real = step_report.step_report

    def slow(*given, **named):
        folder.rmdir()
        return real(*given, **named)

    monkeypatch.setattr(step_report, "step_report", slow)
    outcome = towtank("report", plan, "--html", str(folder / "step.html"))
    assert outcome.code == 2
    assert outcome.err.endswith(
        f"towtank: {folder}/step.html: No such file or directory; name another file\n"
    )
    assert "Traceback" not in outcome.err


def test_a_link_stays_a_link_and_a_long_name_is_written(tmp_path: Path) -> None:
    page, link, long = Page("t", "s", []), tmp_path / "link.md", tmp_path / ("a" * 250)
    (tmp_path / "real.md").write_text("before")
    link.symlink_to("real.md")
    (tmp_path / "round").symlink_to("round")
    assert list(write_page(page, None, link, long)) == [link, long]
    assert link.is_symlink()
    assert (tmp_path / "real.md").read_text().startswith("# t")
    list(write_page(page, None, tmp_path / "round", None))  # a link to itself is replaced, with no traceback


def test_a_name_that_is_no_utf8_is_written(tmp_path: Path) -> None:
    page = Page("t", "s", [Section("a", commands=["towtank report plan\udcff.yaml"])])
    path = tmp_path / "step.md"
    list(write_page(page, None, path, None))
    assert "plan?.yaml" in path.read_text()


def test_its_commands_run_and_write_the_same(towtank, plan: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = towtank(
        "report", plan, "--machine", "alps:nodes=2", "--markdown", "a b.md", "--profiles", str(tmp_path)
    )
    assert first.code == 0
    text = Path("a b.md").read_text()
    lines = text.split("```\n")[1].splitlines()
    assert [shlex.split(line)[1] for line in lines] == ["predict", "explain", "report"]
    Path("a b.md").unlink()
    for line in lines:
        assert towtank(*shlex.split(line)[1:]).code == 0
    assert Path("a b.md").read_text() == text


def test_a_plan_that_is_not_there_is_one_message(towtank, tmp_path: Path) -> None:
    outcome = towtank("report", str(tmp_path / "none.yaml"))
    assert outcome.code == 2
    assert "none.yaml: cannot be read" in outcome.err
