"""Pictures of every tab in three states at two widths: `make screens`. They are for looking at; the best stand in the README.

    python tests/screens.py [folder]

The studio is served on the demo checkpoint; songs are short, and what the other tabs begin with is the first of them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import served
from playwright.sync_api import Page, expect

ROOT = Path(__file__).resolve().parent.parent
WIDTHS = (1440, 412)
SONG_MS = 240_000
PROMPT = "bossa nova, acoustic guitar, flute, light percussion"
BEST = {  # of the README
    "edit-finished-1440.png": "studio.png",
    "generate-finished-412.png": "phone.png",
}
ASKED = {  # what a tab is filled with, besides the song that it begins with
    "generate": {"prompt": PROMPT, "duration_s": 20},
    "cover": {"cover-prompt": "lullaby, music box, calm"},
    "extend": {"extend-prompt": PROMPT, "extend-extra_duration_s": 10},
    "edit": {"edit-prompt": "solo flute"},
    "lyrics": {"lyrics-brief": "the last train home, rain on the window"},
}
BUTTONS = {"lyrics": "draft-lyrics"}


def main() -> None:
    """Make all pictures."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "docs" / "screens")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as own, served.studio(Path(own)) as studio, served.chromium() as browser:
        for width in WIDTHS:
            phone = {"is_mobile": True, "has_touch": True, "device_scale_factor": 2} if width < 640 else {}
            page = browser.new_page(viewport={"width": width, "height": 900}, locale="en-US", **phone)
            page.goto(studio.url)
            page.locator("#generate").wait_for()
            page.wait_for_timeout(1000)
            for tab in ASKED:
                pictures(page, tab, folder, width)
            page.close()


def pictures(page: Page, tab: str, folder: Path, width: int) -> None:
    """The three states of a tab."""
    page.get_by_role("tab", name=tab.capitalize(), exact=True).click()
    shoot(page, folder / f"{tab}-empty-{width}.png")
    fill(page, tab)
    page.locator(f"#{BUTTONS.get(tab, tab)}").click()
    page.locator("#status .bar, #status p.running").first.wait_for(timeout=SONG_MS)
    page.wait_for_timeout(1500)
    shoot(page, folder / f"{tab}-running-{width}.png")
    expect(page.locator("#stop")).to_be_disabled(timeout=SONG_MS)
    expect(page.locator("#status").get_by_role("alert")).to_have_count(0)
    page.wait_for_timeout(800)
    page.evaluate("scrollTo(0, 0)")
    shoot(page, folder / f"{tab}-finished-{width}.png")


def fill(page: Page, tab: str) -> None:
    """What a tab asks for."""
    if tab in ("cover", "extend", "edit"):
        page.locator("#takes").get_by_role("button", name=f"to {tab.capitalize()}").filter(visible=True).click()
        page.locator(f"#{tab}-source_audio-heard p").wait_for(timeout=SONG_MS)
    if tab == "edit":
        mark(page)
    for name, value in ASKED[tab].items():
        page.locator(f"#{name} textarea, #{name} input").first.fill(str(value))


def mark(page: Page) -> None:
    """A region in the middle of the song."""
    stage = page.locator("#edit-regions .track")
    stage.scroll_into_view_if_needed()
    box: Any = stage.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.35, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 60, steps=5)
    page.mouse.up()


def shoot(page: Page, path: Path) -> None:
    """The whole page as a picture; on a phone, and for the README, what is seen at first."""
    page.screenshot(path=path, full_page=page.viewport_size["width"] > 640)
    if path.name in BEST:
        page.screenshot(path=ROOT / "docs" / BEST[path.name])


if __name__ == "__main__":
    main()
