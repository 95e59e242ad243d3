"""The planner as a musician meets it: Chromium on the demo checkpoint with the tiny planner, wide and narrow."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import served
import soundfile
import tiny_planner
from browsing import assert_fits, assert_ready, box, browser, fill, open_advanced, status, visit, wait_for_words
from playwright.sync_api import Page, expect

from plans import CODE_COUNT

WIDTHS = pytest.mark.parametrize("width", [1440, 412])


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[served.Served]:
    folder = tmp_path_factory.mktemp("planned")
    with served.studio(folder, ACE_PLANNER=str(tiny_planner.saved(folder / "tiny", CODE_COUNT))) as running:
        yield running


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of a tone that comes and goes."""
    path, t = tmp_path_factory.mktemp("songs") / "song.wav", np.arange(3 * 48_000) / 48_000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 220 * t) * (t % 0.5 < 0.25), 48_000)
    return path


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).filter(visible=True).click()


def sing(page: Page, **values: Any) -> dict[str, Any]:
    """A quick song; its recipe."""
    open_advanced(page)
    fill(page, **{"prompt": "slow piano", "inference_steps": 8, "seed": 7, **values})
    return again(page)


def again(page: Page) -> dict[str, Any]:
    """What the tab holds, sung; its recipe."""
    page.locator("#generate").click()
    expect(page.locator("#stop")).to_be_enabled()
    wait_for_words(page, "seed ")
    assert_ready(page)
    with page.expect_download() as download:
        press(page, "Save plan")
    return json.loads(Path(download.value.path()).read_text())


def load(page: Page, path: Path) -> None:
    with page.expect_file_chooser() as chooser:
        press(page, "Load a plan")
    chooser.value.set_files(path)


def in_use(page: Page) -> Any:
    return page.locator("#plan p")


@WIDTHS
def test_a_line_is_written_out_and_what_stood_there_comes_back(visit: Callable[..., Page], width: int) -> None:
    page = visit(width)
    fill(page, prompt="my own words", lyrics="my own lines")
    box(page, "write-query").fill("a sad song about rain, for a female voice")
    press(page, "Write it for me")
    wait_for_words(page, "Written: ")
    assert_ready(page)
    expect(box(page, "prompt")).not_to_have_value("my own words")
    expect(box(page, "lyrics")).not_to_have_value("my own lines")
    expect(in_use(page)).to_be_visible()
    assert_fits(page, width)
    open_advanced(page)
    assert 30 <= int(box(page, "bpm").input_value()) <= 300
    press(page, "Bring mine back")
    expect(box(page, "prompt")).to_have_value("my own words")
    expect(box(page, "lyrics")).to_have_value("my own lines")
    expect(box(page, "bpm")).to_have_value("")
    expect(in_use(page)).to_have_count(0)
    expect(page.get_by_role("button", name="Bring mine back").filter(visible=True)).to_have_count(0)


def test_tidying_keeps_length_and_facts(visit: Callable[..., Page]) -> None:
    page = visit()
    open_advanced(page)
    fill(page, prompt="piano", lyrics="la la", duration_s=42, bpm=96)
    press(page, "Tidy my lyrics and prompt")
    wait_for_words(page, "Tidied: 42 s · 96 BPM")
    expect(box(page, "bpm")).to_have_value("96")
    expect(box(page, "duration_s")).to_have_value("42")
    expect(box(page, "lyrics")).not_to_have_value("la la")


def test_an_empty_idea_is_refused_in_a_sentence_and_nothing_is_lost(visit: Callable[..., Page]) -> None:
    page = visit()
    fill(page, prompt="my own words")
    press(page, "Write it for me")
    wait_for_words(page, "Your idea is empty: write one line, such as a sad song about rain.")
    assert_ready(page)
    expect(box(page, "prompt")).to_have_value("my own words")


@WIDTHS
def test_a_plan_is_shown_used_again_and_dropped_by_an_edit(visit: Callable[..., Page], width: int) -> None:
    page = visit(width)
    saved = sing(page, bpm=96)
    assert_fits(page, width)
    row = page.locator("#plan-table tr").filter(has_text="Tempo")
    expect(row).to_contain_text("96 BPM")
    expect(row).to_contain_text("as asked")
    expect(page.locator("#plan-table tr").filter(has_text="Key")).to_contain_text(saved["plan"]["keyscale"])
    expect(page.locator("#plan-table tr").filter(has_text="Codes")).to_contain_text("50")

    press(page, "Use this plan")
    expect(in_use(page)).to_contain_text("50 codes")
    expect(box(page, "prompt")).to_have_value(saved["plan"]["caption"])
    expect(box(page, "keyscale")).to_have_value(saved["plan"]["keyscale"])
    assert_fits(page, width)
    fill(page, seed=8)
    assert again(page)["plan"] == saved["plan"], "another rendering of the same plan"

    box(page, "prompt").press_sequentially("x")
    expect(in_use(page)).to_have_count(0)
    assert again(page)["plan"]["codes"] != saved["plan"]["codes"]


def test_a_saved_plan_is_loaded_by_another_visitor(visit: Callable[..., Page], tmp_path: Path) -> None:
    saved = sing(visit())
    (tmp_path / "plan.json").write_text(json.dumps(saved))
    (tmp_path / "other.json").write_text("{}")
    page = visit()
    load(page, tmp_path / "other.json")
    wait_for_words(page, "This file holds no plan.")
    load(page, tmp_path / "plan.json")
    expect(in_use(page)).to_contain_text("50 codes")
    open_advanced(page)
    fill(page, inference_steps=8, seed=7)
    assert again(page)["plan"] == saved["plan"]
    press(page, "Drop it")
    expect(in_use(page)).to_have_count(0)


def test_a_hand_that_changes_what_a_plan_is_made_for_drops_it(visit: Callable[..., Page], tmp_path: Path) -> None:
    plan = {"mode": "generate", "duration_s": 12, "plan": {"bpm": 90, "caption": "brass", "codes": [1] * 60}}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    page = visit()
    edits = [
        lambda: box(page, "lyrics").press_sequentially("x"),
        lambda: box(page, "duration_s").fill("20"),
        lambda: page.get_by_text("Instrumental", exact=True).click(),
        lambda: page.get_by_role("button", name="Chiptune", exact=True).click(),
    ]
    for edit in edits:
        load(page, tmp_path / "plan.json")
        expect(in_use(page)).to_have_text("Plan in use: 90 BPM · 60 codes")
        expect(box(page, "duration_s")).to_have_value("12")
        edit()
        expect(in_use(page)).to_have_count(0)


def test_a_plan_in_use_opens_its_tab_and_lets_the_planner_think(visit: Callable[..., Page], tmp_path: Path) -> None:
    plan = {"mode": "generate", "duration_s": 12, "plan": {"bpm": 90, "codes": [1] * 60}}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    page = visit()
    open_advanced(page)
    page.locator("#thinking input").uncheck()
    page.get_by_role("tab", name="Cover", exact=True).click()
    load(page, tmp_path / "plan.json")
    expect(page.locator("#generate")).to_be_visible()
    expect(in_use(page)).to_be_visible()
    expect(page.locator("#thinking input")).to_be_enabled()
    expect(page.locator("#thinking input")).to_be_checked()
    expect(box(page, "lm_cfg_scale")).to_be_enabled()


def test_a_retake_can_be_made_after_a_draft(visit: Callable[..., Page]) -> None:
    page = visit()
    sing(page)
    box(page, "write-query").fill("a sad song about rain")
    press(page, "Write it for me")
    wait_for_words(page, "Written: ")
    expect(page.locator("#retake")).to_be_enabled()


@WIDTHS
def test_a_recording_is_described_for_the_form(visit: Callable[..., Page], song: Path, width: int) -> None:
    page = visit(width)
    page.get_by_role("tab", name="Cover", exact=True).click()
    page.locator("#cover-source_audio input[type=file]").first.set_input_files(song)
    page.locator("#cover-source_audio-heard p").wait_for()
    press(page, "Describe this audio")
    wait_for_words(page, "Described: ")
    told = re.search(r"(\d+) BPM · (\S+ \w+)", status(page).inner_text())
    expect(box(page, "cover-prompt")).not_to_have_value("")
    open_advanced(page)
    expect(box(page, "bpm")).to_have_value(told[1])
    expect(box(page, "keyscale")).to_have_value(told[2])
    assert_fits(page, width)
    press(page, "Bring mine back")
    expect(box(page, "cover-prompt")).to_have_value("")
    expect(box(page, "bpm")).to_have_value("")


def test_a_knob_of_the_planner_can_be_used_only_where_it_acts(visit: Callable[..., Page]) -> None:
    page = visit()
    open_advanced(page)
    thinking, scale = page.locator("#thinking input"), box(page, "lm_cfg_scale")
    expect(thinking).to_be_enabled()
    expect(scale).to_be_enabled()
    thinking.uncheck()
    expect(scale).to_be_disabled()
    expect(page.locator("#lm_cfg_scale")).to_contain_text("Off: for thinking alone.")
    for tab in ("Cover", "Extend", "Edit"):
        page.get_by_role("tab", name=tab, exact=True).click()
        expect(thinking).to_be_disabled()
        expect(page.locator("#thinking")).to_contain_text("Off: the song takes the place of a sketch.")
        expect(page.locator("#use_cot_caption input")).to_be_enabled()
    page.get_by_text("Flow morph", exact=True).click()
    expect(page.locator("#use_cot_caption input")).to_be_disabled()
    page.get_by_role("tab", name="Generate", exact=True).click()
    expect(thinking).to_be_enabled()
    expect(scale).to_be_disabled()
    thinking.check()
    expect(scale).to_be_enabled()
    expect(page.locator("#use_cot_caption input")).to_be_enabled()


def test_a_draft_can_be_stopped_and_nothing_changes(visit: Callable[..., Page]) -> None:
    page = visit()
    fill(page, prompt="my own words")
    box(page, "write-query").fill("a long song")
    press(page, "Write it for me")
    page.locator("#stop").click()
    wait_for_words(page, "Stopped. Nothing was kept.")
    assert_ready(page)
    expect(box(page, "prompt")).to_have_value("my own words")
