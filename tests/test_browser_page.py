"""The page itself: its layout, whether everybody can use it, how heavy it is. Chromium, with a sine for a song engine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import axe_playwright_python
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
WIDTHS = pytest.mark.parametrize("width", [1440, 412])
TABS = ("Generate", "Cover", "Extend", "Edit", "Lyrics")
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text()
# What axe-core finds serious; that it looked at contrasts is told, so that a broken look finds nothing is told, too.
LOOK = """async () => {
    const {violations, passes} = await axe.run(document);
    const bad = violations.filter(v => ['serious', 'critical'].includes(v.impact));
    return [passes.map(p => p.id), bad.map(v => `${v.id}: ${v.nodes.map(n => n.html.slice(0, 160)).join(' | ')}`)];
}"""
# What can be pressed or typed into and is smaller than 40 px; a choice is pressed by its label.
SMALL = """[...document.querySelectorAll('button, input, textarea, select, a[href], [role=slider], [role=radio]')]
    .filter(e => e.checkVisibility() && e.getBoundingClientRect().width && e.type !== 'file')
    .map(e => [e, (['radio', 'checkbox'].includes(e.type) ? e.closest('label') ?? e : e).getBoundingClientRect()])
    .filter(([e, b]) => b.width < 40 || b.height < 40).filter(([e]) => !e.closest('footer'))
    .map(([e, b]) => `${e.outerHTML.slice(0, 120)} ${b.width}x${b.height}`)"""
SHIFTS = """() => { window.shifts = []; new PerformanceObserver(list => list.getEntries().forEach(entry => {
    if (!entry.hadRecentInput) window.shifts.push([entry.value, entry.sources.map(s => s.node?.id || s.node?.className)]);
})).observe({type: 'layout-shift'}); }"""


def test_the_studio_is_one_page_and_lists_its_endpoints(visit: Callable[..., Page]) -> None:
    page = visit()
    expect(page.locator(".nav-holder")).to_be_hidden()
    page.get_by_role("button", name="Use via API").click()
    expect(page.locator(".api-docs")).to_contain_text("/restore")


def go_to(page: Page, tab: str) -> None:
    page.get_by_role("tab", name=tab, exact=True).click()


def sing(page: Page, prompt: str = "calm piano", steps: int = 8) -> None:
    if not page.locator("#inference_steps").is_visible():
        open_advanced(page)
    fill(page, prompt=prompt, inference_steps=steps)
    page.locator("#generate").click()


def serious(page: Page) -> dict[str, list[str]]:
    """What axe-core finds serious, by tab."""
    found = {}
    for tab in TABS:
        go_to(page, tab)
        page.evaluate(AXE)
        looked, found[tab] = page.evaluate(LOOK)
        assert {"color-contrast", "button-name", "label"} <= set(looked)
    go_to(page, "Generate")
    return found


@WIDTHS
def test_axe_finds_nothing_serious_on_any_tab_in_any_state(visit: Callable[..., Page], width: int):
    page = visit(width)
    nothing = {tab: [] for tab in TABS}
    assert serious(page) == nothing
    sing(page, "slow", 80)
    wait_for_words(page, "of 80")
    assert serious(page) == nothing
    page.locator("#stop").click()
    assert_ready(page)
    fill(page, prompt="", keyscale="H minor")
    page.locator("#generate").click()
    page.get_by_role("alert").wait_for()
    assert serious(page) == nothing, "with a card"
    fill(page, keyscale="")
    sing(page)
    wait_for_words(page, "seed ")
    for panel in ("LoRAs", "Loudness, stems, export"):
        page.get_by_role("button", name=panel).click()
    recipe(page)
    page.locator("#preset-music-box").click()
    assert serious(page) == nothing


def test_everything_can_be_hit_with_a_thumb(studio: served.Served, browser: Any):
    context = browser.new_context(
        viewport={"width": 412, "height": 900}, has_touch=True, is_mobile=True, locale="en-US"
    )
    page = context.new_page()
    page.goto(studio.url)
    page.locator("#generate").wait_for()
    sing(page)
    wait_for_words(page, "seed ")
    for panel in ("LoRAs", "Loudness, stems, export", "Recipe"):
        page.get_by_role("button", name=panel).click()
    page.locator("#preset-music-box").click()
    page.locator("#loras .name").wait_for()
    page.wait_for_timeout(300)
    for tab in TABS:
        go_to(page, tab)
        assert page.evaluate(SMALL) == [], tab
    context.close()


def test_a_rail_a_form_and_a_take_on_a_desk_and_one_below_the_other_on_a_phone(visit: Callable[..., Page]):
    page = visit(1440)
    rail, form, output = (page.locator(f"#{name}").bounding_box() for name in ("rail", "form", "output"))
    assert 188 <= rail["width"] <= 210 and rail["x"] < form["x"] < output["x"]
    tabs = page.get_by_role("tab").all()
    places = [tab.bounding_box() for tab in tabs]
    assert {place["x"] for place in places} == {rail["x"]} and [p["y"] for p in places] == sorted(
        p["y"] for p in places
    )
    expect(page.locator("#generate")).to_be_in_viewport()

    page = visit(412)
    form, output = (page.locator(f"#{name}").bounding_box() for name in ("form", "output"))
    assert form["x"] == output["x"] and form["y"] + form["height"] <= output["y"]
    places = [tab.bounding_box() for tab in page.get_by_role("tab").all()]
    assert len({place["y"] for place in places}) == 1, "a strip"
    expect(page.locator("#generate")).to_be_in_viewport()
    assert page.locator("#generate").bounding_box()["width"] > 220


def test_closed_panels_and_buttons_say_what_is_set(visit: Callable[..., Page]):
    page = visit()
    expect(page.locator("#generate")).to_have_text(re.compile(r"Generate · about \d+ s"))
    before = page.locator("#generate").inner_text()
    open_advanced(page)
    fill(page, duration_s=600, seed=42, inference_steps=50)
    page.locator("#infer_method label").nth(1).click()
    expect(page.get_by_role("button", name="Advanced · 50 steps, SDE, seed 42")).to_be_visible()
    expect(page.locator("#generate")).not_to_have_text(before)
    fill(page, duration_s="")
    go_to(page, "Cover")
    expect(page.locator("#cover")).to_have_text("Make the cover")


@WIDTHS
def test_nothing_jumps_when_a_take_comes(visit: Callable[..., Page], width: int):
    page = visit(width)
    fill(page, prompt="calm piano")
    page.wait_for_timeout(600)
    page.evaluate(SHIFTS)
    page.locator("#generate").click()
    wait_for_words(page, "seed ")
    page.wait_for_timeout(600)
    shifts = page.evaluate("window.shifts")
    assert sum(value for value, _ in shifts) < 0.05, shifts


def test_a_page_that_comes_up_late_says_what_the_one_before_it_learned(visit: Callable[..., Page]):
    page = visit()
    sing(page)
    wait_for_words(page, "seed ")
    expect(page.locator("#generate")).to_have_text(re.compile(r"Generate · about \d+ s"))
    later = visit()
    open_advanced(later)
    fill(later, inference_steps=8)
    expect(later.locator("#generate")).to_have_text(page.locator("#generate").inner_text())


def test_the_first_load_is_small(visit: Callable[..., Page], studio: served.Served, browser: Any):
    page = browser.new_context(locale="en-US").new_page()
    sizes, session = [], page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    page.goto(studio.url)
    page.locator("#generate").wait_for()
    page.wait_for_timeout(2000)
    assert sum(sizes) <= 1_000_000, f"{sum(sizes):,.0f} bytes in {len(sizes)} requests"
    page.context.close()


def test_switching_modes_asks_nothing_of_the_server(visit: Callable[..., Page]):
    page = visit()
    for tab in TABS:
        go_to(page, tab)  # what a tab shows first may be loaded once
    page.wait_for_timeout(500)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    for tab in TABS:
        go_to(page, tab)
    page.wait_for_timeout(300)
    assert asked == []


def test_the_keyboard_alone_makes_plays_and_stops_songs(visit: Callable[..., Page]):
    page = visit()
    open_advanced(page)
    fill(page, prompt="calm piano", inference_steps=8, seed=1)
    for seed in (1, 2):
        fill(page, seed=seed)
        page.keyboard.press("Control+Enter")
        wait_for_words(page, f"seed {seed}")
        assert_ready(page)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press(" ")
    expect(page.locator("#player .play")).to_have_attribute("aria-label", "Pause")
    page.keyboard.press(" ")
    expect(page.locator("#player .play")).to_have_attribute("aria-label", "Play")
    shown = page.locator("#takes .show")
    expect(shown.first).to_have_attribute("aria-current", "true")
    page.keyboard.press("n")
    expect(shown.nth(1)).to_have_attribute("aria-current", "true")
    page.keyboard.press("Shift+N")
    expect(shown.first).to_have_attribute("aria-current", "true")
    box(page, "prompt").fill("")
    box(page, "prompt").type("nn slow")
    expect(box(page, "prompt")).to_have_value("nn slow")
    expect(shown.first).to_have_attribute("aria-current", "true")

    fill(page, prompt="slow", inference_steps=60)
    page.keyboard.press("Control+Enter")
    wait_for_words(page, "of 60")
    page.keyboard.press("Control+.")
    expect(status(page)).to_have_text("Stopped. Nothing was kept.")


def test_the_focus_is_seen_wherever_it_goes(visit: Callable[..., Page]):
    page = visit()
    unseen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        unseen.add(
            page.evaluate("""(() => { const e = document.activeElement, s = getComputedStyle(e);
            const seen = s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2;
            return e === document.body || seen ? '' : e.outerHTML.slice(0, 120); })()""")
        )
    assert unseen == {""}


def test_nothing_moves_for_who_asked_for_that(studio: served.Served, browser: Any):
    context = browser.new_context(reduced_motion="reduce", locale="en-US")
    page = context.new_page()
    page.goto(studio.url)
    page.locator("#generate").wait_for()
    sing(page, "slow", 20)
    wait_for_words(page, "of 20")
    assert page.locator("#status .bar").evaluate("bar => getComputedStyle(bar).transitionDuration") == "0s"
    context.close()


@WIDTHS
def test_long_and_foreign_words_break_nothing_wherever_they_stand(
    visit: Callable[..., Page], tmp_path: Path, width: int
):
    words = "<img src=x onerror=window.x=1>‮ שלום 你好 " + "x" * 400
    page = visit(width)
    sing(page, words[:500])
    wait_for_words(page, "seed ")
    expect(recipe(page)).to_contain_text("<img src=x onerror=window.x=1>")
    fill(page, lyrics=words * 30)
    page.locator("#generate").click()
    expect(page.get_by_role("alert")).to_contain_text("Lyrics may hold 4,096 characters; yours has 1")
    fill(page, lyrics="", prompt="y" * 10_000)
    page.locator("#generate").click()
    expect(page.get_by_role("alert")).to_contain_text("Style prompt may hold 512 characters; yours has 10,000.")
    name = "<img src=x onerror=window.x=1> שיר " + "x" * 150
    for suffix, drop in ((".wav", "cover-source_audio"), (".safetensors", "loras-drop")):
        (tmp_path / f"{name}{suffix}").write_bytes(b"nothing")
        go_to(page, "Cover")
        if suffix == ".safetensors":
            page.get_by_role("button", name="LoRAs").click()
        page.locator(f"#{drop} input[type=file]").first.set_input_files(tmp_path / f"{name}{suffix}")
    expect(page.locator("#loras-line")).to_contain_text("cannot be used")
    expect(page.locator("#cover-source_audio-heard")).to_contain_text("Not a WAV, FLAC, OGG, MP3 or AIFF file.")
    assert_fits(page, width)
    assert page.locator("img[src='x']").count() == 0 and page.evaluate("window.x") is None
