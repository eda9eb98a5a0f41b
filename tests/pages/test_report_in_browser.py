"""The report in a real browser, without a network."""

from pathlib import Path

import pytest

from towtank.pages.html import html_of
from towtank.pages.records import Page

pytestmark = pytest.mark.slow
PLOTS = 8
EMPTY = (
    "[...document.querySelectorAll('.plot')].filter(e => !e.querySelector('.trace, .point')).map(e => e.id)"
)
REACHED = """() => { const e = document.activeElement, below = e.nextSibling;
  return e.id || e.tagName + '.' + e.className + (e.matches('summary') ? below.ariaLabel : ''); }"""
CONTRAST = """() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = (rgb) => { const [r, g, b] = rgb.slice(0, 3).map(linear);
    return .2126 * r + .7152 * g + .0722 * b; };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = numbers(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  const found = [];
  const texts = 'h1, h2, p, a, li, td, th, button, figcaption, summary, code, .plot text';
  for (const e of document.querySelectorAll(texts)) {
    if (!e.textContent.trim()) continue;
    const style = getComputedStyle(e), inSvg = e.namespaceURI.includes('svg');
    // a text within a bar stands on the bar, not on the page
    const bar = e.classList.contains('bartext') && e.parentElement.querySelector('path');
    const [inner, outer] = [e, bar || e].map((one) => one.getBoundingClientRect());
    const on = bar && inner.left >= outer.left && inner.right <= outer.right;
    const below = on ? numbers(getComputedStyle(bar).fill) : ground(inSvg ? e.closest('.plot') : e);
    const a = light(numbers(inSvg ? style.fill : style.color)), b = light(below);
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) found.push([e.tagName, e.textContent.slice(0, 30), ratio]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def file(page: Page, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(html_of(page), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [390, 1000])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_every_plot_is_drawn_and_legible(browser, file: Path, width: int, colours: str) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=colours, offline=True
    )
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on(
        "request",
        lambda asked: said.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None,
    )
    page.goto(file.as_uri())
    page.locator("#plot-scaling .trace").first.wait_for(timeout=60_000)
    assert page.locator(".plot").count() == PLOTS
    assert page.evaluate(EMPTY) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []
    page.locator("#theme").click()
    assert page.evaluate(CONTRAST) == []
    assert said == []
    context.close()


@pytest.mark.parametrize("choice", ["system", "button"])
def test_it_prints_black_on_white_also_from_the_dark(browser, file: Path, choice: str) -> None:
    colours = "dark" if choice == "system" else "light"
    context = browser.new_context(viewport={"width": 700, "height": 900}, color_scheme=colours, offline=True)
    page = context.new_page()
    page.goto(file.as_uri())
    page.locator("#plot-scaling .trace").first.wait_for(timeout=60_000)
    if choice == "button":
        page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate(EMPTY) == []
    assert not page.locator("nav").is_visible()
    assert page.pdf().startswith(b"%PDF")
    context.close()


def test_the_keyboard_reaches_everything(browser, file: Path) -> None:
    page = browser.new_page()
    page.goto(file.as_uri())
    reached = []
    for _ in range(160):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(REACHED))
    assert reached[0] == "A.skip"
    assert reached[1] == "theme"
    assert len({each for each in reached if each.startswith("SUMMARY.")}) == PLOTS
    assert "DIV.wide" in reached
    assert "PRE." in reached
    page.locator("#theme").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("figure table").first.is_visible()
    page.close()
