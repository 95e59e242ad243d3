"""Visiting the served demo checkpoint with Chromium. Import the fixtures by name.

Every page also holds that no request leaves 127.0.0.1 and that the browser's console stays clean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import served
from playwright.sync_api import Page, expect

SONG_MS = 120_000  # a busy machine of two cores takes a fifth of it
# Visible widgets that stick out of the window; a scroll bar alone would miss those in a clipped box.
STICKING_OUT = """
[...document.querySelectorAll('h1, p, button, input, textarea, label, .info-text, #player .deck, #metadata')]
    .filter(e => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1)
    .filter(e => !e.closest('#takes, [role=tablist]'))  // strips that scroll
    .map(e => e.outerHTML.slice(0, 120))
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with served.chromium() as running:
        yield running


@contextmanager
def opened(address: str, browser: Any, complaints: list[str] | None = None, **context: Any) -> Iterator[Page]:
    """A page in a fresh browser profile. When it closes, no request may have left it for elsewhere.

    Nor may the console have complained. `complaints` hold what it said so far: a test that expects some takes them out.
    """
    outside, complaints = [], [] if complaints is None else complaints

    def note_request(request: Any) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            outside.append(request.url)

    def note_console(message: Any) -> None:
        if message.type == "error":
            complaints.append(message.text)

    with browser.new_context(**context) as profile:
        page = profile.new_page()
        page.on("request", note_request)
        page.on("console", note_console)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
    assert outside == [], "\n".join(outside)
    assert complaints == [], "\n".join(complaints)


@pytest.fixture
def visit(browser: Any, studio: served.Served) -> Iterator[Callable[..., Page]]:
    """Opens the studio, `opened` in a window of a given width; its `complaints` are the console's errors so far."""
    complaints = []
    with ExitStack() as stack:

        def open_page(width: int = 1440) -> Page:
            window = {"viewport": {"width": width, "height": 900}, "locale": "en-US"}
            page = stack.enter_context(opened(studio.url, browser, complaints, **window))
            page.goto(studio.url)
            page.locator("#generate").wait_for()
            return page

        open_page.complaints = complaints
        yield open_page


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[served.Served]:
    """The studio with a sine for a song engine, so that songs are quick; import it as `studio`."""
    folder = tmp_path_factory.mktemp("gated")
    with served.studio(folder, "tests/gate_app.py", GATE_LOG=str(folder / "gate.log")) as running:
        yield running


def status(page: Page) -> Any:
    return page.locator("#status p")


def open_advanced(page: Page) -> None:
    page.get_by_role("button", name="Advanced").click()
    box(page, "seed").wait_for()


def recipe(page: Page) -> Any:
    """The take's metadata, in a panel that is closed at first."""
    shown = page.locator("#metadata")
    if not shown.is_visible():
        page.get_by_role("button", name="Recipe").click()
        shown.wait_for()
    return shown


def box(page: Page, name: str) -> Any:
    """Where a control is typed into; of a slider, its number box."""
    return page.locator(f"#{name} textarea, #{name} input").first


def fill(page: Page, **values: Any) -> None:
    for name, value in values.items():
        box(page, name).fill(str(value))


def wait_for_words(page: Page, words: str) -> None:
    """Until the status tells of a song's progress or end; an error of the studio does not have to be waited out."""
    told = status(page).filter(has_text=words)
    told.or_(page.locator("#status").get_by_role("alert")).wait_for(timeout=SONG_MS)
    expect(status(page)).to_contain_text(words)


def assert_fits(page: Page, width: int) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(STICKING_OUT) == []


def assert_ready(page: Page) -> None:
    expect(page.locator("#generate, #cover, #extend, #edit").filter(visible=True)).to_be_enabled()
    expect(page.locator("#stop")).to_be_disabled()
