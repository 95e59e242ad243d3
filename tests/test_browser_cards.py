"""Errors as cards, each with a button that mends it: Chromium on the real page, with a sine for a song engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import served
from browsing import assert_ready, box, browser, fill, open_advanced, status, visit, wait_for_words
from playwright.sync_api import Page, expect

# What ZeroGPU and memory would say; the card is drawn by the same code as any other, and its buttons do the same.
DRAWN = "card => { document.querySelector('#status .prose').innerHTML = card; }"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[served.Served]:
    folder = tmp_path_factory.mktemp("cards")
    with served.studio(folder, "tests/gate_app.py", GATE_LOG=str(folder / "gate.log"), ACE_QUEUE="1") as running:
        yield running


def card(page: Page) -> Any:
    return page.locator("#status").filter(has=page.locator(".head"))


def mend(page: Page, words: str) -> None:
    page.locator("#status, .heard, #loras-line").get_by_role("button", name=words).click()


def test_a_song_without_sound_is_tried_with_another_seed(visit: Callable[..., Page]):
    page = visit()
    open_advanced(page)
    fill(page, prompt="fail", seed=5, inference_steps=8)
    page.locator("#generate").click()
    expect(card(page)).to_contain_text("No usable sound")
    expect(page.get_by_role("alert")).to_contain_text("The model made silence.")
    assert_ready(page)
    fill(page, prompt="calm piano")
    mend(page, "Try another seed")
    wait_for_words(page, " s in ")
    expect(box(page, "seed")).to_have_value("-1")


def test_a_control_that_is_wrong_is_shown_wherever_it_is(visit: Callable[..., Page]):
    page = visit()
    open_advanced(page)
    fill(page, prompt="calm piano", keyscale="H minor")
    page.get_by_role("button", name="Advanced").click()
    expect(page.locator("#keyscale")).to_be_hidden()
    page.locator("#generate").click()
    expect(card(page)).to_contain_text("A control needs another value")
    mend(page, "Show the control")
    expect(box(page, "keyscale")).to_be_focused()
    expect(box(page, "keyscale")).to_be_in_viewport()

    fill(page, prompt="", keyscale="")
    page.locator("#generate").click()
    mend(page, "Show the control")
    expect(box(page, "prompt")).to_be_focused()


def test_a_recording_that_is_none_gives_way_to_another_file(visit: Callable[..., Page], tmp_path: Path):
    page = visit()
    page.get_by_role("tab", name="Cover").click()
    (tmp_path / "words.wav").write_text("no music")
    page.locator("#cover-source_audio input[type=file]").first.set_input_files(tmp_path / "words.wav")
    expect(page.locator("#cover-source_audio-heard")).to_contain_text("This recording cannot be used")
    with page.expect_file_chooser():
        mend(page, "Pick another file")
    expect(page.locator("#cover-source_audio-heard")).to_have_text("")


def test_a_lora_that_is_none_gives_way_to_another_file(visit: Callable[..., Page], tmp_path: Path):
    page = visit()
    page.get_by_role("button", name="LoRAs").click()
    (tmp_path / "words.safetensors").write_text("no LoRA")
    page.locator("#loras-drop input[type=file]").set_input_files(tmp_path / "words.safetensors")
    expect(page.locator("#loras-line")).to_contain_text("This LoRA cannot be used")
    with page.expect_file_chooser():
        mend(page, "Pick another file")


@pytest.mark.parametrize(
    "kind, words, name, before, after",
    [
        ("GpuAborted", "Lower the steps", "inference_steps", 50, "30"),
        ("GpuAborted", "Lower the steps", "inference_steps", 8, "8"),
        ("OutOfMemory", "Make it shorter", "duration_s", 240, "120"),
        ("OutOfMemory", "Make it shorter", "duration_s", 15, "10"),
    ],
)
def test_what_was_too_much_becomes_less(
    visit: Callable[..., Page], kind: str, words: str, name: str, before: int, after: str
):
    import cards
    import errors

    page = visit()
    open_advanced(page)
    fill(page, **{name: before})
    page.evaluate(DRAWN, cards.refusal(errors.BY_NAME[kind]("Too much."), "generate"))
    mend(page, words)
    expect(box(page, name)).to_have_value(after)
    expect(status(page)).to_contain_text(f"{after} now." if before > int(after) else f"{after} already")


def test_a_lora_without_effect_is_taken_off_the_stack(visit: Callable[..., Page]):
    import cards
    import errors

    page = visit()
    page.get_by_role("button", name="LoRAs").click()
    names = page.locator("#loras .name")
    for count, preset in enumerate(("music-box", "8-bit"), 1):
        page.locator(f"#preset-{preset}").click()
        expect(names).to_have_count(count)
    told = f"{names.first.inner_text()} has no effect on this model."
    page.evaluate(DRAWN, cards.refusal(errors.EngineRefused(told), "generate"))
    kept = names.nth(1).inner_text()
    mend(page, "Remove the LoRA")
    expect(names).to_have_count(1)
    expect(names).to_have_text(kept)


def test_a_full_studio_says_so_and_takes_the_song_later(visit: Callable[..., Page]):
    pages = [visit() for _ in range(3)]
    for page, steps in zip(pages, (14, 8, 8), strict=True):
        open_advanced(page)
        fill(page, prompt="slow", inference_steps=steps)
    pages[0].locator("#generate").click()
    wait_for_words(pages[0], "of 14")
    pages[1].locator("#generate").click()
    expect(status(pages[1])).to_have_text("Waiting for your turn · 1 song before yours")
    pages[2].locator("#generate").click()
    expect(card(pages[2])).to_contain_text("The studio is full")
    visit.complaints[:] = [line for line in visit.complaints if "503" not in line]
    assert_ready(pages[2])
    wait_for_words(pages[0], " s in ")
    fill(pages[2], prompt="calm piano")
    mend(pages[2], "Try again")
    expect(card(pages[2])).to_have_count(0)
    wait_for_words(pages[2], " s in ")
