"""A page as Markdown, and its tables as CSV."""

import csv
import io

from towtank.pages.html import cell_text
from towtank.pages.records import Page, Section, Table


def markdown_of(page: Page) -> str:
    """The page as Markdown; a plot is its table."""
    parts = [f"# {page.title}", page.subtitle]
    for section in page.sections:
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> list[str]:
    parts = [f"## {section.title}", *section.paragraphs]
    if section.items:
        parts.append("\n".join(f"- {item}" for item in section.items))
    if section.plot is not None:
        parts += [section.plot.alternative, _table(section.plot.table)]
    if section.table is not None:
        parts.append(_table(section.table))
    if section.commands:
        parts.append("```\n" + "\n".join(section.commands) + "\n```")
    return parts


def _table(table: Table) -> str:
    lines = [" | ".join(table.columns), " | ".join("---" for _ in table.columns)]
    lines += [" | ".join(_escaped(cell_text(cell)) for cell in row) for row in table.rows]
    return "\n".join(f"| {line} |" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def csv_of(page: Page) -> str:
    """Every table of the page, that of a plot included: section, column, row number and value in a line each."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("section", "row", "column", "value"))
    for section in page.sections:
        for table in (section.plot.table if section.plot is not None else None, section.table):
            for number, row in enumerate(table.rows if table is not None else ()):
                for column, cell in zip(table.columns if table is not None else (), row, strict=True):
                    writer.writerow((section.title, number, column, cell))
    return file.getvalue()
