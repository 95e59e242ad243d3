"""The page as a musician meets it: Chromium on the served demo checkpoint, at 1440 and at 412 px."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import served
import soundfile
from browsing import assert_fits, assert_ready, box, browser, fill, open_advanced, recipe, status, visit, wait_for_words
from playwright.sync_api import Page, expect

from settings import CHECKPOINTS
from song import GROUPS, KNOBS

MARKUP = "<img src=x onerror=window.x=1>"

# Records what the page shows while a song is made: each line of the status, and the buttons beside it.
RECORD = """
window.seen = [];
new MutationObserver(() => window.seen.push({
    words: document.querySelector('#status p').innerText,
    bar: document.querySelector('#status .bar')?.style.width || '',
    generate: !document.querySelector('#generate').disabled,
    stop: !document.querySelector('#stop').disabled,
})).observe(document.querySelector('#status'), {subtree: true, childList: true, characterData: true});
"""


@pytest.mark.parametrize("width", [1440, 412])
def test_from_a_prompt_to_a_song(visit: Callable[..., Page], tmp_path: Path, width: int):
    page = visit(width)
    expect(page.locator("#studio-header")).to_contain_text("Demo model · ")
    expect(page.locator("#studio-header")).to_contain_text("instrumental sketches. On a GPU the studio sings.")
    assert_ready(page)
    expect(page.locator("#download")).to_be_disabled()
    assert_fits(page, width)
    open_advanced(page)
    assert_fits(page, width)
    fill(page, prompt="bossa nova, acoustic guitar", duration_s=12, inference_steps=8, seed=42)

    page.evaluate(RECORD)
    page.locator("#generate").click()
    wait_for_words(page, "seed 42")
    steps = [seen for seen in page.evaluate("window.seen") if " of 8" in seen["words"]]
    assert len({seen["words"] for seen in steps}) >= 2
    assert len({seen["bar"] for seen in steps}) >= 2
    assert {(seen["generate"], seen["stop"]) for seen in steps} == {(False, True)}
    assert any("s left" in seen["words"] for seen in steps)
    assert_ready(page)

    play = page.locator("#player").get_by_role("button", name="Play", exact=True)
    expect(page.locator("#player .duration")).to_have_text("0:12")
    play.click()
    expect(page.locator("#player").get_by_role("button", name="Pause", exact=True)).to_be_visible()
    expect(page.locator("#player .time")).not_to_have_text("0:00")

    with page.expect_download() as download:
        page.locator("#download").click()
    assert download.value.suggested_filename.endswith(".wav")
    download.value.save_as(tmp_path / "song.wav")
    info = soundfile.info(tmp_path / "song.wav")
    assert (info.format, info.samplerate, info.channels, info.frames) == ("WAV", 48_000, 2, 12 * 48_000)

    assert re.search(r'"seed"\s*:\s*42\b', recipe(page).inner_text())
    assert_fits(page, width)


def test_examples_fill_prompt_tempo_and_key(visit: Callable[..., Page]):
    page = visit()
    for position, (label, prompt, bpm, key) in enumerate(CHECKPOINTS["demo"].examples):
        page.get_by_role("button", name=label, exact=True).click()
        expect(box(page, "prompt")).to_have_value(prompt)
        if position == 0:
            open_advanced(page)  # only now: what was filled while it was closed must show
        expect(box(page, "bpm")).to_have_value(str(bpm))
        expect(box(page, "keyscale")).to_have_value(key)


def test_advanced_shows_every_knob_with_its_range_and_why_it_is_off(visit: Callable[..., Page]):
    page = visit()
    open_advanced(page)
    assert len(KNOBS) == 21
    words = [word for g in GROUPS for word in (g, *(k.label for k in KNOBS.values() if k.group == g))]
    lines = [line.strip() for line in page.locator("#advanced").inner_text().splitlines()]
    assert [line for line in lines if line in words] == words, "each group's title, then its knobs"
    off = [name for name, k in KNOBS.items() if k.group == "5Hz LM"]
    assert len(off) == 9
    for name, k in KNOBS.items():
        row = page.locator(f"#advanced #{name}")
        expect(row).to_be_visible()
        expect(row).to_contain_text(k.label)
        if k.range:
            expect(row.locator(".info-text")).to_contain_text(f"({k.range})")
        if name in off:
            expect(box(page, name)).to_be_disabled()
            expect(row).to_contain_text("needs the planner")
        else:
            expect(box(page, name)).to_be_enabled()
            expect(row).not_to_contain_text("needs the planner")


def test_looking_into_advanced_changes_nothing(visit: Callable[..., Page]):
    page = visit()
    open_advanced(page)
    expect(box(page, "bpm")).to_have_value("")
    expect(box(page, "seed")).to_have_value("-1")
    fill(page, prompt="calm piano", inference_steps=8)
    page.locator("#generate").click()
    wait_for_words(page, "seed")
    assert re.search(r'"bpm"\s*:\s*null', recipe(page).inner_text())


def test_stop_ends_a_song_soon_and_the_next_one_works(visit: Callable[..., Page], studio: served.Served):
    page = visit()
    open_advanced(page)
    fill(page, prompt="calm piano", duration_s=60, inference_steps=80, seed=1, bpm=80)
    page.locator("#generate").click()
    wait_for_words(page, "of 80")
    page.locator("#stop").click()
    expect(status(page)).to_have_text("Stopped. Nothing was kept.")
    assert_ready(page)
    until = time.monotonic() + 10  # a fraction of what the song would still take
    while studio.left_behind():
        assert time.monotonic() < until, "the song went on after Stop"
        page.wait_for_timeout(100)
    expect(status(page)).to_have_text("Stopped. Nothing was kept.")
    expect(page.get_by_text("Error", exact=True).filter(visible=True)).to_have_count(0)

    fill(page, duration_s=10, inference_steps=8, seed=2)
    page.locator("#generate").click()
    wait_for_words(page, "seed 2")
    assert_ready(page)


def test_stop_on_a_slow_line_is_not_lost(visit: Callable[..., Page], studio: served.Served):
    page = visit()
    fill(page, prompt="calm piano")
    slow = {"offline": False, "latency": 1000, "downloadThroughput": -1, "uploadThroughput": -1}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow)
    page.locator("#generate").click()
    page.locator("#stop").click()
    expect(status(page)).to_have_text("Stopped. Nothing was kept.")
    assert_ready(page)
    until = time.monotonic() + 10
    while studio.left_behind():
        assert time.monotonic() < until, "the song goes on, though the page says that it was stopped"
        page.wait_for_timeout(100)
    page.wait_for_timeout(500)
    assert studio.left_behind() == []
    expect(status(page)).to_have_text("Stopped. Nothing was kept.")


def test_a_second_visitor_waits_may_leave_the_queue_and_is_served(visit: Callable[..., Page]):
    first, second = visit(), visit()
    for page, seed, steps in ((first, 1, 80), (second, 2, 8)):
        open_advanced(page)
        fill(page, prompt="calm piano", duration_s=10, seed=seed, inference_steps=steps)
    first.locator("#generate").click()
    wait_for_words(first, "step")
    second.locator("#generate").click()
    expect(status(second)).to_have_text("Waiting for your turn · 1 song before yours")
    expect(second.locator("#generate")).to_be_disabled()
    second.locator("#stop").click()
    expect(status(second)).to_have_text("Stopped. Nothing was kept.")
    assert_ready(second)

    second.locator("#generate").click()
    expect(status(second)).to_have_text("Waiting for your turn · 1 song before yours")
    wait_for_words(first, "seed 1")
    wait_for_words(second, "seed 2")
    assert_ready(first)
    assert_ready(second)


def test_no_words_at_all_gives_one_sentence(visit: Callable[..., Page], studio: served.Served):
    page = visit()
    page.locator("#generate").click()
    alert = page.locator("#status").get_by_role("alert")
    expect(alert).to_have_text("Write a style prompt or some lyrics: the studio needs one of the two.")
    expect(alert).to_be_visible()
    assert_ready(page)
    assert "Traceback" not in page.content()
    assert studio.left_behind() == []


def test_a_cleared_seed_box_is_named(visit: Callable[..., Page]):
    page = visit()
    open_advanced(page)
    fill(page, prompt="calm piano", seed="")
    page.locator("#generate").click()
    expect(page.get_by_role("alert")).to_have_text("Seed must be a whole number from -1 to 4294967295; it is empty.")
    assert_ready(page)


def test_markup_is_text_everywhere(visit: Callable[..., Page]):
    page = visit()
    open_advanced(page)
    fill(page, prompt=MARKUP, lyrics=MARKUP, inference_steps=8)
    page.locator("#generate").click()
    wait_for_words(page, "seed")
    expect(recipe(page)).to_contain_text(MARKUP)
    fill(page, keyscale=MARKUP)
    page.locator("#generate").click()
    expect(page.get_by_role("alert")).to_contain_text(f"it is '{MARKUP}'.")
    assert page.locator("img[src='x']").count() == 0
    assert page.evaluate("window.x") is None


def test_only_tabs_that_work_are_shown(visit: Callable[..., Page]):
    page = visit()
    assert page.get_by_role("tab").all_inner_texts() == ["Generate", "Cover", "Extend", "Edit", "Lyrics"]


def test_the_keyboard_reaches_generate(visit: Callable[..., Page]):
    page = visit()
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.locator("#generate").evaluate("button => button === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Write a style prompt")
