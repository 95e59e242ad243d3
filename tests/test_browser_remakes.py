"""Cover, Extend, Edit and Retake as a musician meets them: Chromium on the served demo checkpoint, wide and narrow."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import served
import soundfile
from browsing import assert_fits, assert_ready, browser, fill, open_advanced, recipe, status, visit, wait_for_words
from playwright.sync_api import Page, expect

WIDTHS = pytest.mark.parametrize("width", [1440, 412])


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of two tones, 16 bit."""
    t = np.arange(3 * 48_000) / 48_000
    tones = np.stack([np.sin(2 * np.pi * f * t) for f in (220, 330)], axis=1) * 0.3
    path = tmp_path_factory.mktemp("songs") / "tones.wav"
    soundfile.write(path, tones, 48_000, subtype="PCM_16")
    return path


def go_to(page: Page, tab: str) -> None:
    page.get_by_role("tab", name=tab, exact=True).click()


def bring(page: Page, path: Path, place: str) -> None:
    """Upload a recording, and wait until the studio has said what it is."""
    page.locator(f"#{place} input[type=file]").first.set_input_files(path)
    page.locator(f"#{place}-heard p").wait_for()


def quick(page: Page) -> None:
    """Eight steps, seed 7."""
    open_advanced(page)
    fill(page, inference_steps=8, seed=7)


def sing(page: Page, width: int, button: str) -> None:
    """A quick song of what the tab holds, on a page that fits its window."""
    quick(page)
    assert_fits(page, width)
    page.get_by_role("button", name=button).click()
    wait_for_words(page, "seed 7")


def told(page: Page, words: str) -> None:
    expect(recipe(page)).to_contain_text(re.compile(words))


def downloaded(page: Page, folder: Path) -> np.ndarray:
    with page.expect_download() as download:
        page.locator("#download").click()
    download.value.save_as(folder / "take.wav")
    return soundfile.read(folder / "take.wav", dtype="float32")[0].T


@WIDTHS
def test_a_song_goes_on(visit: Callable[..., Page], song: Path, tmp_path: Path, width: int):
    page = visit(width)
    go_to(page, "Extend")
    expect(page.locator("#generate")).to_be_hidden()
    bring(page, song, "extend-source_audio")
    expect(page.locator("#extend-source_audio-heard")).to_have_text("0:03.00 · WAV · 48 kHz · stereo")
    fill(page, **{"extend-prompt": "calm piano", "extend-extra_duration_s": 5, "extend-crossfade_s": 0.5})
    sing(page, width, "Extend the song")
    expect(page.locator("#player .duration")).to_have_text("0:08")
    told(page, r'"identical"\s*:\s*true')
    longer = downloaded(page, tmp_path)
    assert longer.shape[1] == 8 * 48_000
    kept = round(2.5 * 48_000)
    assert np.array_equal(longer[:, :kept], soundfile.read(song, dtype="float32")[0].T[:, :kept])
    assert_ready(page)
    assert_fits(page, width)


@WIDTHS
def test_a_song_is_covered_with_the_timbre_of_another(visit: Callable[..., Page], song: Path, width: int):
    page = visit(width)
    go_to(page, "Cover")
    expect(page.locator("#cover-cover_strength")).to_contain_text("The demo model's covers are loose")
    bring(page, song, "cover-source_audio")
    if width == 1440:  # once is enough: 30 s of it are heard, at half a second each
        bring(page, song, "cover-reference_audio")
    fill(page, **{"cover-prompt": "music box"})
    sing(page, width, "Make the cover")
    expect(page.locator("#player .duration")).to_have_text("0:03")
    told(page, r'"mode"\s*:\s*"cover"')


@WIDTHS
def test_a_dragged_region_is_made_anew_and_nothing_else(
    visit: Callable[..., Page], song: Path, tmp_path: Path, width: int
):
    page = visit(width)
    go_to(page, "Edit")
    bring(page, song, "edit-source_audio")
    track = page.locator("#edit-regions .track")
    track.scroll_into_view_if_needed()
    spot = track.bounding_box()
    middle = spot["y"] + spot["height"] / 2
    page.mouse.move(spot["x"] + spot["width"] / 3, middle)
    page.mouse.down()
    page.mouse.move(spot["x"] + spot["width"] / 2, middle, steps=4)
    page.mouse.move(spot["x"] + spot["width"] * 2 / 3, middle, steps=4)
    page.mouse.up()
    start, end = (float(page.get_by_label(name).first.input_value()) for name in ("Start (s)", "End (s)"))
    assert start == pytest.approx(1, abs=0.03) and end == pytest.approx(2, abs=0.03)
    fill(page, **{"edit-prompt": "flute"})
    sing(page, width, "Edit the song")
    told(page, r'"identical"\s*:\s*true')
    edited, source = downloaded(page, tmp_path), soundfile.read(song, dtype="float32")[0].T
    changed = np.flatnonzero((edited != source).any(axis=0))
    assert round(start * 48_000) <= changed[0] and changed[-1] < round(end * 48_000)
    assert len(changed) > 0.9 * (end - start) * 48_000
    assert_fits(page, width)


def test_regions_are_typed_too_and_wrong_ones_get_one_sentence(visit: Callable[..., Page], song: Path):
    page = visit()
    go_to(page, "Edit")
    page.locator("#edit").click()
    alert = page.locator("#status").get_by_role("alert")
    expect(alert).to_have_text("Song to edit is missing: add a recording first.")
    bring(page, song, "edit-source_audio")
    page.locator("#edit").click()
    expect(alert).to_have_text("Regions are missing: mark the part of the song to change.")
    page.get_by_role("button", name="Add region").click()
    page.get_by_label("Start (s)").fill("2.5")
    page.get_by_label("End (s)").fill("1")
    page.get_by_label("End (s)").press("Tab")
    page.locator("#edit").click()
    expect(alert).to_have_text("Region 2.5 to 1 s must end at least 0.1 s after its start.")
    page.get_by_label("End (s)").fill("7")
    page.get_by_label("End (s)").press("Tab")
    page.locator("#edit").click()
    expect(alert).to_have_text("Region 2.5 to 7 s must lie within the song, 0 to 3.00 s.")
    assert_ready(page)


@WIDTHS
def test_a_flow_morph_shows_what_it_needs_and_disables_what_cannot_act(
    visit: Callable[..., Page], song: Path, width: int
):
    page = visit(width)
    go_to(page, "Edit")
    open_advanced(page)
    bring(page, song, "edit-source_audio")
    expect(page.locator("#edit-source_caption")).to_be_hidden()
    page.get_by_role("radio", name="Flow morph").click()
    expect(page.locator("#edit-regions")).to_be_hidden()
    for name in ("edit-source_caption", "edit-n_min", "edit-n_max", "edit-n_avg"):
        expect(page.locator(f"#{name}")).to_be_visible()
    for name in ("infer_method", "use_adg"):
        expect(page.locator(f"#{name} input").first).to_be_disabled()
        expect(page.locator(f"#{name}")).to_contain_text("Off: a flow morph has a path of its own.")
    go_to(page, "Generate")
    expect(page.locator("#use_adg input").first).to_be_enabled()
    expect(page.locator("#use_adg")).not_to_contain_text("Off:")
    go_to(page, "Edit")
    expect(page.locator("#use_adg input").first).to_be_disabled()
    fill(page, **{"edit-source_caption": "two tones", "edit-prompt": "strings", "edit-n_min": 0.5})
    fill(page, inference_steps=8, seed=7)
    assert_fits(page, width)
    page.locator("#edit").click()
    wait_for_words(page, "seed 7")
    told(page, r'"sub_mode"\s*:\s*"flow_edit"')
    told(page, r'"n_min"\s*:\s*0.5')


def test_repaint_strength_is_for_balanced_alone(visit: Callable[..., Page]):
    page = visit()
    go_to(page, "Edit")
    strength = page.locator("#edit-repaint_strength")
    expect(strength.locator("input").first).to_be_enabled()
    page.get_by_role("radio", name="aggressive").click()
    expect(strength.locator("input").first).to_be_disabled()
    expect(strength).to_contain_text("Off: for balanced alone.")
    page.get_by_role("radio", name="balanced").click()
    expect(strength.locator("input").first).to_be_enabled()


def test_a_retake_is_the_same_song_or_another(visit: Callable[..., Page], song: Path, tmp_path: Path):
    page = visit()
    expect(page.locator("#retake")).to_be_disabled()
    go_to(page, "Cover")
    bring(page, song, "cover-source_audio")
    fill(page, **{"cover-prompt": "music box"})
    quick(page)
    page.locator("#cover").click()
    wait_for_words(page, "seed 7")
    first = downloaded(page, tmp_path)
    go_to(page, "Generate")  # the take's own request is what is made again, whatever the form says

    takes = []
    for variance in (0, 0.3, 1):
        expect(page.locator("#retake")).to_be_enabled()
        fill(page, variance=variance)
        page.locator("#retake").click()
        expect(status(page)).not_to_contain_text("seed")
        wait_for_words(page, "seed")
        takes.append(downloaded(page, tmp_path))
    assert np.array_equal(first, takes[0])
    assert not np.array_equal(first, takes[1]) and not np.array_equal(takes[1], takes[2])
    told(page, r'"mode"\s*:\s*"cover"')
    assert "seed 7" not in status(page).inner_text()


def test_a_recording_that_cannot_be_used_is_told_at_once(visit: Callable[..., Page], tmp_path: Path):
    page = visit()
    (tmp_path / "notes.wav").write_text("dear diary")
    go_to(page, "Extend")
    bring(page, tmp_path / "notes.wav", "extend-source_audio")
    alert = page.locator("#extend-source_audio-heard").get_by_role("alert")
    expect(alert).to_have_text("Not a WAV, FLAC, OGG, MP3 or AIFF file.")
    page.wait_for_timeout(500)
    assert {*visit.complaints} <= {"Waveform load error: MediaError"}  # gradio's player tries to draw it too
    visit.complaints.clear()


def test_a_microphone_records_a_song_to_cover(visit: Callable[..., Page]):
    page = visit()
    go_to(page, "Cover")
    source = page.locator("#cover-source_audio")
    source.get_by_label("Record audio").click()
    source.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(2500)
    source.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#cover-source_audio-heard")).to_contain_text("WAV", timeout=20_000)
