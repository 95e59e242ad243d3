"""The status line as text that is never markup: how far a song is, and cards whose buttons do what the browser can do."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

import pytest

import cards
from errors import BY_NAME, InputError, KnobError, StudioError, TextError, WaitError
from remakes import MODES
from settings import ROOT
from song import controls
from sound import Progress

HOSTILE = """<img src=x onerror=alert(1)></p></div><button data-remedy="go">"'&amp; & <script>"""
TABS = [mode.mode for mode in MODES]
MENDING = (ROOT / "assets" / "remedies.js").read_text(encoding="utf-8")
BUTTONS = {  # without a control; a song can be made shorter on some tabs alone
    "AudioError": ["file"],
    "LoraError": ["lora"],
    "QuotaError": ["shorten", "steps"],
    "GpuBusy": ["again"],
    "GpuAborted": ["steps", "shorten"],
    "OutOfMemory": ["shorten"],
    "BadOutput": ["seed"],
    "EngineRefused": ["lora"],
    "EngineFault": ["again"],
}


@dataclass
class Part:
    """An element: its attributes, and the text in it."""

    tag: str
    has: dict[str, str | None]
    text: str = ""


@dataclass
class Reader(HTMLParser):
    """Reads a status line as a browser does."""

    parts: list[Part] = field(default_factory=list)
    opened: list[Part] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.parts.append(Part(tag, dict(attrs)))
        self.opened.append(self.parts[-1])

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for part in self.opened:
            part.text += data


def read(line: str) -> list[Part]:
    """The elements of a line; fails when one of them is left open."""
    reader = Reader()
    reader.feed(line)
    reader.close()
    assert reader.opened == []
    return reader.parts


def only(parts: list[Part], tag: str) -> Part:
    (part,) = (part for part in parts if part.tag == tag)
    return part


def buttons(error: StudioError, at: str) -> list[str]:
    return [part.has["data-remedy"] for part in read(cards.refusal(error, at)) if part.tag == "button"]


def about(error: StudioError, control: str) -> StudioError:
    error.control = control
    return error


# Text, never markup


@pytest.mark.parametrize("kind", BY_NAME)
@pytest.mark.parametrize("at", ["", "generate", "extend", cards.DROPPED, HOSTILE])
def test_whatever_stands_in_an_error_is_shown_as_text(kind: str, at: str) -> None:
    error = about(BY_NAME[kind](HOSTILE, f"Try {HOSTILE}"), HOSTILE)
    parts = read(cards.refusal(error, at))
    assert {part.tag for part in parts} <= {"div", "span", "b", "i", "p", "button"}
    assert only(parts, "p").text == str(error)
    for part in parts:
        if part.tag == "button":
            remedy = part.has["data-remedy"]
            said = error.message if remedy == "lora" else HOSTILE
            assert part.has == {"type": "button", "data-remedy": remedy, "data-at": at, "data-about": said}
            assert part.text == cards.REMEDIES[remedy]


@pytest.mark.parametrize("line", [cards.status(HOSTILE), cards.progress(Progress(HOSTILE, 1, 2))])
def test_whatever_a_status_line_says_is_text(line: str) -> None:
    parts = read(line)
    assert {part.tag for part in parts} <= {"p", "div"} and only(parts, "p").text.startswith(HOSTILE)


# Cards


@pytest.mark.parametrize("kind", BY_NAME)
def test_every_error_has_a_title_and_says_whose_it_is(kind: str) -> None:
    cls = BY_NAME[kind]
    parts = read(cards.refusal(cls("It is so.", "Do this."), "generate"))
    whose = "yours to change" if issubclass(cls, InputError) else "ours, not yours"
    assert only(parts, "i").text == ("wait" if issubclass(cls, WaitError) else whose)
    near = next(known for known in cls.__mro__ if known in cards.TITLES)
    assert only(parts, "b").text == cards.TITLES[near] != ""
    alerts = [part for part in parts if part.has.get("role") == "alert"]
    assert [(part.tag, part.has["class"], part.text) for part in alerts] == [("p", "error", "It is so. Do this.")]
    assert [part.tag for part in parts].count("p") == 1


def test_a_title_is_of_the_nearest_class() -> None:
    titles = {kind: only(read(cards.refusal(BY_NAME[kind]("So."))), "b").text for kind in BY_NAME}
    assert titles["DiskFull"] == "The disk is full" != titles["ExportError"] == "No file was made"
    assert titles["OutOfMemory"] == "Not enough memory" != titles["EngineError"] == "The model failed"
    assert titles["Stopped"] == titles["StudioError"] == "This did not work"
    assert len(set(titles.values())) == len(BY_NAME) - 1


# Buttons


@pytest.mark.parametrize("at", TABS)
@pytest.mark.parametrize("kind", BY_NAME)
def test_each_error_has_the_buttons_that_mend_it_on_its_tab(kind: str, at: str) -> None:
    able = [remedy for remedy in BUTTONS.get(kind, []) if remedy != "shorten" or at in ("generate", "extend")]
    assert buttons(BY_NAME[kind]("It is so."), at) == able
    line = cards.refusal(BY_NAME[kind]("It is so."), at)
    assert ('class="acts"' in line) == bool(able), "no empty row of buttons"
    held = about(BY_NAME[kind]("It is so."), "bpm")
    assert buttons(held, at) == (["go"] if isinstance(held, KnobError | TextError) else able)


@pytest.mark.parametrize("kind", BY_NAME)
def test_where_no_tab_is_meant_there_is_nothing_to_press(kind: str) -> None:
    assert buttons(about(BY_NAME[kind]("It is so."), "bpm"), "") == []


@pytest.mark.parametrize("kind", ["LoraError", "KnobError", "EngineMissing"])
def test_what_was_dropped_in_vain_is_picked_anew(kind: str) -> None:
    assert buttons(about(BY_NAME[kind]("It is so."), "loras"), cards.DROPPED) == ["file"]


def test_a_button_knows_the_control_or_the_lora_it_is_about() -> None:
    def told(error: StudioError) -> tuple[str | None, str | None]:
        button = only(read(cards.refusal(error, "cover")), "button").has
        return button["data-at"], button["data-about"]

    assert told(about(BY_NAME["AudioError"]("Too short."), "reference_audio")) == ("cover", "reference_audio")
    assert told(about(KnobError("BPM must be a number."), "bpm")) == ("cover", "bpm")
    refused = BY_NAME["EngineRefused"]("warm tape has no effect.", "Take it off.")
    assert told(refused) == ("cover", "warm tape has no effect."), "the browser looks for its name in there"


# What the browser does


def test_every_button_does_something_in_the_browser_and_nothing_there_is_without_a_button() -> None:
    mends = MENDING[MENDING.index("const mends = {") :].partition("\n    };")[0]
    assert set(re.findall(r"^ {8}(\w+): \(", mends, re.MULTILINE)) == cards.REMEDIES.keys()
    shown = {remedy for able in cards.MENDS.values() for remedy in able} | {"go"}
    assert shown == cards.REMEDIES.keys()


def test_the_browser_lowers_controls_no_further_than_they_go() -> None:
    written = re.search(r"const LOWEST = \{(.*?)\};", MENDING)[1]
    lowest = {name: float(low) for name, low in re.findall(r"'?([\w-]+)'?: (\d+)", written)}
    own = {mode.mode: controls(mode) for mode in MODES}
    expected = {"inference_steps": own["generate"]["inference_steps"].low}
    for mode, name in cards.SHORTENED.items():
        expected[name if mode == "generate" else f"{mode}-{name}"] = own[mode][name].low
    assert lowest == expected and len(expected) == 3


# How far a song is


@pytest.mark.parametrize(
    ("event", "words", "share"),
    [
        (Progress("Loading the model"), "Loading the model", None),
        (Progress("Denoising", 3, 12, 4.2), "Denoising · step 3 of 12 · about 5 s left", "25.0%"),
        (Progress("Denoising", 0, 8), "Denoising · step 0 of 8", "0.0%"),
        (Progress("Denoising", 8, 8, 0.0), "Denoising · step 8 of 8 · about 0 s left", "100.0%"),
        (Progress("Decoding", left_s=2), "Decoding · about 2 s left", None),
        (Progress("Writing", 1, 3, text="[verse]\nla"), "Writing · step 1 of 3", "33.3%"),
        (
            Progress("Denoising", 9, 24, 2, take=2, takes=3),
            "Denoising, take 2 of 3 · step 9 of 24 · about 2 s left",
            "37.5%",
        ),
    ],
)
def test_progress_tells_its_step_its_share_and_the_time_left(event: Progress, words: str, share: str | None) -> None:
    line, *bar = read(cards.progress(event))
    assert (line.tag, line.has, line.text) == ("p", {"role": "status", "class": "running"}, words)
    shown = [part.has.get("style") for part in bar if part.has["class"] == "bar"]
    assert shown == ([] if share is None else [f"width:{share}"]) and len(bar) == 2 * len(shown)


def test_a_running_song_knows_what_to_say_if_it_is_stopped() -> None:
    said = {kept: cards.stopped(kept, 3) for kept in (1, 2)}
    assert said == {1: "Stopped. 1 of 3 takes was kept.", 2: "Stopped. 2 of 3 takes were kept."}
    for line in (cards.progress(Progress("Decoding"), HOSTILE), cards.status("So.", "running", if_stopped=HOSTILE)):
        assert only(read(line), "p").has["data-stopped"] == HOSTILE
    assert "data-stopped" not in cards.progress(Progress("Decoding"))


def test_a_line_is_an_alert_only_when_something_went_wrong() -> None:
    roles = {kind: only(read(cards.status("So.", kind)), "p").has["role"] for kind in ("done", "running", "error")}
    assert roles == {"done": "status", "running": "status", "error": "alert"}
    assert only(read(cards.status("So.")), "p").has["class"] == "done"
