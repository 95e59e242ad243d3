"""The list of takes as a musician meets it: Chromium on a small page with two of them, in a rail and on a phone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import served
from browsing import opened
from playwright.sync_api import Locator, Page, expect

from takes_panel import VERBS, Row, Wish, listed, take_list, wished

# Buttons that set the first list, which Python answers; "deaf" makes it give no answer. "look" shows what was wished for.
APP = """
import dataclasses, json, os, time
import gradio as gr
import theme
from takes_panel import Row, listed, take_list, wished

NAMES = ["Night Drive", "Quiet harbour at four in the morning", "Verse, slower", "Ink"]
rows = lambda names: [Row(f"id {i}", n, "Generate · 0:30", f"seed {i}", n == "Ink") for i, n in enumerate(names)]
FULL = listed(rows(NAMES), "id 1")
NEWER = listed([Row("new", "Newest", "Cover · 2:00", "seed 9"), *reversed(rows(NAMES))], "id 1")
HARD = ["<img src=x onerror='window.ran = 1'><script>window.ran = 1</script>", "", "two" + chr(10) + "lines",
        "\u202e\u05d0\u05d1 \u0639\u0631\u0628\u064a " * 20, "W" * 10_000, "long " * 2000, "$" + "{1 + 1} {{value}} `x`"]
VALUES = {
    "full": FULL, "newer": NEWER, "other": {**FULL, "on": "id 3"}, "none": listed([]), "nothing": None,
    "hard": listed(rows(HARD), "id 0", ["id 0", "id 3"]), "many": listed(rows(NAMES * 5), "id 19"),
    "odd": {"rows": [None, 7, {"id": 3}, "x", [], {"id": "a", "name": 4, "starred": "yes"}, {"id": "a", "name": "again"}],
            "on": 5, "pair": [{}, None, "gone", "a"], "wish": {"nonce": "x"}},
    "words": "<b>bold</b>", "wrong": {"rows": {"a": 1}, "on": None, "pair": "ab"},
}
state, wishes, quiet = {"value": FULL, "deaf": False}, [], {"show_progress": "hidden", "queue": False}
put = lambda value: state.update(value=value) or value

def answer(value):
    wish, now = wished(value), dict(state["value"])
    wishes.append(dataclasses.astuple(wish))
    if state["deaf"]:
        return gr.skip()
    change = {"rename": lambda r: {"name": wish.text}, "star": lambda r: {"starred": not r["starred"]}}.get(wish.verb)
    now["rows"] = [{**r, **change(r)} if change and r["id"] == wish.id else r for r in now["rows"]]
    if wish.verb == "show":
        now["on"] = wish.id
    elif wish.verb == "compare":
        now["pair"] = [i for i in now["pair"] if i != wish.id] if wish.id in now["pair"] else [*now["pair"], wish.id][-2:]
    elif wish.verb == "delete":
        now["rows"] = [r for r in now["rows"] if r["id"] != wish.id]
        now["on"] = now["rows"][0]["id"] if now["rows"] else ""
    return put(now)

with gr.Blocks() as blocks:
    with gr.Column(elem_id="rail", min_width=0):
        one = take_list(elem_id="one", label="Takes")
        take_list(elem_id="two", value=listed(rows(["Alone"]), "id 0"))
    for name, value in VALUES.items():
        gr.Button(name).click(lambda value=value: put(value), None, one, **quiet)
    for name, deaf in (("deaf", True), ("hears", False)):
        gr.Button(name).click(lambda deaf=deaf: state.update(deaf=deaf), None, None, **quiet)
    look = lambda: json.dumps({"wishes": [wishes.pop(0) for _ in wishes[:]], "at": time.time()})
    gr.Button("look").click(look, None, gr.Textbox(elem_id="got"), **quiet)
    one.input(answer, one, one, **quiet)

blocks.launch(server_port=int(os.environ["ACE_PORT"]), theme=theme.theme(), css_paths=theme.CSS, js=theme.JS,
              css="@media (min-width: 641px) { #rail { width: 200px !important } }", run_history=False, ssr_mode=False)
"""
GOT = "document.querySelector('#got textarea').value"
# Of the strip, what lies beyond its end is scrolled to.
STICKING_OUT = """limit => [...document.querySelectorAll('#one .takes *')].filter(e => e.checkVisibility())
    .filter(e => !e.closest('.rows > *') || innerWidth > 640)
    .filter(e => e.getBoundingClientRect().right > limit + 1).map(e => e.outerHTML.slice(0, 90))
    .concat(document.documentElement.scrollWidth > innerWidth ? ['the page'] : [])"""
WIDE = {"viewport": {"width": 1440, "height": 900}}
PHONE = {"viewport": {"width": 412, "height": 900}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
BOTH = pytest.mark.parametrize("takes", [WIDE, PHONE], indirect=True, ids=["wide", "phone"])
NIGHT, HARBOUR, VERSE, INK = "Night Drive", "Quiet harbour at four in the morning", "Verse, slower", "Ink"


class Takes:
    """The first list of the page, by what a visitor does and sees."""

    def __init__(self, page: Page) -> None:
        self.page, self.root, self.is_wide = page, page.locator("#one"), page.viewport_size["width"] > 640
        self.rows, self.head = self.root.get_by_role("listitem"), self.root.locator(".head")
        self.deeds = self.root.locator(".deeds").filter(visible=True)

    def press(self, name: str) -> None:
        with self.page.expect_response(lambda response: "/run/" in response.url):
            self.page.get_by_role("button", name=name, exact=True).click()
        self.page.wait_for_timeout(100)

    def wishes(self) -> list[Any]:
        """What Python was asked since this was last looked at."""
        before = self.page.evaluate(GOT)
        self.press("look")
        self.page.wait_for_function(f"before => {GOT} !== before", arg=before)
        return json.loads(self.page.evaluate(GOT))["wishes"]

    def show(self, name: str) -> Locator:
        return self.rows.filter(has=self.page.get_by_text(name, exact=True)).locator(".show")

    def button(self, name: str) -> Locator:
        return self.root.get_by_role("button", name=name, exact=True)

    def names(self) -> list[str]:
        return self.root.locator(".name").all_text_contents()

    def letters(self) -> list[str]:
        """A, B or nothing of each row, as it is seen."""
        return self.rows.evaluate_all("all => all.map(one => one.querySelector('.badge').innerText)")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    with served.page(tmp_path_factory.mktemp("takes"), APP) as place:
        yield place


@pytest.fixture
def takes(request: pytest.FixtureRequest, place: tuple[str, Any]) -> Iterator[Takes]:
    """The page in a fresh profile, wide unless a test asks for another, with four takes, the second on the screen."""
    with opened(*place, **getattr(request, "param", WIDE)) as page:
        page.goto(place[0])
        page.locator("#two .show").wait_for()
        for name in ("hears", "full", "look"):
            Takes(page).press(name)
        yield Takes(page)


@BOTH
def test_each_take_says_what_it_is(takes: Takes) -> None:
    group = takes.root.get_by_role("group", name="Takes", exact=True)
    assert (takes.head.inner_text(), takes.names()) == ("Takes · 4", [NIGHT, HARBOUR, VERSE, INK])
    expect(takes.show(INK)).to_have_text(re.compile(r"Ink\s+Generate · 0:30"))
    expect(takes.show(INK)).to_have_attribute("title", "seed 3")
    expect(takes.root.locator(".show[aria-current=true]")).to_contain_text([HARBOUR])
    assert [takes.button(f"Star {name}").get_attribute("aria-pressed") for name in (NIGHT, INK)] == ["false", "true"]
    expect(takes.root.get_by_text("They live as long as this tab.")).to_be_visible(visible=takes.is_wide)
    tops = [row.bounding_box()["y"] for row in takes.rows.all()]
    assert (len(set(tops)) == 4) is takes.is_wide and tops == sorted(tops)
    for name in ("none", "nothing", "words", "wrong"):
        takes.press(name)
        expect(takes.root.locator("button, li, .foot").filter(visible=True)).to_have_count(0)
        assert re.sub(r"\s+", " ", group.inner_text()).strip() == "Takes Your takes stand here."


@BOTH
def test_each_button_sends_its_wish_and_waits(takes: Takes) -> None:
    takes.press("deaf")
    before = takes.root.locator(".takes").inner_html()
    takes.button(f"Star {INK}").click()
    takes.show(VERSE).click()  # held back until the first is answered, or for some seconds
    assert (takes.wishes(), takes.root.locator(".takes").inner_html()) == ([["star", "id 3", ""]], before)
    takes.press("hears")
    expect(takes.show(VERSE)).to_have_attribute("aria-current", "true", timeout=10_000)
    takes.press("full")
    for mode in ("Cover", "Extend", "Edit"):
        expect(takes.button(f"Send {HARBOUR} to {mode}")).to_have_text(mode)
        expect(takes.button(f"Send {HARBOUR} to {mode}")).to_have_attribute("title", f"Send to {mode}")
        takes.button(f"Send {HARBOUR} to {mode}").click()
    takes.button(f"Compare {HARBOUR}").dblclick()  # the same again is a new wish
    takes.page.wait_for_timeout(1000)
    sent = [[verb, "id 1", ""] for verb in ("cover", "extend", "edit", "compare", "compare")]
    assert takes.wishes() == [["show", "id 2", ""], *sent]
    takes.show(VERSE).click()
    expect(takes.root.locator(".show[aria-current=true]")).to_contain_text(VERSE)
    expect(takes.show(VERSE)).to_be_focused()
    expect(takes.deeds).to_have_accessible_name(f"What to do with {VERSE}")
    takes.button(f"Star {VERSE}").press("Space")
    expect(takes.button(f"Star {VERSE}")).to_have_attribute("aria-pressed", "true")


@BOTH
def test_two_takes_are_compared(takes: Takes) -> None:
    compare = takes.root.get_by_role("button", name=re.compile("^Compare "))
    expect(compare).to_have_count(1)
    before = takes.root.locator(".take.on").bounding_box()["x"]
    compare.click()
    expect(compare).to_have_count(4)  # to choose the second
    assert takes.root.locator(".take.on").bounding_box()["x"] == pytest.approx(before, abs=1)
    assert takes.letters() == ["", "A", "", ""]
    takes.button(f"Compare {INK}").click()
    expect(takes.button(f"Compare {NIGHT}")).to_have_count(0)
    assert takes.letters() == ["", "A", "", "B"]
    assert takes.button(f"Compare {INK}").bounding_box()["x"] < 340  # still seen
    for name in (HARBOUR, INK):
        expect(takes.button(f"Compare {name}")).to_have_attribute("aria-pressed", "true")
    takes.button(f"Compare {HARBOUR}").click()
    expect(takes.button(f"Compare {NIGHT}")).to_have_attribute("aria-pressed", "false")
    assert takes.letters() == ["", "", "", "A"]
    takes.button(f"Compare {INK}").click()
    expect(compare).to_have_count(1)
    assert takes.letters() == [""] * 4
    expect(takes.show(INK)).to_be_focused()  # the button that was pressed is gone


@BOTH
def test_a_take_is_renamed_in_place(takes: Takes) -> None:
    rename, box = takes.button(f"Rename {HARBOUR}"), takes.root.get_by_role("textbox")
    for typed in ("Harbour <i>", "", "   ", HARBOUR, f" {HARBOUR} "):
        rename.click()
        expect(box).to_be_focused()
        assert box.input_value() == HARBOUR and takes.page.evaluate("getSelection().toString()") == HARBOUR
        box.fill(typed)
        box.press("Escape" if "<" in typed else "Enter")
        expect(box).to_have_count(0)
        expect(rename).to_be_focused()
    assert takes.wishes() == []
    rename.click()
    takes.page.keyboard.type("  a" + "b" * 80)
    box.press("Enter")
    expect(takes.button(f"Rename a{'b' * 57}")).to_be_focused()
    takes.button(f"Rename a{'b' * 57}").click()
    takes.page.keyboard.type("Second")
    takes.button(f"Star {INK}").click()  # a click elsewhere sends it, and does what it does
    expect(takes.button(f"Star {INK}")).to_have_attribute("aria-pressed", "false")
    expect(takes.button("Rename Second")).to_be_visible()
    assert takes.wishes() == [["rename", "id 1", f"a{'b' * 57}"], ["rename", "id 1", "Second"], ["star", "id 3", ""]]


@BOTH
def test_deleting_asks_once(takes: Takes) -> None:
    delete, sure, keep = (takes.button(name) for name in (f"Delete {HARBOUR}", f"Delete {HARBOUR}?", f"Keep {HARBOUR}"))
    delete.click()
    expect(sure).to_be_focused()
    keep.click()
    expect(delete).to_be_focused()
    delete.press("Enter")
    sure.press("Shift+Tab")  # the focus leaves
    expect(delete).to_have_text("Delete")
    delete.press("Enter")
    sure.press("Tab")
    expect(keep).to_be_focused()
    takes.page.wait_for_timeout(5200)  # longer than it asks
    expect(keep).to_have_count(0)
    expect(delete).to_be_focused()
    delete.dblclick()
    assert takes.wishes() == []
    delete.click()
    sure.click()
    expect(takes.rows).to_have_count(3)
    expect(takes.show(VERSE)).to_be_focused()  # the next
    assert takes.wishes() == [["delete", "id 1", ""]]
    takes.show(INK).click()
    for name, left in ((INK, VERSE), (NIGHT, VERSE)):
        takes.button(f"Delete {name}").click()
        takes.button(f"Delete {name}?").click()
        expect(takes.show(left)).to_be_focused()  # of the last row, the one before
    takes.button(f"Delete {VERSE}").press("Enter")
    takes.button(f"Delete {VERSE}?").press("Enter")
    expect(takes.root.locator(".takes")).to_be_focused()


@BOTH
def test_arrows_go_from_take_to_take(takes: Takes) -> None:
    back, on = ("ArrowUp", "ArrowDown") if takes.is_wide else ("ArrowLeft", "ArrowRight")
    takes.show(NIGHT).focus()
    takes.page.keyboard.press(back)
    assert takes.show(NIGHT).evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    for _ in range(5):
        takes.page.keyboard.press(on)
    expect(takes.show(INK)).to_be_focused()
    takes.page.keyboard.press(back)
    takes.page.keyboard.press("Enter")
    expect(takes.show(VERSE)).to_have_attribute("aria-current", "true")
    takes.page.keyboard.press("Tab")
    expect(takes.button(f"Star {VERSE}")).to_be_focused()


@BOTH
def test_rows_stay_what_they_are(takes: Takes) -> None:
    takes.button(f"Rename {HARBOUR}").click()
    takes.page.keyboard.type("half")
    box = takes.root.get_by_role("textbox")
    for name in ("newer", "other", "full"):  # one more and all in another order; another one on the screen
        takes.page.get_by_role("button", name=name, exact=True).dispatch_event("click")
        takes.page.wait_for_timeout(400)
        expect(box).to_be_focused()
        expect(box).to_have_value("half")
    assert takes.names() == [NIGHT, HARBOUR, VERSE, INK]
    takes.page.keyboard.press("Escape")
    takes.page.set_viewport_size({"width": 412 if takes.is_wide else 1440, "height": 900})
    expect(takes.button(f"Rename {HARBOUR}")).to_be_focused()  # the actions have moved
    assert takes.wishes() == []


@BOTH
def test_no_name_breaks_the_layout(takes: Takes) -> None:
    takes.press("hard")
    limit = takes.page.locator("#rail").bounding_box()["x"] + 200 if takes.is_wide else 412
    assert takes.root.locator("img, script, i").count() == 0 and takes.page.evaluate("window.ran") is None
    assert takes.names()[0].startswith("<img src=x") and takes.names()[-1] == "${1 + 1} {{value}} `x`"
    assert (len(takes.names()), len(takes.names()[4])) == (7, 10_000)
    assert takes.page.evaluate(STICKING_OUT, limit) == []
    for row in takes.rows.all():
        assert row.locator(".show").bounding_box()["height"] <= 60 and row.bounding_box()["width"] <= 302
    takes.root.get_by_role("button", name=re.compile("^Rename ")).click()
    expect(takes.root.get_by_role("textbox")).to_be_focused()
    assert takes.page.evaluate(STICKING_OUT, limit) == []
    for target in takes.root.locator("button, input").filter(visible=True).all():
        assert min(target.bounding_box()[length] for length in ("width", "height")) >= (40 if takes.is_wide else 44)
    assert takes.wishes() == []  # a name that is too long was left as it is
    takes.press("odd")
    assert (takes.names(), takes.letters()) == ([""], ["A"])


@BOTH
def test_the_list_scrolls_to_the_take_on_the_screen(takes: Takes) -> None:
    takes.press("many")
    takes.page.wait_for_timeout(200)
    takes.page.evaluate("scrollTo(0, 0)")
    seen, row = (takes.root.locator(name).bounding_box() for name in (".rows", ".take.on"))
    for side, length in (("x", "width"), ("y", "height")):
        assert seen[side] <= row[side] and row[side] + row[length] <= seen[side] + seen[length] + 1
    assert seen["height"] <= 0.6 * 900 + 1


def test_values_of_the_list() -> None:
    row = Row("a", "Ink", "Edit · 0:30", "seed 1")
    told = {"id": "a", "name": "Ink", "what": "Edit · 0:30", "told": "seed 1", "starred": False}
    assert listed([row], "a", ("a",)) == {"rows": [told], "on": "a", "pair": ["a"]}
    assert take_list(elem_id="x").value == listed([]) == {"rows": [], "on": "", "pair": []}
    for verb in VERBS:
        wish = {"verb": verb, "id": "a", "text": "b", "nonce": 3}
        assert wished({**listed([row]), "wish": wish}) == Wish(verb, "a", "b")
    assert wished({"wish": {"verb": "show", "id": "a"}}) == Wish("show", "a")
    wishes = [None, "show", [], {}, {"verb": "sing", "id": "a"}, {"verb": ["show"], "id": "a"}, {"verb": "show"}]
    wishes += [{"verb": "show", "id": 3}, *({"verb": "rename", "id": "a", "text": odd} for odd in (3, None))]
    for odd in (None, "", 3, [], {}, listed([row]), *({"wish": wish} for wish in wishes)):
        assert wished(odd) is None
