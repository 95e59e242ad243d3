"""The Lyrics tab as a musician meets it: Chromium on the demo checkpoint with a tiny, unhurried lyrics model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import served
import tiny_lyricist
from browsing import assert_fits, assert_ready, box, browser, fill, open_advanced, recipe, status, visit, wait_for_words
from playwright.sync_api import Page, expect

WIDTHS = pytest.mark.parametrize("width", [1440, 412])
OWN = "[verse]\nwalking home tonight\nunder the moon\n\n[chorus]\nrain on the window\nrain on the sea"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[served.Served]:
    folder = tmp_path_factory.mktemp("lettered")
    model = tiny_lyricist.saved(folder / "tiny")
    with served.studio(folder, "tests/lyrics_app.py", ACE_LYRICS_MODEL=str(model)) as running:
        yield running


def tab(page: Page, name: str = "Lyrics") -> Page:
    page.get_by_role("tab", name=name).click()
    return page


def press(page: Page, name: str) -> None:
    """A button by its name; what a name says of time ("· about 45 s") differs from machine to machine."""
    named = re.compile(rf"^{re.escape(name)}( · .*)?$")
    page.get_by_role("button", name=named).filter(visible=True).click()


def write(page: Page, name: str = "Draft lyrics") -> str:
    """A button that writes, to the end; the words."""
    press(page, name)
    expect(page.locator("#stop")).to_be_enabled()
    wait_for_words(page, "wrote this in")
    expect(page.locator("#draft-lyrics")).to_be_enabled()
    expect(page.locator("#stop")).to_be_disabled()
    return box(page, "draft").input_value()


def ask(page: Page, **values: Any) -> None:
    own = {"brief": "rain on the last train home", "structure": "verse: 2, chorus: 2", **values}
    for name, value in own.items():
        box(page, f"lyrics-{name}").fill(str(value))


@WIDTHS
def test_from_a_brief_to_a_song(visit: Callable[..., Page], width: int) -> None:
    page = tab(visit(width))
    expect(page.locator("#generate, #advanced, #player").filter(visible=True)).to_have_count(0)
    ask(page)
    text = write(page)
    assert re.match(r"\[verse\]\n([^\n\[]+\n){2}\n\[chorus\]\n([^\n\[]+\n?){2}$", text)
    expect(page.locator("#counts tr").filter(has_text="chorus")).to_contain_text("2")
    assert_fits(page, width)

    box(page, "draft").fill(OWN)
    expect(page.locator("#counts tr").filter(has_text="chorus")).to_contain_text("2")
    press(page, "Use in Generate")
    expect(box(page, "lyrics")).to_have_value(OWN)
    expect(page.locator("#generate")).to_be_visible()
    expect(page.locator("#sheet").filter(visible=True)).to_have_count(0)
    fill(page, prompt="slow piano")
    open_advanced(page)
    fill(page, inference_steps=8, seed=5)
    page.locator("#generate").click()
    wait_for_words(page, "seed 5")
    assert_ready(page)
    expect(recipe(page)).to_contain_text("walking home tonight")


def test_words_appear_as_they_are_written_and_stop_keeps_them(visit: Callable[..., Page]) -> None:
    page = tab(visit())
    ask(page, structure="verse, verse, verse, verse, verse, verse")
    press(page, "Draft lyrics")
    page.wait_for_function("document.querySelector('#draft textarea').value.split('\\n').length > 4")
    expect(status(page)).to_contain_text("Writing · step")
    expect(page.locator("#draft-lyrics")).to_be_disabled()
    page.locator("#stop").click()
    expect(status(page)).to_contain_text("Stopped. The words so far are kept.")
    expect(page.locator("#draft-lyrics")).to_be_enabled()
    words = box(page, "draft").input_value()
    assert words.startswith("[verse]\n") and len(words.splitlines()) < 30
    press(page, "Use in Cover")
    expect(box(page, "cover-lyrics")).to_have_value(words)


def test_variants_stand_side_by_side_with_their_edits(visit: Callable[..., Page]) -> None:
    page = tab(visit())
    ask(page)
    first = write(page)
    second = write(page, "+ variant")
    page.get_by_label("v1").check()
    expect(box(page, "draft")).to_have_value(first)
    third = write(
        page, "Shorter lines"
    )  # of the draft whose seed is known: of noise, what chance drew may not get shorter
    assert len({first, second, third}) == 3 and len(third) < len(first)
    page.get_by_label("v1").check()
    expect(box(page, "draft")).to_have_value(first)
    box(page, "draft").fill(OWN)
    page.get_by_label("v3").check()
    expect(box(page, "draft")).to_have_value(third)
    page.get_by_text("Side by side").click()
    expect(page.locator("#compare pre")).to_have_text([OWN, second, third])
    boxes = [pre.bounding_box() for pre in page.locator("#compare pre").all()]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"]
    page.get_by_label("v1").check()
    expect(box(page, "draft")).to_have_value(OWN)
    write(page)
    expect(page.locator("#which label")).to_have_count(4)


def test_the_same_seed_again_is_said_and_no_new_variant(visit: Callable[..., Page]) -> None:
    page = tab(visit())
    ask(page)
    text = write(page)
    press(page, "Draft lyrics")
    wait_for_words(page, "These are the words of v1 again")
    expect(box(page, "draft")).to_have_value(text)
    expect(page.locator("#which").filter(visible=True)).to_have_count(0)


def test_continuing_from_the_cursor_keeps_what_stands_before_it(visit: Callable[..., Page]) -> None:
    page = tab(visit())
    ask(page)
    box(page, "draft").fill(OWN)
    caret = OWN.index("under") + len("under the")
    box(page, "draft").evaluate(f"box => box.setSelectionRange({caret}, {caret})")
    text = write(page, "Continue from the cursor")
    assert text.startswith(OWN[:caret]) and "[chorus]" in text[caret:] and text != OWN
    page.get_by_label("v1").check()
    expect(box(page, "draft")).to_have_value(OWN)


@pytest.mark.parametrize(
    "mode, place", [("generate", "lyrics"), ("extend", "extend-lyrics"), ("edit", "edit-target_lyrics")]
)
def test_words_of_a_tab_are_replaced_only_when_one_says_so(visit: Callable[..., Page], mode: str, place: str) -> None:
    page, name = visit(), mode.capitalize()
    tab(page, name)
    box(page, place).fill("my own lines")
    if mode == "generate":
        page.get_by_label("Instrumental", exact=True).check()
    tab(page)
    press(page, f"Use in {name}")
    expect(status(page)).to_contain_text("There are no lyrics yet")
    box(page, "draft").fill(OWN)
    press(page, f"Use in {name}")
    expect(page.locator(f"#ask-{mode}")).to_contain_text(f"{name} has lyrics already.")
    press(page, "Keep them")
    expect(page.locator(f"#ask-{mode}").filter(visible=True)).to_have_count(0)
    press(page, f"Use in {name}")
    press(page, "Replace them")
    expect(box(page, place)).to_have_value(OWN)
    expect(page.locator(f"#{mode}")).to_be_visible()
    if mode == "generate":
        expect(page.get_by_label("With vocals", exact=True)).to_be_checked()


def test_one_click_says_whether_the_words_fit(visit: Callable[..., Page]) -> None:
    page = tab(visit())
    box(page, "draft").fill(OWN)
    press(page, "Does it fit the song?")
    expect(status(page)).to_contain_text("These words fit into 10 s: an easy pace takes about 9 s.")
    box(page, "draft").fill("\n".join([OWN] * 8))
    press(page, "Does it fit the song?")
    expect(page.locator("#status").get_by_role("alert")).to_contain_text("These words cannot fit into 10 s")


def test_what_cannot_be_asked_is_a_sentence_and_nothing_is_lost(visit: Callable[..., Page]) -> None:
    page = tab(visit())
    box(page, "draft").fill(OWN)
    press(page, "Draft lyrics")
    wait_for_words(page, "Brief is empty: say what the song is about.")
    expect(box(page, "draft")).to_have_value(OWN)
    ask(page, structure="vers")
    press(page, "Draft lyrics")
    wait_for_words(page, "Structure knows no section 'vers'. Did you mean verse?")
    expect(box(page, "draft")).to_have_value(OWN)


def test_markup_in_words_is_text(visit: Callable[..., Page]) -> None:
    page = tab(visit())
    box(page, "draft").fill("[<img src=x onerror='window.pwned=1'>]\n<script>window.pwned=1</script>")
    page.locator("#counts td").first.wait_for()
    ask(page)
    write(page)
    page.get_by_text("Side by side").click()
    expect(page.locator("#compare")).to_contain_text("<script>")
    assert page.evaluate("window.pwned") is None


def test_the_recipe_is_shown_until_the_words_are_edited(visit: Callable[..., Page]) -> None:
    page = tab(visit())
    ask(page)
    write(page)
    page.locator("#sheet").get_by_text("Metadata").click()
    expect(page.locator("#lyrics-metadata")).to_contain_text("rain on the last train home")
    assert json.dumps(42) in page.locator("#lyrics-metadata").inner_text()
