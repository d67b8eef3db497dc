"""The page to try it on, in a real browser without a window, light and dark."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_bundle import LABELS, make_bundle
from tiny_server import Address, running

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    models = tmp_path_factory.mktemp("page") / "models"
    make_bundle(models / "moon", thresholds={"person": 1.0})
    make_bundle(models / "<b>&", name="not served")  # its name is none
    make_bundle(models / "other")
    with running(models, token=None) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)} is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # As root it starts without its own sandbox only; containers have little /dev/shm.
        found = driver.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield found
        found.close()


@pytest.fixture
def page(browser: Any, server: Address, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, opened; any complaint of the browser, or request to elsewhere, fails the test."""
    found = browser.new_page(color_scheme=getattr(request, "param", "light"))
    complaints: list[str] = []
    found.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    found.on("pageerror", lambda error: complaints.append(str(error)))
    asked: list[str] = []
    found.on("request", lambda each: asked.append(each.url))
    found.goto(server.url)
    yield found
    found.close()
    assert all(url.startswith(server.url) for url in asked)
    assert [each for each in complaints if "400 (Bad Request)" not in each] == []


def classify(page: Any, text: str) -> None:
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Classify").click()


def test_a_text_gets_a_label_and_bars_from_the_chosen_model(page: Any) -> None:
    page.get_by_label("Model").select_option("moon")
    classify(page, "where is the moon")
    heading = page.get_by_role("heading", level=2)
    heading.wait_for()
    assert heading.text_content() == LABELS[0]
    meters = page.get_by_role("meter")
    assert meters.count() == len(LABELS)
    values = [float(meters.nth(n).evaluate("meter => meter.value")) for n in range(len(LABELS))]
    assert sum(values) == pytest.approx(1, abs=1e-5)
    assert values == sorted(values, reverse=True)
    assert page.get_by_text(f"{100 * values[0]:.1f} %").count() == 1
    assert page.get_by_role("status").get_by_text("moon, version 1").count() == 1
    wide = [meters.nth(n).bounding_box() for n in range(len(LABELS))]
    assert all(box and box["width"] > 100 and box["height"] > 5 for box in wide)


def test_keys_are_enough_and_what_is_undecided_or_refused_is_said(page: Any) -> None:
    page.locator("textarea:focus").wait_for()  # by itself, once the page has been drawn
    page.keyboard.type("who was it")
    page.keyboard.press("Control+Enter")
    page.get_by_role("heading", name="Undecided").wait_for()
    classify(page, "  ")
    page.get_by_text("Text 0 is blank").wait_for()


@pytest.mark.parametrize("page", ["light", "dark"], indirect=True)
def test_text_stands_out_in_light_and_in_dark(page: Any) -> None:
    classify(page, "where is the moon")
    page.get_by_role("heading", level=2).wait_for()
    for selector in ("#label", "#note", "#send", "label", "dt", ".value", "#answer p"):
        assert page.evaluate(CONTRAST, selector) >= 4.5, selector


def test_a_narrow_screen_needs_no_scrolling_aside(page: Any) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    classify(page, "where is the moon")
    page.get_by_role("heading", level=2).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_a_page_that_was_open_before_any_model_answered_needs_no_reload(
    browser: Any, tmp_path: Path
) -> None:
    make_bundle(tmp_path / "models" / "late")
    with running(tmp_path / "models") as server:
        server.change("late/unload")
        page = browser.new_page()
        page.goto(server.url)
        page.get_by_text("No model answers yet.").wait_for()
        server.change("late/load")
        classify(page, "where is the moon")
        page.get_by_role("heading", name=LABELS[0]).wait_for()
        page.close()


def test_the_docs_open_without_another_server(browser: Any, server: Address) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda each: asked.append(each.url))
    page.goto(f"{server.url}/docs")
    page.get_by_text("/v2/models/{name}/infer").first.wait_for()
    page.close()
    assert all(url.startswith((server.url, "data:")) for url in asked)


#: The contrast of an element's text, by the formula of WCAG 2.
CONTRAST = """selector => {
  const parts = (text) => text.match(/[0-9.]+/g).map(Number);
  const light = ([red, green, blue]) => [red, green, blue].map((each) => each / 255)
    .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
    .reduce((sum, each, place) => sum + each * [0.2126, 0.7152, 0.0722][place], 0);
  const node = document.querySelector(selector);
  let under = node;
  while (parts(getComputedStyle(under).backgroundColor)[3] === 0) under = under.parentElement;
  const [one, other] = [getComputedStyle(node).color, getComputedStyle(under).backgroundColor]
    .map(parts).map(light).sort((a, b) => b - a);
  return (one + 0.05) / (other + 0.05);
}"""
