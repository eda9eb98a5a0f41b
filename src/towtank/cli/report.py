"""`towtank report`: one step as a page that people read."""

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towtank.cli.failure import InputError
from towtank.cli.options import Machine, Model, Profiles, Stack

if TYPE_CHECKING:
    from towtank.pages.records import Page

    _Options = Sequence[tuple[str, str | Path | None]]

EXAMPLES = """\
\b
Examples:
  towtank report plan.yaml
  towtank report plan.yaml --html step.html --markdown step.md --csv step.csv
  towtank report plan.yaml --model gpt3-175b --machine selene --stack megatron-2021

\b
The HTML file holds everything that it shows: it opens without a network, prints, and reads on a phone.
"""


def _file(name: str, text: str) -> Any:
    return typer.Option(name, metavar="FILE", help=text, show_default=False)


def report(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.yaml", help="Plan file.", show_default=False)],
    model: Model = None,
    machine: Machine = None,
    stack: Stack = None,
    html: Annotated[
        Path | None, _file("--html", "The page; default: report.html unless another is asked.")
    ] = None,
    markdown: Annotated[Path | None, _file("--markdown", "The same as Markdown.")] = None,
    csv: Annotated[Path | None, _file("--csv", "All its figures as CSV.")] = None,
    profiles: Profiles = None,
) -> None:
    """Write the report of a step: summary, breakdown, critical path, timeline, memory, roofline, front, scaling,
    how far to trust it, sources, and the commands that reproduce it."""
    from towtank.cli.compare import predicted
    from towtank.cli.job import load_job
    from towtank.cli.progress import progress_bar
    from towtank.cli.text import emit
    from towtank.pages.step_report import page_of, step_report

    if html is None and markdown is None and csv is None:
        html = Path("report.html")
    folders = tuple(profiles or ())
    job = load_job(plan, model, machine, stack, folders)
    check_files(html, markdown, csv)
    given = [("--model", model), ("--machine", machine), ("--stack", stack)]
    given += [("--profiles", str(folder)) for folder in folders]
    files = (("--html", html), ("--markdown", markdown), ("--csv", csv))
    page = page_of(
        step_report(
            predicted(job, folders), _commands(plan, given, files), profile_dirs=folders,
            progress=lambda done, total: progress_bar("neighbours", done=done, total=total),
        )
    )  # fmt: skip
    for path in write_page(page, html, markdown, csv):
        if path.is_file():  # else it is a pipe, such as /dev/stdout, that somebody reads
            emit(f"wrote {path}")


def _commands(plan: Path, given: "_Options", files: "_Options") -> list[str]:
    """Lines that reproduce the page from the folder in which it was asked for."""

    def line(command: str, options: "_Options") -> str:
        words = [f"{name} {shlex.quote(str(value))}" for name, value in options if value is not None]
        return " ".join([f"towtank {command}", shlex.quote(str(plan)), *words])

    return [line("predict --plan", given), line("explain", given), line("report", [*given, *files])]


def write_page(page: "Page", html: Path | None, markdown: Path | None, csv: Path | None) -> "Iterator[Path]":
    """Write a page in the kinds that have a file, and give each file once all of it is there.

    Raises:
        InputError: a file cannot be written; it is then what it was before.
    """
    from towtank.pages.html import html_of
    from towtank.pages.plain import csv_of, markdown_of

    for path, make in ((html, html_of), (markdown, markdown_of), (csv, csv_of)):
        if path is None:
            continue
        text = make(page)
        try:
            _write(path, text)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; name another file") from error
        yield path


def _write(path: Path, text: str) -> None:
    # a link stays one; what of a name is no UTF-8 becomes a question mark
    whole, text = Path(os.path.realpath(path)), text.encode("utf-8", "replace").decode()
    if path.exists() and not (path.is_file() and os.access(whole.parent, os.W_OK)):
        path.write_text(text, encoding="utf-8")  # a device such as /dev/stdout, or a folder that is not ours
        return
    part = whole.with_name(f".towtank-{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(whole)
    finally:
        part.unlink(missing_ok=True)


def check_files(*paths: Path | None) -> None:
    """Whether the files can be written: before the work, not after it."""
    faults = [
        f"{path}: there is no folder {path.parent}" for path in paths if path and not path.parent.is_dir()
    ]
    faults += [f"{path}: is a folder" for path in paths if path and path.is_dir()]
    faults += [
        f"{path}: may not be written"
        for path in paths
        if path and path.parent.is_dir() and not os.access(path if path.exists() else path.parent, os.W_OK)
    ]
    given = [os.path.realpath(path) for path in paths if path]
    if len(set(given)) < len(given):
        faults.append("two kinds of the report are asked in one file; name one for each")
    if faults:
        raise InputError("; ".join(faults))
