"""The region editor as a musician meets it: Chromium on a small page with two of them, wide, narrow and by touch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import served
from browsing import opened
from playwright.sync_api import Locator, Page, expect

from regions import drawn, picked, region_editor

# Buttons that set the first editor; "look" shows what Python receives of it, and what it has fired.
APP = """
import json, os, time
import gradio as gr
import theme
from regions import drawn, picked, region_editor

BEAT, fired = [0.1, 0.9] * 200, []
VALUES = {
    "song": drawn(100, [0.3] * 400, []),
    "echo": drawn(100, [0.3] * 400, [[80, 90]]),
    "marked": drawn(200.4567, BEAT, [[60.5, 70], [10, 20]]),
    "odd": {"seconds": 50, "peaks": ["<b>", None, 7], "regions": [[1, 2], "<img src=x>", ["<b>", 9], 4]},
    "none": drawn(0, [], []), "nothing": None,
}
quiet = {"show_progress": "hidden", "queue": False}
with gr.Blocks() as blocks:
    with gr.Column() as shown:
        one = region_editor(elem_id="one", label="Parts to change")
    region_editor(elem_id="two", value=drawn(30, BEAT, [[5, 8]]))
    for name, value in VALUES.items():
        gr.Button(name).click(lambda value=value: value, None, one, **quiet)
    for name, visible in (("hide", False), ("show", True)):
        gr.Button(name).click(lambda visible=visible: gr.Column(visible=visible), None, shown, **quiet)
    look = lambda value: json.dumps({**value, "regions": picked(value), "fired": fired, "at": time.time()})
    gr.Button("look").click(look, one, gr.Textbox(elem_id="got"), **quiet)
    for kind in ("change", "input"):  # every one: by default, some that come fast are left out
        told = lambda value, kind=kind: fired.append([kind, picked(value)])
        getattr(one, kind)(told, one, trigger_mode="multiple", **quiet)
    gr.HTML("<p style='height: 900px'></p>")

blocks.launch(server_port=int(os.environ["ACE_PORT"]), theme=theme.theme(), css_paths=theme.CSS, js=theme.JS,
              css=".gradio-container { width: 100% }", run_history=False, ssr_mode=False)
"""
GOT = "document.querySelector('#got textarea').value"
STICKING_OUT = """[...document.querySelectorAll('html, #one *')].filter(e => e.checkVisibility()).filter(e => e.scrollWidth >
    innerWidth || e.getBoundingClientRect().right > innerWidth || e.getBoundingClientRect().left < 0).map(e => e.className)"""
# The columns of the waveform that are drawn as bright as a marked region, 0 to 1.
BRIGHT = """canvas => {
    const row = canvas.getContext('2d').getImageData(0, canvas.height >> 1, canvas.width, 1).data;
    return [...Array(canvas.width).keys()].filter(x => row[4 * x] > 250).map(x => x / canvas.width);
}"""
WIDE, NARROW = ({"viewport": {"width": width, "height": 900}} for width in (1440, 412))
PHONE = {**NARROW, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}


class Editor:
    """The first editor of the page, by what a visitor does and sees."""

    def __init__(self, page: Page) -> None:
        self.page, self.root = page, page.locator("#one")
        self.hint, self.said, self.canvas = (self.root.locator(name) for name in (".hint", ".said", "canvas"))
        self.add = self.root.get_by_role("button", name="Add region")

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def heard(self) -> dict[str, Any]:
        """What Python receives."""
        before = self.page.evaluate(GOT)
        self.press("look")
        self.page.wait_for_function(f"before => {GOT} !== before", arg=before)
        return json.loads(self.page.evaluate(GOT))

    def marked(self) -> list[Any]:
        return self.heard()["regions"]

    def at(self, time: float) -> tuple[float, float]:
        """Where a time is on the screen."""
        wave = self.canvas.bounding_box()
        return wave["x"] + time / 100 * wave["width"], wave["y"] + wave["height"] / 2

    def near(self, *regions: list[float]) -> list[Any]:
        """These regions, each time within a pixel's worth."""
        return [pytest.approx(region, abs=100 / self.canvas.bounding_box()["width"]) for region in regions]

    def drag(self, start: float, end: float, drop: bool = True) -> None:
        self.canvas.scroll_into_view_if_needed()
        self.page.mouse.move(*self.at(start))
        self.page.mouse.down()
        self.page.mouse.move(*self.at(end), steps=2)
        if drop:
            self.page.mouse.up()

    def handle(self, name: str) -> Locator:
        return self.root.get_by_role("slider", name=name, exact=True)

    def box(self, number: int, name: str) -> Locator:
        row = self.root.get_by_role("group", name=f"Region {number}", exact=True)
        return row.get_by_role("textbox", name=f"{name} (s)", exact=True)

    def type(self, start: str, end: str) -> None:
        self.box(1, "Start").fill(start)
        self.box(1, "End").fill(end)
        self.box(1, "End").press("Enter")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    with served.page(tmp_path_factory.mktemp("regions"), APP) as place:
        yield place


@pytest.fixture
def editor(request: pytest.FixtureRequest, place: tuple[str, Any]) -> Iterator[Editor]:
    """The page in a fresh profile, wide unless a test asks for another, with a song of 100 s in the first editor."""
    with opened(*place, **getattr(request, "param", WIDE)) as page:
        page.goto(place[0])
        page.locator("#two .region").wait_for()
        Editor(page).press("song")
        page.locator("#one .stage").wait_for()
        yield Editor(page)


@pytest.mark.parametrize("editor", [WIDE, NARROW], indirect=True)
def test_dragging_marks_regions(editor: Editor) -> None:
    group = editor.root.get_by_role("group", name="Parts to change")
    editor.press("none")
    expect(editor.root.locator("button, input, canvas, [role=slider]").filter(visible=True)).to_have_count(0)
    assert group.inner_text().strip() == "Add a song, then drag over the part to change."
    editor.press("song")
    editor.drag(20, 40)
    editor.drag(75, 60)  # to the left
    assert editor.marked() == editor.near([20, 40], [60, 75])
    bright = editor.canvas.evaluate(BRIGHT)
    assert bright and all(0.18 < x < 0.42 or 0.58 < x < 0.77 for x in bright)
    names = [f"{part} of region {n}" for n in (1, 2) for part in ("Position", "Start", "End")]
    assert [one.get_attribute("aria-label") for one in group.get_by_role("slider").all()] == names
    assert editor.page.evaluate(STICKING_OUT) == []
    editor.page.set_viewport_size({"width": 360, "height": 900})
    editor.page.wait_for_timeout(200)
    assert editor.page.evaluate(STICKING_OUT) == []
    band = editor.handle("Position of region 2")
    assert band.bounding_box()["x"] == pytest.approx(editor.at(float(band.get_attribute("aria-valuenow")))[0], abs=1)


def test_edges_and_middles_move_and_never_overlap(editor: Editor) -> None:
    editor.drag(50, 50.2)  # a click, if not by a steady hand: marks nothing
    for start, end in ((20, 40), (60, 62), (61, 71), (20, 10), (72, 90)):  # new, new, the middle of a narrow one, edges
        editor.drag(start, end)
    assert editor.marked() == editor.near([10, 40], [70, 90])
    editor.drag(25, 30)  # the middle
    assert editor.marked() == editor.near([15, 45], [70, 90])
    editor.drag(30, 70)  # up to the neighbour
    editor.drag(75, 120)  # up to the end of the song
    assert editor.marked() == editor.near([40, 70], [80, 100]) and editor.marked()[1][1] == 100
    editor.drag(80, 5)  # an edge, up to the neighbour
    editor.drag(40, 80)  # an edge, up to the other edge of its region
    (start, end), (after, last) = editor.marked()
    assert (end, last) == (after, 100) and end - start == pytest.approx(0.1)
    editor.drag(10, 95, drop=False)  # a new one, up to the neighbour
    expect(editor.root.locator(".pointed")).to_have_text(f"0:10.0 – 1:0{start - 60:.1f}")
    editor.page.mouse.up()
    assert len(editor.marked()) == 3 and editor.marked()[0][1] == start


def test_what_is_typed_is_drawn_and_told_once(editor: Editor) -> None:
    before = len(editor.heard()["fired"])
    editor.add.click()
    editor.type("1:05.5", "70,25")
    assert editor.marked() == [[65.5, 70.25]]
    expect(editor.box(1, "Start")).to_have_value("65.5")
    assert editor.handle("Position of region 1").bounding_box()["x"] == pytest.approx(editor.at(65.5)[0], abs=1)
    editor.drag(10, 20)
    told = [[[45, 55]], [[65.5, 55]], [[65.5, 70.25]], editor.marked()]
    editor.page.wait_for_timeout(500)
    assert sorted(editor.heard()["fired"][before:]) == sorted([k, v] for k in ("change", "input") for v in told)
    editor.box(1, "Start").fill("80")  # behind the other: they change places
    editor.box(1, "Start").press("Tab")
    expect(editor.box(2, "End")).to_be_focused()
    editor.page.keyboard.type("90")
    assert editor.marked() == [[65.5, 70.25], [80, 90]]  # a click elsewhere commits
    editor.box(2, "Start").fill("5")
    editor.box(2, "Start").press("Enter")
    expect(editor.box(1, "Start")).to_be_focused()


def test_wrong_times_are_sent_as_typed_and_marked(editor: Editor) -> None:
    editor.add.click()
    for start, end, sent, message, side in (
        ("50", "40", [50, 40], "End must be after start.", ["End"]),
        ("90", "123.456", [90, 123.46], "The song ends at 100 s.", ["End"]),
        ("-3", "40", [-3, 40], "The song starts at 0 s.", ["Start"]),
        ("10", "10.05", [10, 10.05], "At least 0.1 s.", ["End"]),
        ("", "40", [None, 40], "Start is empty.", ["Start"]),
        ("10", "later", [10, None], "End is not a time.", ["End"]),
        ("1:75", "9" * 400, [None, None], "Start is not a time.", ["Start"]),
        ("5", "6", [5, 6], "1 s long", []),
    ):
        editor.type(start, end)
        assert editor.marked() == [sent]
        expect(editor.said).to_have_text(message)
        boxes = {name: editor.box(1, name) for name in ("Start", "End")}
        assert [name for name, box in boxes.items() if box.get_attribute("aria-invalid") == "true"] == side
        if None in sent:
            assert [box.input_value() for box in boxes.values()] == [start, end]
    editor.drag(50, 60)
    editor.type("5", "55")
    expect(editor.said).to_have_text(["Overlaps region 2.", "Overlaps region 1."])
    assert editor.marked() == [[5, 55], *editor.near([50, 60])]


def test_regions_are_added_in_the_largest_gap_and_removed(editor: Editor) -> None:
    editor.add.click()
    editor.add.click()
    assert editor.marked() == [[17.5, 27.5], [45, 55]]
    first = editor.root.get_by_role("button", name="Remove region 1", exact=True)
    first.click()
    expect(first).to_be_focused()
    assert editor.marked() == [[45, 55]]
    for _ in range(15):
        editor.add.click()
    expect(editor.hint).to_have_text("16 regions at most.")
    times = [time for region in editor.marked() for time in region]
    assert len(times) == 32 and times == sorted(times)
    first.click()
    editor.type("0", "100")
    expect(editor.hint).to_have_text("No room for another region.")
    expect(editor.add).to_be_disabled()


def test_the_keyboard_moves_and_removes(editor: Editor) -> None:
    editor.add.click()
    start, end, whole = (editor.handle(f"{part} of region 1") for part in ("Start", "End", "Position"))
    editor.box(1, "Start").focus()
    for key in ("Shift+Tab", "Shift+Tab", "ArrowLeft", "ArrowDown", "Shift+ArrowRight"):
        editor.page.keyboard.press(key)
    expect(start).to_be_focused()
    assert start.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    assert editor.marked() == [[45.8, 55]]
    start.press("Home")
    assert editor.marked() == [[0, 55]]
    start.press("End")
    expect(start).to_have_attribute("aria-valuetext", "54.9 seconds")
    assert [end.get_attribute(f"aria-value{limit}") for limit in ("min", "max", "now")] == ["55", "100", "55"]
    end.press("End")
    whole.press("Shift+ArrowLeft")
    assert editor.marked() == [[53.9, 99]]
    end.press("Delete")
    expect(editor.add).to_be_focused()
    assert editor.marked() == []


@pytest.mark.parametrize("editor", [PHONE], indirect=True)
def test_fingers_mark_sideways_and_scroll_up_and_down(editor: Editor) -> None:
    touch = editor.page.context.new_cdp_session(editor.page)

    def swipe(x: float, y: float, right: float, down: float, last: str = "touchEnd") -> None:
        for i in range(11):
            point = {"x": x + right * i / 10, "y": y + down * i / 10}
            touch.send("Input.dispatchTouchEvent", {"type": "touchMove" if i else "touchStart", "touchPoints": [point]})
        touch.send("Input.dispatchTouchEvent", {"type": last, "touchPoints": []})

    (x, y), right = editor.at(20), editor.at(50)[0] - editor.at(20)[0]
    swipe(x, y, right, 0)
    swipe(x + right + 15, y, right, 0)  # beside the edge: a finger is wide
    swipe(x + right, y, right / 3, 0, last="touchCancel")  # taken away by the system: leaves no trace
    marked = editor.marked()
    assert marked == editor.near([20, 80])
    editor.page.evaluate("scrollTo(0, 0)")
    swipe(*editor.at(90), 3, -100)
    editor.page.wait_for_function("scrollY > 50")
    assert editor.marked() == marked
    assert editor.page.evaluate(STICKING_OUT) == []
    for target in editor.root.locator("button, input, .handle.start, .handle.end").filter(visible=True).all():
        assert min(target.bounding_box()["width"], target.bounding_box()["height"]) >= 40
    assert editor.canvas.evaluate("one => one.width / one.clientWidth") == 2


def test_a_value_from_python_redraws_everything(editor: Editor) -> None:
    editor.add.click()
    editor.press("marked")
    expect(editor.box(2, "Start")).to_have_value("60.5")
    assert editor.handle("End of region 2").get_attribute("aria-valuemax") == "200.45"
    bright = editor.canvas.evaluate(BRIGHT)
    assert bright and all(0.04 < x < 0.11 or 0.29 < x < 0.36 for x in bright)
    assert (editor.heard()["seconds"], len(editor.heard()["peaks"])) == (200.45, 400)
    editor.press("hide")
    expect(editor.root).to_be_hidden()
    editor.press("song")
    editor.press("show")
    expect(editor.hint).to_have_text("Drag over the part to change.")
    editor.drag(20, 40)
    assert editor.marked() == editor.near([20, 40])
    editor.press("odd")
    expect(editor.root.locator(".region")).to_have_count(4)
    expect(editor.root.locator("img, b")).to_have_count(0)
    for name in ("none", "song", "nothing"):
        editor.press(name)
        expect(editor.root.locator(".stage")).to_be_visible(visible=name == "song")


def test_a_drag_is_disturbed_by_another_song_alone(editor: Editor) -> None:
    editor.drag(20, 40, drop=False)
    with editor.page.expect_response(lambda response: "/run/" in response.url):
        editor.page.get_by_role("button", name="echo").dispatch_event("click")
    editor.page.wait_for_timeout(300)
    editor.page.mouse.move(*editor.at(50))
    editor.page.mouse.up()
    assert editor.marked() == editor.near([20, 50])
    editor.drag(60, 70, drop=False)
    editor.page.get_by_role("button", name="marked").dispatch_event("click")
    expect(editor.box(2, "End")).to_have_value("70")
    editor.page.mouse.move(*editor.at(80))
    editor.page.mouse.up()
    assert editor.marked() == [[60.5, 70], [10, 20]]
    second = editor.page.locator("#two").get_by_role("slider", name="End of region 1", exact=True)
    second.press("Shift+ArrowRight")
    expect(second).to_have_attribute("aria-valuenow", "9")
    assert editor.marked() == [[60.5, 70], [10, 20]]
    assert len(set(editor.page.locator(".said").evaluate_all("all => all.map(one => one.id)"))) == 3


def test_values_of_an_editor() -> None:
    assert drawn(12.999, [0.12345, 1], [[1, 2.5]]) == {"seconds": 12.99, "peaks": [0.123, 1], "regions": [[1, 2.5]]}
    assert drawn(187.47, [], [])["seconds"] == 187.47
    assert region_editor(elem_id="x").value == drawn(0, [], [])
    for odd in (None, "", 3, [], {}, {"regions": None}, {"regions": "x"}):
        assert picked(odd) == []
    assert picked({"regions": [[1, None], [9, 2]]}) == [[1, None], [9, 2]]
