"""What stands under a finished song, as a musician uses it: Chromium at two widths, on a served demo with a tiny Demucs."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import served
import soundfile
import tiny_stems
from browsing import (
    SONG_MS,
    assert_fits,
    assert_ready,
    box,
    browser,
    fill,
    open_advanced,
    status,
    visit,
    wait_for_words,
)
from playwright.sync_api import Page, expect

import tags

WIDTHS = pytest.mark.parametrize("width", [1440, 412])
TITLE = "<img src=x onerror=window.x=1> rain"
# A file that is dragged in from the desktop and dropped; answers whether the page said that it may be.
DROP = """([data, name, place]) => {
    const held = new DataTransfer(), bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
    held.items.add(new File([bytes], name));
    const sent = kind => new DragEvent(kind, {dataTransfer: held, bubbles: true, cancelable: true});
    const target = document.querySelector(place);
    target.dispatchEvent(sent('dragover'));
    const said = document.body.classList.contains('dragging');
    const stays = !target.dispatchEvent(sent('drop'));
    return [said, stays, document.body.classList.contains('dragging')];
}"""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[served.Served]:
    folder = tmp_path_factory.mktemp("after")
    with served.studio(folder, ACE_STEMS_MODEL=str(tiny_stems.weights(folder / "tiny"))) as running:
        yield running


def sing(page: Page, **values: Any) -> None:
    open_advanced(page)
    fill(page, **{"prompt": "slow piano, calm", "inference_steps": 8, "seed": 7, **values})
    page.locator("#generate").click()
    wait_for_words(page, "seed ")
    assert_ready(page)


def open_panel(page: Page) -> None:
    page.get_by_role("button", name="Loudness, stems, export").click()
    page.locator("#export").wait_for()


def press(page: Page, name: str, told: str) -> None:
    page.locator(f"#{name}").click()
    wait_for_words(page, told)
    assert_ready(page)


def saved(page: Page, name: str) -> Path:
    """The file behind a download button, under the name that the browser was given."""
    with page.expect_download() as download:
        page.locator(f"#{name}").click()
    path = Path(download.value.path())
    return path.rename(path.with_name(download.value.suggested_filename))


def drop(page: Page, path: Path, place: str = "#studio-header") -> list[bool]:
    return page.evaluate(DROP, [base64.b64encode(path.read_bytes()).decode(), path.name, place])


@WIDTHS
def test_the_whole_panel(visit: Callable[..., Page], width: int) -> None:
    page = visit(width)
    buttons = page.locator("#normalise, #stems, #export")
    open_panel(page)
    assert [buttons.nth(i).is_disabled() for i in range(3)] == [True] * 3, "without a take there is nothing to do"
    sing(page, bpm=100)
    expect(page.locator("#measured")).to_contain_text(re.compile(r"asked 100 BPM, measured .*LUFS, true peak"))
    expect(page.locator("#levelled, #stem-bass, #stems-zip, #export-file").filter(visible=True)).to_have_count(0)

    press(page, "normalise", "The song at its new loudness is ready")
    expect(page.locator("#levelled")).to_be_visible()
    expect(page.locator("#levelled-line")).to_contain_text("−14.0 LUFS")
    expect(box(page, "export-target_lufs")).to_have_value("−14 LUFS")

    press(page, "stems", "Stems are ready")
    for name in ("vocals", "drums", "bass", "other"):
        expect(page.locator(f"#stem-{name}")).to_be_visible()
    expect(page.locator("#stems-line")).to_contain_text("What is in none of the four lies at ")
    assert saved(page, "stems-zip").name == "slow piano, calm - stems.zip"

    fill(page, **{"export-title": TITLE, "export-fade_out_s": 2})
    press(page, "export", "The file is ready")
    expect(page.locator("#export-file")).to_contain_text(re.compile(r"Save img src=x .*\.mp3 · 0\.4 MB"))
    assert_fits(page, width)
    file = saved(page, "export-file")
    found = tags.read(file)
    assert found.title == TITLE and abs(found.seconds - 10) < 0.01
    after = json.loads(found.recipe)["after"]
    assert (after["target_lufs"], after["fade_out_s"], after["format"]) == ("-14", 2.0, "mp3")
    assert page.evaluate("window.x") is None

    page.locator("#generate").click()
    wait_for_words(page, "seed ")
    assert_ready(page)
    expect(page.locator("#levelled, #stem-bass, #stems-zip, #export-file").filter(visible=True)).to_have_count(0)
    expect(box(page, "export-title")).to_have_value("")
    expect(box(page, "export-target_lufs")).to_have_value("as made")


def test_a_dropped_song_brings_every_control_back(visit: Callable[..., Page]) -> None:
    page = visit()
    sing(page, bpm=100, lyrics="[verse]\nla", keyscale="A minor", shift=2)
    open_panel(page)
    fill(page, **{"export-title": "Rain"})
    press(page, "export", "The file is ready")
    file, first = saved(page, "export-file"), saved(page, "download")

    other = visit(412)
    said, stays, after = drop(other, file)
    assert said and stays and not after, "the page says that a song may be dropped, and does not leave for it"
    wait_for_words(other, "Restored on Generate: seed 7.")
    open_advanced(other)
    wanted = {"prompt": "slow piano, calm", "lyrics": "[verse]\nla", "bpm": "100", "keyscale": "A minor", "seed": "7"}
    for name, value in (wanted | {"shift": "2", "inference_steps": "8"}).items():
        expect(box(other, name)).to_have_value(value)
    other.locator("#generate").click()
    wait_for_words(other, "seed 7")
    assert_ready(other)
    assert saved(other, "download").read_bytes() == first.read_bytes(), "it is the same song, byte for byte"
    open_panel(other)
    expect(box(other, "export-title")).to_have_value(""), "a new take begins with nothing"


def test_a_retake_is_restored_and_can_be_dropped(visit: Callable[..., Page]) -> None:
    page = visit()
    sing(page)
    fill(page, variance=0.3)
    page.locator("#retake").click()
    wait_for_words(page, "seed ")
    assert_ready(page)
    first = saved(page, "download")
    other = visit()
    drop(other, first)
    wait_for_words(other, "Restored on Generate")
    line = other.locator("#retakes p")
    expect(line).to_contain_text("A retake: seed 7, 0.3 towards seed ")
    other.locator("#generate").click()
    wait_for_words(other, "seed 7")
    assert_ready(other)
    assert saved(other, "download").read_bytes() == first.read_bytes()
    open_advanced(other)
    fill(other, seed=8)
    expect(line).to_have_count(0)


def test_an_edit_comes_back_with_its_regions_when_its_song_is_added(visit: Callable[..., Page], tmp_path: Path) -> None:
    song, t = tmp_path / "song.wav", np.arange(3 * 48_000) / 48_000
    soundfile.write(song, 0.3 * np.sin(2 * np.pi * 220 * t) * (t % 0.5 < 0.25), 48_000)
    soundfile.write(tmp_path / "other.wav", 0.2 * np.sin(2 * np.pi * 330 * t), 48_000)

    def add(page: Page, path: Path) -> None:
        page.locator("#edit-source_audio input[type=file]").set_input_files(path)
        expect(page.locator("#edit-source_audio-heard p")).to_be_visible()

    page = visit()
    page.get_by_role("tab", name="Edit").click()
    add(page, song)
    fill(page, **{"edit-prompt": "drums"})
    page.locator("#edit-regions .add").click()
    open_advanced(page)
    fill(page, inference_steps=8, seed=3)
    page.locator("#edit").click()
    wait_for_words(page, "seed 3")
    assert_ready(page)
    made = saved(page, "download")

    other = visit()
    drop(other, made)
    wait_for_words(other, "Restored on Edit: seed 3. Song to edit: add the WAV of 3.00 s again")
    add(other, tmp_path / "other.wav")
    expect(other.locator("#edit-source_audio-heard p")).to_contain_text("not the one of the recipe")
    other.locator("#edit-source_audio").get_by_role("button", name="Clear").click()
    add(other, song)
    expect(other.locator("#edit-source_audio-heard p")).to_contain_text("· the one of the recipe")
    expect(other.locator("#edit-regions .region")).to_have_count(1)
    other.locator("#edit").click()
    wait_for_words(other, "seed 3")
    assert_ready(other)
    assert saved(other, "download").read_bytes() == made.read_bytes()


def test_what_is_no_song_of_the_studio_changes_nothing(visit: Callable[..., Page], tmp_path: Path) -> None:
    page = visit()
    fill(page, prompt="my own words")
    soundfile.write(tmp_path / "plain.wav", np.zeros((48_000, 2)), 48_000)
    drop(page, tmp_path / "plain.wav", "#prompt")
    wait_for_words(page, "This file holds no recipe.")
    expect(box(page, "prompt")).to_have_value("my own words")


def test_stop_ends_the_stems_and_keeps_the_song(visit: Callable[..., Page]) -> None:
    page = visit()
    sing(page, duration_s=20)
    open_panel(page)
    page.locator("#stems").click()
    expect(status(page)).to_contain_text("Separating")
    page.locator("#stop").click()
    wait_for_words(page, "Stopped. The song is as it was.")
    assert_ready(page)
    expect(page.locator("#stems")).to_be_enabled()
    expect(page.locator("#stem-bass")).to_be_hidden()
    press(page, "export", "The file is ready")
