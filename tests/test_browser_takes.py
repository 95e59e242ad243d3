"""A visitor's takes as a musician meets them: Chromium on the real page, with a sine for a song engine so that songs are quick."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cutting
import pytest
import served
from browsing import (
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

studio = gated
MARKUP = "<img src=x onerror=window.x=1>"
NOISE = re.compile(
    "network error|errored out|ERR_|AbortError|Failed to fetch"
)  # what a browser says of a line that breaks


def sing(page: Page, prompt: str, **values: Any) -> None:
    if not page.locator("#inference_steps").is_visible():
        open_advanced(page)
    fill(page, **{"prompt": prompt, "inference_steps": 8, "seed": 7, **values})
    page.locator("#generate").click()
    wait_for_words(page, "seed ")
    assert_ready(page)


def rows(page: Page) -> Any:
    return page.locator("#takes .show")


def deed(page: Page, name: str) -> None:
    """Press what can be done with the take on the screen."""
    page.locator("#takes").get_by_role("button", name=re.compile(name)).filter(visible=True).first.click()


def steps(log: Path, seed: int) -> int:
    return sum(line.startswith("step ") and line.split()[2] == str(seed) for line in log.read_text().splitlines())


def gate(studio: served.Served) -> Path:
    return studio.log.with_name("gate.log")


@pytest.mark.parametrize("width", [1440, 412])
def test_takes_are_listed_shown_named_starred_and_deleted(visit: Callable[..., Page], width: int):
    page = visit(width)
    expect(page.locator("#takes")).to_contain_text("Your takes stand here.")
    sing(page, "first song", seed=1)
    sing(page, "second song", seed=2)
    expect(rows(page)).to_have_count(2)
    expect(rows(page).first).to_contain_text("second song")
    expect(rows(page).first).to_contain_text("Generate · 0:10")
    assert_fits(page, width)

    rows(page).nth(1).click()
    expect(recipe(page)).to_contain_text(re.compile(r'"seed"\s*:\s*1\b'))
    deed(page, "^Rename")
    page.keyboard.type(f"{MARKUP} rain")
    page.keyboard.press("Enter")
    expect(rows(page).nth(1)).to_contain_text(f"{MARKUP} rain")
    page.locator("#takes .star").filter(visible=True).nth(1).click()
    expect(page.locator("#takes .star").nth(1)).to_have_attribute("aria-pressed", "true")
    assert page.evaluate("window.x") is None

    deed(page, "^Delete")
    deed(page, "^Delete")
    expect(rows(page)).to_have_count(1)
    expect(recipe(page)).to_contain_text(re.compile(r'"seed"\s*:\s*2\b'))
    deed(page, "^Delete")
    deed(page, "^Delete")
    expect(page.locator("#takes")).to_contain_text("Your takes stand here.")
    expect(page.locator("#download, #retake, #export").filter(visible=True).first).to_be_disabled()
    expect(page.locator("#player")).to_contain_text("Your song stands here.")


def test_two_takes_are_compared_with_a_switch_and_by_what_differs(visit: Callable[..., Page]):
    page = visit()
    sing(page, "first song", seed=1)
    sing(page, "second song", seed=2, inference_steps=9)
    expect(page.locator("#compare-takes")).to_be_hidden()
    deed(page, "^Compare")
    page.locator("#takes").get_by_role("button", name="Compare first song").filter(visible=True).first.click()
    panel = page.locator("#compare-takes")
    expect(panel.get_by_role("radio")).to_have_count(2)
    table = panel.locator("table")
    expect(table.get_by_role("row", name="Inference steps")).to_contain_text("9")
    expect(table).to_contain_text("first song")
    expect(table).not_to_contain_text("Duration")
    panel.get_by_role("radio").nth(1).click()
    expect(panel.get_by_role("radio").nth(1)).to_have_attribute("aria-checked", "true")
    page.get_by_role("button", name="Stop comparing").click()
    expect(panel).to_be_hidden()


def test_a_take_is_sent_to_another_tab_and_keeps_what_was_written_there(visit: Callable[..., Page]):
    page = visit()
    sing(page, "harbour lights", lyrics="[verse]\nla")
    page.get_by_role("tab", name="Extend").click()
    fill(page, **{"extend-prompt": "mine"})
    deed(page, "to Extend")
    expect(page.locator("#extend-source_audio-heard")).to_have_text("0:10.00 · WAV · 48 kHz · stereo")
    expect(box(page, "extend-prompt")).to_have_value("mine")
    deed(page, "to Edit")
    expect(page.locator("#edit-source_audio-heard")).to_contain_text("0:10.00")
    expect(box(page, "edit-prompt")).to_have_value("harbour lights")
    expect(box(page, "edit-source_lyrics")).to_have_value("[verse]\nla")
    deed(page, "to Cover")
    expect(page.locator("#cover-source_audio-heard")).to_contain_text("0:10.00")
    expect(page.locator("#cover")).to_contain_text("about")
    page.locator("#cover").click()
    wait_for_words(page, "seed ")
    expect(rows(page).first).to_contain_text("Cover · 0:10")


def test_two_visitors_never_see_each_others_takes(visit: Callable[..., Page]):
    one, other = visit(), visit()
    sing(one, "a secret song")
    sing(other, "another song")
    expect(rows(one)).to_have_count(1)
    expect(rows(other)).to_have_count(1)
    other.reload()
    expect(rows(other)).to_have_count(1)
    expect(rows(other)).to_contain_text("another song")
    assert "secret" not in other.content()
    expect(rows(one)).to_contain_text("a secret song")


def test_a_reload_keeps_takes_and_what_was_written(visit: Callable[..., Page]):
    page = visit()
    sing(page, "calm piano", seed=3)
    fill(page, lyrics="[verse]\nhalf a line", bpm=93)
    page.reload()
    expect(status(page)).to_have_text("Your last take is ready.")
    expect(rows(page)).to_contain_text("calm piano")
    expect(box(page, "prompt")).to_have_value("calm piano")
    expect(box(page, "lyrics")).to_have_value("[verse]\nhalf a line")
    expect(page.get_by_role("button", name="Advanced · 8 steps, ODE, seed 3")).to_be_visible()
    open_advanced(page)
    expect(box(page, "bpm")).to_have_value("93")
    page.locator("#retake").click()
    wait_for_words(page, "seed ")
    expect(rows(page)).to_have_count(2)


def test_what_the_studio_filled_in_just_before_a_reload_is_kept_too(visit: Callable[..., Page]):
    page = visit()
    page.get_by_role("button", name="Lullaby").click()
    expect(box(page, "prompt")).to_have_value(re.compile("lullaby"))
    filled = box(page, "prompt").input_value()
    page.reload()
    expect(box(page, "prompt")).to_have_value(filled)


def test_a_studio_that_was_started_anew_says_what_is_gone_and_keeps_the_words(visit: Callable[..., Page]):
    page = visit()
    fill(page, prompt="calm piano", lyrics="[verse]\nla")
    expect(page.locator("#generate")).to_be_enabled()
    page.add_init_script("""(() => { const [, values] = JSON.parse(sessionStorage.getItem('studio-form'));
        sessionStorage.setItem('studio-form', JSON.stringify(['another process', values])); })()""")
    page.reload()
    expect(status(page)).to_contain_text("The studio was started anew")
    expect(box(page, "prompt")).to_have_value("calm piano")
    expect(box(page, "lyrics")).to_have_value("[verse]\nla")


def test_a_song_is_there_when_a_broken_line_comes_back(visit: Callable[..., Page], studio: served.Served, browser: Any):
    """On a line of its own, whose breaks the browser's console is full of."""
    with cutting.line(studio.url) as line:
        page = browser.new_page(locale="en-US")
        page.goto(line.url)
        page.locator("#generate").wait_for()
        open_advanced(page)
        fill(page, prompt="slow", lyrics="my words", inference_steps=12, seed=11)
        page.locator("#generate").click()
        wait_for_words(page, "of 12")
        line.cut()
        page.get_by_text("Connection to the server was lost").wait_for()
        line.mend()
        expect(status(page)).to_contain_text("of 12", timeout=30_000)
        expect(page.locator("#generate")).to_be_disabled()
        expect(box(page, "lyrics")).to_have_value("my words")
        wait_for_words(page, "seed 11")
        expect(rows(page)).to_contain_text("slow")
        assert_ready(page)
        assert steps(gate(studio), 11) == 12, "it was made once"
        page.close()


def test_stop_ends_a_song_that_the_page_came_back_to(visit: Callable[..., Page], studio: served.Served):
    page = visit()
    open_advanced(page)
    fill(page, prompt="slow", inference_steps=60, seed=12)
    page.locator("#generate").click()
    wait_for_words(page, "of 60")
    complained = len(visit.complaints)
    page.reload()
    expect(status(page)).to_contain_text("of 60", timeout=30_000)
    del visit.complaints[complained:]  # of the stream that the reload broke
    page.locator("#stop").click()
    expect(status(page)).to_have_text("Stopped. Nothing was kept.")
    assert_ready(page)
    made = steps(gate(studio), 12)
    page.wait_for_timeout(2500)
    assert steps(gate(studio), 12) <= made + 2
    expect(rows(page)).to_have_count(0)


def test_a_page_that_is_left_frees_the_gpu(visit: Callable[..., Page], studio: served.Served):
    page, other = visit(), visit()
    open_advanced(page)
    fill(page, prompt="slow", inference_steps=80, seed=13)
    page.locator("#generate").click()
    wait_for_words(page, "of 80")
    page.close()
    sing(other, "another song", seed=14)  # waits for the GPU
    assert 0 < steps(gate(studio), 13) < 60


def test_a_double_click_makes_one_song(visit: Callable[..., Page], studio: served.Served):
    page = visit()
    open_advanced(page)
    fill(page, prompt="calm piano", inference_steps=8, seed=15)
    page.locator("#generate").dblclick()
    wait_for_words(page, "seed 15")
    page.wait_for_timeout(500)
    assert steps(gate(studio), 15) == 8
    expect(rows(page)).to_have_count(1)
