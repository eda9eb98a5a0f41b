"""A page as one HTML file that needs nothing else: plotly inside, no network."""

import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from towtank.pages.records import Cell, Page, Plot, Section, Table

_LINE = "\n"
_MANY = 4
"""Columns beyond which a phone shows the cells of a row below each other, each with the name of its column."""
_FOLDER = Path(__file__).parent


def page_file(name: str) -> str:
    """A file of this folder: `page.css`, the look of every page, for one."""
    return (_FOLDER / name).read_text(encoding="utf-8")


def html_of(page: Page, *, plotly: str | None = None) -> str:
    """The page as HTML; `plotly` is the URL of plotly.js, None: the library is part of the file."""
    plots = [section.plot for section in page.sections if section.plot is not None]
    data = {plot.name: {"data": plot.data, "layout": plot.layout} for plot in plots}
    return Template(page_file("page.html")).substitute(
        style=page_file("page.css"),
        script=page_file("page.js"),
        title=escape(page.title),
        subtitle=escape(page.subtitle),
        contents="\n".join(_entry(number, section) for number, section in enumerate(page.sections)),
        sections="\n".join(_section(number, section) for number, section in enumerate(page.sections)),
        # "</" would end the script
        plots=json.dumps(data, allow_nan=False).replace("</", "<\\/"),
        library=_library(plotly) if plots else "",
    )


def _library(plotly: str | None) -> str:
    if plotly is not None:
        return f'<script src="{escape(plotly)}"></script>'
    from plotly.offline import get_plotlyjs

    return f"<script>{get_plotlyjs()}</script>"


def _entry(number: int, section: Section) -> str:
    return f'<li><a href="#section-{number}">{escape(section.title)}</a></li>'


def _section(number: int, section: Section) -> str:
    parts = [f'<section id="section-{number}" aria-labelledby="title-{number}">']
    parts.append(f'<h2 id="title-{number}">{escape(section.title)}</h2>')
    parts += [f"<p>{_prose(text)}</p>" for text in section.paragraphs]
    if section.items:
        parts.append("<ul>" + "".join(f"<li>{_prose(item)}</li>" for item in section.items) + "</ul>")
    if section.plot is not None:
        parts.append(_plot(section.plot))
    if section.table is not None:
        parts.append(_table(section.table, section.title))
    if section.commands:
        parts.append(f'<pre tabindex="0"><code>{escape(chr(10).join(section.commands))}</code></pre>')
    parts.append("</section>")
    return "\n".join(parts)


def _prose(text: str) -> str:
    """Text in which `commands` stand in backticks, as in Markdown."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _plot(plot: Plot) -> str:
    label = escape(plot.alternative)
    return (
        f'<figure><div class="plot" id="plot-{plot.name}" data-plot="{plot.name}" role="img" aria-label="{label}">'
        f"</div><figcaption>{label}</figcaption>"
        f"<details><summary>The figures as a table</summary>{_table(plot.table, plot.name)}</details></figure>"
    )


def _table(table: Table, caption: str) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    body = "".join(f"<tr>{_cells(row, table.columns)}</tr>" for row in table.rows)
    kind = "wide many" if len(table.columns) > _MANY else "wide"
    return (
        f'<div class="{kind}" tabindex="0" role="region" aria-label="{escape(caption)}"><table><thead><tr>{head}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )


def _cells(row: Sequence[Cell], columns: Sequence[str]) -> str:
    kinds = ["" if isinstance(cell, str) else ' class="number"' for cell in row]
    return "".join(
        f'<td{kind} data-column="{escape(column)}">{escape(cell_text(cell))}</td>'
        for kind, cell, column in zip(kinds, row, columns, strict=True)
    )


def cell_text(cell: Cell) -> str:
    """A cell as text: numbers with four digits, large ones whole with commas between thousands."""
    if isinstance(cell, float):
        return f"{cell:.4g}" if abs(cell) < 1e4 else f"{cell:,.0f}"
    return f"{cell:,}" if isinstance(cell, int) else cell
