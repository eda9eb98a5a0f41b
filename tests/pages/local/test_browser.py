"""The local page in a real browser, from the form to the report."""

import pytest

pytestmark = pytest.mark.slow
SMALL = "?model=gpt-5b&machine=selene:nodes=1&stack=megatron-core&global_batch=16&plan=tensor_x%3D2,recompute%3Dfull"
LARGE = "?model=megatron-1t&machine=selene&devices=3072&global_batch=3072"


@pytest.mark.parametrize("width", [390, 1000])
def test_predict_tune_and_open_the_report(browser, port: int, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    ours = f"http://127.0.0.1:{port}/"
    context.on(
        "request", lambda asked: said.append(asked.url) if not asked.url.startswith((ours, "data:")) else None
    )

    page.goto(ours + SMALL)
    assert page.locator("[name=model]").input_value() == "gpt-5b"
    page.locator("[name=devices]").fill("8")
    page.locator("#predict").focus()
    page.keyboard.press("Enter")
    page.locator("#report").wait_for(timeout=60_000)
    assert "step time" in page.locator("#answer").inner_text()
    assert "devices=8" in page.url  # the inputs are in the address

    page.locator("#tune").click()
    page.locator("#answer tbody tr").first.wait_for(timeout=120_000)
    assert "proven best" in page.locator("#answer").inner_text()
    page.get_by_role("button", name="Use plan 1", exact=True).click()
    assert "=" in page.locator("[name=plan]").input_value()
    assert page.evaluate("document.documentElement.scrollWidth") <= width

    page.get_by_role("link", name="Report of plan 1", exact=True).click()
    page.locator("#plot-breakdown svg .point").first.wait_for(timeout=60_000)
    empty = "[...document.querySelectorAll('.plot')].filter(e => !e.querySelector('.trace, .point')).map(e => e.id)"
    assert page.evaluate(empty) == []
    assert said == []
    context.close()


def test_a_run_is_planned_and_its_report_opened(browser, port: int) -> None:
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"http://127.0.0.1:{port}/{SMALL}&devices=8&tokens=1G&deadline=30d")
    page.locator("#capacity").click()
    page.locator("#report").wait_for(timeout=120_000)
    assert "Chosen: 8 devices." in page.locator("#answer").inner_text()
    page.locator("#report").click()
    page.locator("#plot-capacity-parts .point").first.wait_for(timeout=60_000)
    assert "chance to be in time" in page.locator("#section-0").inner_text()
    assert "--tokens 1G" in page.locator("pre").inner_text()
    assert said == []
    page.close()


def test_what_is_wrong_is_said_on_the_page(browser, port: int) -> None:
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{port}/?model=%3Cimg src=x onerror=alert(1)%3E&machine=selen")
    page.locator("#predict").click()
    page.locator("#faults li").nth(1).wait_for(timeout=60_000)
    faults = page.locator("#faults").inner_text()
    assert "<img src=x" in faults
    assert "did you mean 'selene'" in faults
    assert page.locator("#faults img").count() == 0
    page.close()


def test_a_search_is_stopped(browser, port: int) -> None:
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{port}/{LARGE}")
    page.locator("#tune").click()
    page.locator("#stop").wait_for(timeout=60_000)
    page.locator("#stop").click()
    page.locator("#stop").wait_for(state="hidden", timeout=60_000)
    assert page.locator("#tune").is_enabled()
    assert page.locator("#faults, #answer").all_inner_texts() != ["", ""]
    page.close()


def test_two_tabs_do_not_meet(browser, port: int) -> None:
    context = browser.new_context()
    tabs = [context.new_page() for _ in range(2)]
    for tab, devices in zip(tabs, ("4", "8"), strict=True):
        tab.goto(f"http://127.0.0.1:{port}/{SMALL}&devices={devices}")
    for tab in tabs:
        tab.locator("#predict").click()
    for tab, devices in zip(tabs, ("4", "8"), strict=True):
        tab.locator("#report").wait_for(timeout=60_000)
        assert f"gpt-5b on {devices} devices" in tab.locator("#answer").inner_text()
    context.close()


def test_a_tab_that_goes_away_ends_its_search(browser, port: int, ask) -> None:
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{port}/{LARGE}")
    with page.expect_response("**/api/tune") as started:
        page.locator("#tune").click()
    name = started.value.json()["search"]
    page.locator("#stop").wait_for(timeout=60_000)
    page.goto("about:blank")
    for _ in range(120):
        if ask("GET", f"/api/tune/{name}").json()["state"] != "running":
            break
        page.wait_for_timeout(250)
    found = ask("GET", f"/api/tune/{name}").json()
    assert found["state"] in ("failed", "done")
    assert "stopped" in str(found).lower()  # and not run to its end
    page.close()


def test_the_link_opens_the_same_form(browser, port: int) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{port}/")
    first = page.locator("#share").get_attribute("href")
    assert "model=llama3-8b" in first  # also before anything is changed
    page.locator("[name=model]").fill("llama2-7b")
    page.locator("[name=plan]").fill("tensor_x=2, recompute=full")
    page.locator("[name=plan]").blur()
    other = context.new_page()
    other.goto(f"http://127.0.0.1:{port}{page.locator('#share').get_attribute('href')}")
    for name in (
        "model",
        "machine",
        "stack",
        "devices",
        "global_batch",
        "sequence",
        "plan",
        "tokens",
        "deadline",
    ):
        field = f"[name={name}]"
        assert other.locator(field).input_value() == page.locator(field).input_value()
    assert other.locator("[name=plan]").input_value() == "tensor_x=2, recompute=full"
    context.close()
