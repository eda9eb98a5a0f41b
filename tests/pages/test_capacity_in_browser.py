"""The report of a capacity plan in a real browser: on a phone, on a screen and on paper."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.pages.test_capacity_report import report
from tests.pages.test_report_in_browser import CONTRAST, EMPTY

from towtank.autotune.capacity.choose import Limits
from towtank.pages.capacity_report import capacity_page
from towtank.pages.html import html_of

pytestmark = pytest.mark.slow
BEYOND = """() => [...document.querySelectorAll('main *, section *')].filter(e => {
    const box = e.getBoundingClientRect();
    return !e.closest('pre') && box.width > 0 && box.right > document.documentElement.clientWidth + 1;
  }).map(e => e.tagName + ' ' + e.textContent.slice(0, 30))"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("capacity") / "plan.html"
    page = capacity_page(report(Limits(deadline_s=40 * 86400.0)))
    path.write_text(html_of(page), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: Any, file: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Any, list[str]]]:
    """The page as a width and colours show it, and what the browser complained of."""
    width, colours = request.param
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=colours, offline=True
    )
    page, said = context.new_page(), list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(file.as_uri())
    page.locator("#plot-capacity-parts .point").first.wait_for(timeout=60_000)
    yield page, said
    context.close()


@pytest.mark.parametrize(
    "opened", [(390, "light"), (390, "dark"), (1000, "light"), (1400, "dark")], indirect=True
)
def test_nothing_is_cut_and_all_is_legible(opened: tuple[Any, list[str]]) -> None:
    page, said = opened
    assert page.locator(".plot").count() == 2
    assert page.evaluate(EMPTY) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # no cell hides behind the right edge either, not even within a part that scrolls
    assert page.evaluate(BEYOND) == []
    assert page.evaluate(CONTRAST) == []
    assert said == []


@pytest.mark.parametrize("opened", [(390, "light")], indirect=True)
def test_a_phone_names_the_column_of_each_figure(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    cell = page.locator("td[data-column='node-hours']").first
    assert cell.evaluate("e => getComputedStyle(e, '::before').content") == '"node-hours: "'
    assert cell.is_visible()


@pytest.mark.parametrize("opened", [(794, "dark")], indirect=True)
def test_on_paper_every_column_is_there(opened: tuple[Any, list[str]]) -> None:
    page, _ = opened
    page.emulate_media(media="print")
    assert page.evaluate(BEYOND) == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
