"""Several takes of the same words as a musician meets them: Chromium on the real page, with a sine for a song engine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import served
from browsing import (
    SONG_MS,
    assert_fits,
    assert_ready,
    box,
    browser,
    fill,
    gated,
    open_advanced,
    recipe,
    status,
    visit,
    wait_for_words,
)
from playwright.sync_api import Page, expect

import tags

studio = gated
LISTEN = """() => {
    const heard = [...document.querySelectorAll('#player audio')].find(one => !one.paused && one.currentTime > 0);
    if (!heard) return false;
    const tear = () => { window.torn ||= !heard.ended; };
    for (const kind of ['pause', 'emptied', 'error']) heard.addEventListener(kind, tear);
    window.here = () => heard.isConnected && !window.torn;
    return true;
}"""


def ask(page: Page, takes: int, **values: Any) -> None:
    """Press Generate for so many takes of 10 s, each made in 4 s."""
    if not page.locator("#inference_steps").is_visible():
        open_advanced(page)
    fill(page, **{"prompt": "slow", "duration_s": 10, "inference_steps": 8, "seed": 41, **values})
    page.locator("#count").get_by_text(str(takes), exact=True).click()
    page.locator("#generate").click()


def rows(page: Page) -> Any:
    return page.locator("#takes .show")


def told(page: Page) -> list[str]:
    """What stands in the list, the newest first."""
    return [re.sub(r"\s+", " ", text).strip() for text in rows(page).all_text_contents()]


def wait_for_rows(page: Page, count: int) -> None:
    expect(rows(page)).to_have_count(count, timeout=SONG_MS)


@pytest.mark.parametrize("width", [1440, 412])
def test_takes_come_one_by_one_and_the_first_plays_on(visit: Callable[..., Page], width: int) -> None:
    page = visit(width)
    ask(page, 3)
    wait_for_words(page, "take 1 of 3")
    wait_for_rows(page, 1)
    expect(page.locator("#stop")).to_be_enabled()
    expect(recipe(page)).to_contain_text(re.compile(r'"seed"\s*:\s*41\b'))
    page.locator("#player .play").click()
    page.wait_for_function(f"({LISTEN})()")
    expect(status(page)).to_contain_text(re.compile("take 2 of 3|take 3 of 3"))
    wait_for_rows(page, 2)
    assert page.evaluate("window.here()"), "what one listens to is not taken away"
    wait_for_words(page, "Take 3 of 3: 10 s in ")
    assert page.evaluate("window.here()")
    expect(status(page)).to_contain_text("seed 43")
    assert_ready(page)
    assert told(page) == [f"slow Generate {n}/3 · 0:10" for n in (3, 2, 1)]
    expect(rows(page).nth(2)).to_have_attribute("aria-current", "true")
    expect(recipe(page)).to_contain_text(re.compile(r'"seed"\s*:\s*41\b'))
    expect(page.locator("#retake")).to_be_enabled()
    assert_fits(page, width)


def saved(page: Page) -> Path:
    """The file of the take on the screen, as the browser saves it."""
    with page.expect_download() as download:
        page.locator("#download").click()
    path = Path(download.value.path())
    return path.rename(path.with_name(download.value.suggested_filename))


def test_one_of_several_takes_is_restored_and_made_again_alone(visit: Callable[..., Page]) -> None:
    page, files = visit(), []
    ask(page, 3, prompt="quick", seed=51)
    wait_for_words(page, "Take 3 of 3")
    assert_ready(page)
    for place in (2, 1, 0):
        rows(page).nth(place).click()
        expect(rows(page).nth(place)).to_have_attribute("aria-current", "true")
        files.append(saved(page))
    seeds = [json.loads(tags.read(file).recipe)["controls"]["seed"] for file in files]
    assert seeds == [51, 52, 53] and len({file.read_bytes() for file in files}) == 3

    other = visit()
    count = other.locator("#count").get_by_role("radio")
    count.nth(3).check()
    other.locator("#files input[type=file]").set_input_files(files[1])
    wait_for_words(other, "Restored on Generate: seed 52.")
    expect(count.nth(0)).to_be_checked()
    other.locator("#generate").click()
    wait_for_words(other, "10 s in ")
    assert_ready(other)
    wait_for_rows(other, 1)
    assert saved(other).read_bytes() == files[1].read_bytes(), "byte for byte"


def test_two_of_several_takes_are_compared_while_the_third_is_made(visit: Callable[..., Page]) -> None:
    page = visit()
    ask(page, 3, seed=61)
    wait_for_rows(page, 2)
    for n in (0, 1):
        page.locator("#takes .compare").filter(visible=True).first.click()
        expect(page.locator("#takes .badge:not([hidden])")).to_have_count(n + 1)
    panel = page.locator("#compare-takes")
    expect(panel.get_by_role("radio")).to_have_count(2)
    expect(panel.locator("table").get_by_role("row", name="Seed")).to_contain_text("62")
    expect(panel.locator("table tbody tr").first).to_be_visible()
    panel.get_by_role("radio").nth(1).click()
    wait_for_words(page, "Take 3 of 3")
    wait_for_rows(page, 3)
    expect(panel.get_by_role("radio").nth(1)).to_have_attribute("aria-checked", "true")


def test_stop_between_takes_keeps_those_that_are_finished(visit: Callable[..., Page]) -> None:
    page = visit()
    ask(page, 4, seed=71)
    wait_for_rows(page, 1)
    expect(status(page)).to_contain_text("take 2 of 4")
    page.locator("#stop").click()
    expect(status(page)).to_have_text("Stopped. 1 of 4 takes was kept.")
    assert_ready(page)
    expect(page.locator("#retake")).to_be_enabled()
    page.wait_for_timeout(1500)
    wait_for_rows(page, 1)
    expect(recipe(page)).to_contain_text(re.compile(r'"seed"\s*:\s*71\b'))


def test_a_reload_between_takes_loses_none(visit: Callable[..., Page]) -> None:
    page = visit()
    ask(page, 3, seed=81)
    wait_for_rows(page, 1)
    complained = len(visit.complaints)
    page.reload()
    wait_for_words(page, "of 3")
    del visit.complaints[complained:]  # of the stream that the reload broke
    expect(page.locator("#count").get_by_role("radio").nth(2)).to_be_checked()
    wait_for_words(page, "Take 3 of 3")
    assert_ready(page)
    assert told(page) == [f"slow Generate {n}/3 · 0:10" for n in (3, 2, 1)]
    expect(rows(page).nth(2)).to_have_attribute("aria-current", "true")
    expect(box(page, "prompt")).to_have_value("slow")
