"""The player as a listener meets it: Chromium on a small page with two of them, wide, narrow and by touch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import served
from browsing import opened
from playwright.sync_api import Page, expect

import formats
from player import Track, player, playing

RATE = 44_100
TONES = {"low": (220, 65.4), "high": (660, 65), "short": (440, 4), "brief": (330, 2)}  # Hz and seconds
# Buttons that set the first player. What it loads lies where Gradio keeps what it may serve.
APP = """
import os
from pathlib import Path
import gradio as gr
import theme
from gradio.utils import get_upload_folder
from player import Track, player, playing
at = Path(get_upload_folder())
BEAT = [0.2 + 0.6 * (i % 40 < 9) + 0.2 * (i % 7) / 7 for i in range(400)]
def track(name, seconds, peaks=BEAT, marks=()):
    return Track(str(at / f"{name} é#%.mp3"), seconds, peaks, f"<b>{name}</b>", marks)

low = track("low", 65.4, marks=((20, 30, "Edited <i>here</i>"), (26, 31, "Hidden"), (50, 50, "Extended")))
high, short, brief = track("high", 65), track("short", 4), track("brief", 2, [])
gone = Track(low.path + "x", 5, BEAT, "gone")
fine = {"path": low.path, "seconds": 9, "peaks": ["<b>", None, 7, -3], "name": ["x"]}
VALUES = {
    "low": playing(low), "again": playing(low), "high": playing(high), "short": playing(short), "brief": playing(brief),
    "pair": playing(low, high), "uneven": playing(low, short), "gone": playing(gone), "half": playing(low, gone),
    "odd": {"tracks": [fine, {**fine, "marks": [3, [1], ["a", 2, "b"], [1, 2, {}], [9, -1]]}, {**fine, "seconds": "<b>"},
                       {**fine, "path": 4}, None, "x", {**fine, "seconds": -1, "path": ""}]},
    "text": "<img src=x>", "seven": {"tracks": 7}, "none": None, "empty": playing(),
}
quiet = {"show_progress": "hidden", "queue": False}
with gr.Blocks() as blocks:
    with gr.Column() as shown:
        one = player("Make a song to hear it here.", elem_id="one", elem_classes="player", label="Your take")
    player(elem_id="two", value=playing(high))
    for name, value in VALUES.items():
        gr.Button(name).click(lambda value=value: value, None, one, **quiet)
    for name in ("hide", "show"):
        gr.Button(name).click(lambda name=name: gr.Column(visible=name == "show"), None, shown, **quiet)
    gr.HTML("<p style='height: 900px'></p>")
blocks.launch(server_port=int(os.environ["ACE_PORT"]), theme=theme.theme(), css_paths=theme.CSS, js=theme.JS,
              css=".gradio-container { width: 100% }", run_history=False, ssr_mode=False)
"""
SOUNDS = "one => [...one.querySelectorAll('audio')].some(audio => !audio.paused && audio.currentTime > 0)"
STICKING_OUT = """[...document.querySelectorAll('html, #one *')].filter(e => e.checkVisibility()).filter(e =>
    e.scrollWidth > innerWidth || e.getBoundingClientRect().right > innerWidth).map(e => e.className)"""
# How often a waveform was drawn, and what the sounds of the page did, each with the places of all of them.
WATCHED = """(() => {
    const { prototype } = CanvasRenderingContext2D, fill = prototype.fillRect;
    [window.drawn, window.told, prototype.fillRect] = [0, [], function (...a) { drawn += 1; fill.apply(this, a); }];
    for (const kind of ['play', 'playing', 'pause']) document.addEventListener(kind, ({ target }) => {
        const all = [...document.querySelectorAll('#one audio')];
        window.told.push([kind, all.indexOf(target), ...all.map(audio => audio.currentTime)]);
    }, true);
})()"""
DRAWN = "() => { const was = drawn; return new Promise(done => setTimeout(() => done(drawn - was), 400)); }"
# The columns of the waveform that are drawn in white, 0 to 1, in the row through its middle.
WHITE = """one => [...one.getContext('2d').getImageData(0, (one.height >> 1) + 9, one.width, 1).data]
    .flatMap((value, i) => i % 4 === 0 && value > 250 ? [i / 4 / one.width] : [])"""
OUTLINE = "one => getComputedStyle(one).outlineStyle"
GONE, EMPTY = "This file is no longer here.", (True, ["0:00", "0:00"], [])
WIDE, NARROW = ({"viewport": {"width": width, "height": 900}} for width in (1440, 412))
PHONE = {**NARROW, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
BOTH = pytest.mark.parametrize("deck", [WIDE, NARROW], indirect=True)


class Deck:
    """One player of the page, by what a listener does and sees."""

    def __init__(self, page: Page, name: str = "one") -> None:
        self.page, self.root = page, page.locator(f"#{name}")
        names = (".play", ".position", ".time", ".duration", "canvas", ".pill")
        self.play, self.position, self.time, self.duration, self.canvas, self.pills = map(self.root.locator, names)

    def press(self, name: str) -> None:
        with self.page.expect_response(lambda response: "/run/" in response.url):
            self.page.get_by_role("button", name=name, exact=True).dispatch_event("click")
        self.page.wait_for_timeout(150)

    def sounds(self) -> list[float | None]:
        """Where each track stands; None for one that does not play."""
        return self.root.locator("audio").evaluate_all("all => all.map(one => one.paused ? null : one.currentTime)")

    def now(self) -> float:
        return float(self.position.get_attribute("aria-valuenow"))

    def times(self) -> list[str]:
        return [self.time.inner_text(), self.duration.inner_text()]

    def start(self) -> None:
        self.play.click()
        self.page.wait_for_function(SOUNDS, arg=self.root.element_handle())

    def at(self, share: float) -> tuple[float, float]:
        box = self.position.bounding_box()
        return box["x"] + share * box["width"], box["y"] + box["height"] / 2


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    folder = tmp_path_factory.mktemp("player")
    (folder / "gradio").mkdir()
    for name, (pitch, seconds) in TONES.items():
        tone = 0.3 * np.sin(2 * np.pi * pitch / RATE * np.arange(int(seconds * RATE), dtype=np.float32))
        (folder / "gradio" / f"{name} é#%.mp3").write_bytes(formats.preview(np.stack([tone, tone]), RATE))
    with served.page(folder, APP) as place:
        yield place


@pytest.fixture
def deck(request: pytest.FixtureRequest, place: tuple[str, Any]) -> Iterator[Deck]:
    """The page in a fresh profile, wide unless a test asks for another, with a track of 65 s in the first player."""
    complaints = []
    with opened(*place, complaints, **getattr(request, "param", WIDE)) as page:
        page.add_init_script(WATCHED)
        page.goto(place[0])
        expect(page.locator("#two .play")).to_be_enabled()
        Deck(page).press("low")
        yield Deck(page)
        refused = "of 403" if "gone" in request.node.name else GONE  # so Gradio answers for a file that is not there
        complaints[:] = [text for text in complaints if refused not in text]


@BOTH
def test_it_plays_pauses_and_asks_python_nothing(deck: Deck) -> None:
    asked = []
    deck.page.on("request", lambda request: asked.append(request.url) if "/file=" not in request.url else None)
    expect(deck.root.get_by_role("group", name="Your take")).to_be_visible()
    assert (deck.times(), deck.pills.count()) == (["0:00", "1:05"], 0)
    deck.start()
    expect(deck.time).to_have_text("0:01")
    assert deck.page.evaluate(DRAWN) > 0
    deck.play.click()
    expect(deck.play).to_have_accessible_name("Play")
    assert (deck.page.evaluate(DRAWN), deck.sounds(), asked) == (0, [None], [])
    assert deck.page.evaluate(STICKING_OUT) == []


@BOTH
def test_pointers_and_keys_seek(deck: Deck) -> None:
    deck.page.mouse.click(*deck.at(0.5))
    assert deck.now() == pytest.approx(32.7, abs=0.4) and deck.sounds() == [None]
    told = [deck.position.get_attribute(f"aria-value{name}") for name in ("min", "max", "text")]
    assert told == ["0", "65.4", "0:32 of 1:05"]
    assert max(deck.canvas.evaluate(WHITE)) == pytest.approx(0.5, abs=0.02)
    deck.page.mouse.down()
    deck.page.mouse.move(*deck.at(0.9), steps=3)
    expect(deck.time).to_have_text("0:58")
    deck.page.mouse.move(*deck.at(2))
    deck.page.mouse.up()
    assert deck.now() == 65.4
    deck.play.focus()
    deck.page.keyboard.press("Tab")
    assert deck.position.evaluate(OUTLINE) == "solid"
    for key, place in (("ArrowLeft", 60.4), ("Home", 0), ("ArrowLeft", 0), ("ArrowRight", 5), ("End", 65.4)):
        deck.page.keyboard.press(key)
        assert deck.now() == pytest.approx(place, abs=0.1)
    for key, name in ((" ", "Pause"), ("Enter", "Play"), ("Enter", "Pause")):  # from the end, it begins anew
        deck.page.keyboard.press(key)
        expect(deck.play).to_have_accessible_name(name)
    assert deck.page.evaluate("scrollY") == 0 and deck.sounds()[0] < 20
    deck.page.keyboard.press("ArrowRight")
    assert deck.sounds()[0] >= 5


def test_it_stops_at_its_end_and_when_another_begins(deck: Deck) -> None:
    deck.press("brief")
    deck.start()
    expect(deck.play).to_have_accessible_name("Play", timeout=8000)
    assert (deck.time.inner_text(), deck.now()) == ("0:02", 2)
    deck.press("low")
    other = Deck(deck.page, "two")
    for one, silent in ((deck, other), (other, deck), (deck, other)):
        one.start()
        expect(silent.play).to_have_accessible_name("Play")
        assert silent.sounds() == [None] and one.sounds()[0] is not None


@BOTH
def test_switching_keeps_the_place_and_the_sound(deck: Deck) -> None:
    deck.press("pair")
    expect(deck.pills.nth(1)).to_have_accessible_name("B <b>high</b>")
    deck.page.mouse.click(*deck.at(0.3))
    deck.start()
    deck.page.evaluate("window.told = []")
    for pill, pauses in ((1, 1), (0, 2)):
        deck.pills.nth(pill).click()
        expect(deck.pills.nth(pill)).to_be_checked()
        deck.page.wait_for_function("n => window.told.filter(([kind]) => kind === 'pause').length === n", arg=pauses)
    told = deck.page.evaluate("window.told")
    assert [kind for kind, *_ in told] == ["play", "playing", "pause"] * 2  # the other is heard before the one is left
    assert [which for _, which, *_ in told] == [1, 1, 0, 0, 0, 1]
    assert all(abs(one - other) < 0.15 for kind, _, one, other in told if kind != "play"), told
    deck.root.evaluate("one => [1, 0, 1, 0].forEach(i => one.querySelectorAll('.pill')[i].click())")
    deck.page.wait_for_timeout(700)
    assert deck.sounds()[0] > 19 and deck.sounds()[1] is None  # taken back
    deck.root.evaluate("one => [one.querySelectorAll('.pill')[1], one.querySelector('.play')].forEach(b => b.click())")
    deck.page.wait_for_timeout(700)
    assert deck.sounds() == [None, None] and deck.now() > 0.3 * 65  # stopped meanwhile
    deck.start()
    assert deck.sounds()[0] is None and deck.sounds()[1] > 0.3 * 65


def test_arrows_choose_and_a_shorter_track_ends_sooner(deck: Deck) -> None:
    deck.press("uneven")
    assert deck.root.get_by_role("radiogroup").get_by_role("radio", checked=True).get_attribute("tabindex") == "0"
    deck.page.mouse.click(*deck.at(0.5))
    deck.pills.nth(0).focus()
    deck.page.keyboard.press("ArrowRight")
    expect(deck.pills.nth(1)).to_be_focused()
    assert (deck.times(), deck.root.locator(".mark").count()) == (["0:04", "0:04"], 0)
    for key, which in (("ArrowLeft", 0), ("ArrowUp", 1), ("ArrowDown", 0)):
        deck.page.keyboard.press(key)
        expect(deck.pills.nth(which)).to_be_checked()
    assert deck.times() == ["0:04", "1:05"]
    deck.position.press("Home")
    deck.start()
    deck.pills.nth(1).click()
    deck.page.wait_for_function("window.told.some(([kind, which]) => kind === 'pause' && which === 0)")
    expect(deck.play).to_have_accessible_name("Play", timeout=8000)
    assert deck.times() == ["0:04", "0:04"]


def test_another_value_stops_and_the_same_does_not(deck: Deck) -> None:
    deck.page.mouse.click(*deck.at(0.5))
    deck.start()
    deck.press("again")
    assert deck.sounds()[0] > 32
    deck.press("high")
    assert (deck.sounds(), deck.now(), deck.time.inner_text()) == ([None], 0, "0:00")
    deck.start()
    deck.press("none")
    assert (deck.play.is_disabled(), deck.times(), deck.sounds()) == EMPTY
    deck.press("low")
    deck.start()
    deck.root.locator("audio").evaluate("audio => (window.heard = audio)")
    deck.press("hide")
    deck.press("show")
    expect(deck.duration).to_have_text("1:05")
    Deck(deck.page, "two").start()
    assert deck.page.evaluate("window.heard.paused")


@BOTH
def test_nothing_jumps_even_when_the_file_is_gone(deck: Deck) -> None:
    tall = deck.root.bounding_box()["height"]
    for name in ("none", "high", "brief", "text", "gone"):
        deck.press(name)
        assert deck.root.bounding_box()["height"] == tall, name
    expect(deck.time).to_have_text(GONE)
    assert (deck.play.is_disabled(), deck.position.get_attribute("aria-disabled")) == (True, "true")
    assert deck.page.evaluate(STICKING_OUT) == []
    deck.press("half")
    tall = deck.root.bounding_box()["height"]
    deck.start()
    deck.pills.nth(1).click()
    expect(deck.time).to_have_text(GONE)
    assert (deck.sounds(), deck.root.bounding_box()["height"]) == ([None, None], tall)
    deck.press("none")
    expect(deck.root.get_by_text("Make a song to hear it here.")).to_be_visible()


def test_odd_values_do_no_harm(deck: Deck) -> None:
    assert deck.root.locator(".label").filter(visible=True).all_inner_texts() == ["Edited <i>here</i>", "Extended"]
    assert (deck.root.locator(".mark").count(), deck.root.locator(".mark.seam").count()) == (3, 1)
    for name in ("text", "seven", "none", "empty"):
        deck.press("low")
        deck.press(name)
        assert (deck.play.is_disabled(), deck.times(), deck.sounds()) == EMPTY, name
    deck.press("odd")
    assert (deck.pills.count(), deck.times()) == (2, ["0:00", "0:09"])
    deck.pills.nth(1).click()
    assert (deck.root.locator(".mark").count(), deck.root.locator("img, i").count()) == (2, 0)
    deck.start()


def test_loudness_can_be_set_and_silenced(deck: Deck) -> None:
    heard = "all => all.map(one => [one.volume, one.muted])"
    deck.press("pair")
    audio, volume = deck.root.locator("audio"), deck.root.get_by_role("slider", name="Volume")
    volume.fill("0.5")
    deck.root.get_by_role("button", name="Mute").click()
    assert audio.evaluate_all(heard) == [[0.5, True]] * 2
    deck.root.get_by_role("button", name="Unmute").press("Enter")
    deck.press("low")
    assert audio.evaluate_all(heard) == [[0.5, False]] and volume.bounding_box()["height"] >= 40
    deck.page.keyboard.press("Tab")
    assert volume.evaluate(OUTLINE) == "solid"
    deck.page.set_viewport_size({"width": 412, "height": 900})
    expect(volume).to_be_hidden()


@pytest.mark.parametrize("deck", [PHONE], indirect=True)
def test_a_phone_has_room_and_a_page_that_scrolls(deck: Deck) -> None:
    deck.press("pair")
    touch = deck.page.context.new_cdp_session(deck.page)

    def swipe(right: float, down: float) -> None:
        (x, y), tell = deck.at(0.2), "Input.dispatchTouchEvent"
        for i in range(11):
            point = {"x": x + right * i / 10, "y": y + down * i / 10}
            touch.send(tell, {"type": "touchMove" if i else "touchStart", "touchPoints": [point]})
        touch.send(tell, {"type": "touchEnd", "touchPoints": []})

    swipe(deck.at(0.7)[0] - deck.at(0.2)[0], 0)
    swipe(0, -60)
    deck.page.wait_for_function("scrollY > 20")
    assert deck.now() == pytest.approx(0.7 * 65.4, abs=1)
    assert deck.canvas.evaluate("one => one.width / one.clientWidth") == 2
    for width in (412, 300):
        deck.page.set_viewport_size({"width": width, "height": 900})
        deck.page.wait_for_timeout(150)
        assert deck.page.evaluate(STICKING_OUT) == []
        boxes = [one.bounding_box() for one in deck.root.locator("button").filter(visible=True).all()]
        assert len(boxes) == 3 and min(box[side] for box in boxes for side in ("width", "height")) >= 44
    box, below = deck.position.bounding_box(), deck.time.bounding_box()
    assert box["width"] > 100 and below["y"] >= box["y"] + box["height"]
    assert max(deck.canvas.evaluate(WHITE)) == pytest.approx(0.7, abs=0.03)  # drawn again for its new width


def test_values_of_a_player() -> None:
    one = Track("/x/a.mp3", 12.34567, [0.12345, 1], "One", ((1, 2.5, "Edited"),))
    told = {"path": "/x/a.mp3", "seconds": 12.346, "peaks": [0.123, 1], "name": "One", "marks": [[1, 2.5, "Edited"]]}
    assert (playing(one), playing(), player().value) == ({"tracks": [told]}, {"tracks": []}, None)
    assert [track["name"] for track in playing(one, Track("/b", 1, [], "B"))["tracks"]] == ["One", "B"]
    assert player("Nothing yet.", elem_id="x", label="Take").props["empty"] == "Nothing yet."
