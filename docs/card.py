"""`python -m docs.card` draws assets/card.png and icon.png from assets/icon.svg, with Chromium and Gradio's Plex."""

from __future__ import annotations

import base64
import html
import importlib.util
import shutil
from pathlib import Path

from settings import ROOT
from sharing import CARD_HEIGHT, CARD_WIDTH, COLOUR, ICON_SIDE, TITLE

ASSETS = ROOT / "assets"
LINE = "Describe a song. Hear it. Make it yours."
FONTS = "templates/frontend/static/fonts/IBMPlexSans"  # below gradio; whole at 400 and 700 only
WEIGHTS = {400: "Regular", 700: "Bold"}
MARK_SHARE = 0.625  # of the icon's side: inside the circle of 80 % that a maskable icon has to itself

CARD = """<style>{faces}
* {{ margin: 0; box-sizing: border-box }}
body {{ width: {width}px; height: {height}px; padding: 88px 96px 80px; background: {colour}; color: #fff;
  font: 400 40px/1.2 "IBM Plex Sans"; display: flex; flex-direction: column; justify-content: space-between }}
svg {{ width: 220px; height: 220px; margin: -13.75px }}
h1 {{ font-weight: 700; font-size: 129px; line-height: 1; letter-spacing: -0.025em; margin: 0 0 28px -4px }}
p {{ color: #b3b3b3 }}
</style>{mark}<div><h1>{title}</h1><p>{line}</p></div>"""
ICON = """<style>body {{ margin: 0; width: {side}px; height: {side}px; background: {colour}; display: grid;
  place-items: center }} svg {{ width: {mark_side}px }}</style>{mark}"""


def faces() -> str:
    """The @font-face rules with the fonts in them, since the page has no address to load them from."""
    folder = Path(importlib.util.find_spec("gradio").submodule_search_locations[0]) / FONTS
    rule = "@font-face {{ font-family: 'IBM Plex Sans'; font-weight: {}; src: url(data:font/woff2;base64,{}) }}\n"
    files = {weight: (folder / f"IBMPlexSans-{style}.woff2").read_bytes() for weight, style in WEIGHTS.items()}
    return "".join(rule.format(weight, base64.b64encode(font).decode()) for weight, font in files.items())


def draw() -> None:
    """Write both pictures."""
    from playwright.sync_api import sync_playwright

    mark = (ASSETS / "icon.svg").read_text()
    words = {"title": html.escape(TITLE), "line": html.escape(LINE), "mark": mark, "colour": COLOUR}
    card = CARD.format(faces=faces(), width=CARD_WIDTH, height=CARD_HEIGHT, **words)
    icon = ICON.format(side=ICON_SIDE, mark_side=ICON_SIDE * MARK_SHARE, mark=mark, colour=COLOUR)
    pictures = {"card.png": (card, CARD_WIDTH, CARD_HEIGHT), "icon.png": (icon, ICON_SIDE, ICON_SIDE)}
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--font-render-hinting=none", "--disable-lcd-text"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        for name, (page_html, width, height) in pictures.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.set_content(page_html)
            page.evaluate("document.fonts.ready")
            page.screenshot(path=ASSETS / name)
        browser.close()


if __name__ == "__main__":
    draw()
