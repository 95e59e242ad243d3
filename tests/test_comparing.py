"""Two takes side by side: all that differs is told in words that are text, and only equal takes are called equal."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import comparing
from comparing import LONG, NO_DIFFERENCE, differences, shown, table
from plans import CODE_RATE
from player import Track
from remakes import Cover, Edit, Extend
from song import Generate, SongRequest, controls, recipe
from sound import SAMPLE_RATE, AudioClip, Lora

HOSTILE = """<img src=x onerror=alert(1)></td></table>"'&amp; & <script>"""
CLIP = AudioClip(np.zeros((2, 2 * SAMPLE_RATE), np.float32), {"format": "WAV"})
OTHER = AudioClip(np.ones((2, 2 * SAMPLE_RATE), np.float32), {"format": "WAV"})
LONGER = AudioClip(np.zeros((2, 3 * SAMPLE_RATE), np.float32), {"format": "WAV"})
MEASURED = {"lufs": -14.2, "bpm": 119.8, "keyscale": "A minor"}

Made = tuple[type[SongRequest], dict[str, Any]]


def made(mode: type[SongRequest] = Generate, seconds: float = 10, measured: Any = MEASURED, **values: Any) -> Made:
    """A take's mode and metadata, as far as they are compared."""
    own = {} if mode is Generate else {"source_audio": CLIP}
    request = mode.parse({"prompt": "calm piano", "seed": 7, **own, **values})
    return mode, {**recipe(request), "audio": {"seconds": seconds}, "measured": measured}


def lora(name: str, strength: float = 0.95) -> dict[str, Any]:
    return {"lora": Lora(f"/private/{name}", name, name * 4, 1234, 8, {}), "strength": strength}


def told(one: Made, other: Made) -> list[tuple[str, str, str]]:
    return list(differences(one, other))


class Reader(HTMLParser):
    """Reads a table: its elements, and its rows with the text of each cell."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows:
            self.rows[-1][-1] += data


CHANGES: dict[str, tuple[Any, str, str]] = {  # another value, and the words for the default and for it
    "prompt": ("loud drums", "calm piano", "loud drums"),
    "lyrics": ("[verse]\nla", "", "[verse]\nla"),
    "duration_s": (12.5, "30", "12.5"),
    "instrumental": (True, "off", "on"),
    "inference_steps": (50, "27", "50"),
    "seed": (4_294_967_295, "7", "4294967295"),
    "infer_method": ("sde", "ode", "sde"),
    "use_adg": (True, "off", "on"),
    "bpm": (120, "", "120"),
    "keyscale": ("Am", "", "A minor"),
    "thinking": (False, "on", "off"),
    "lm_temperature": (0, "0.85", "0"),
    "lm_negative_prompt": ("noise", "NO USER INPUT", "noise"),
    "retakes": ([[5, 0.3], [6, 0.5]], "", "5, 0.3, 6, 0.5"),
    "loras": ([lora("warm tape"), lora("choir")], "", "warm tape × 0.95, choir × 0.95"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_control_that_differs_is_told_by_its_label_in_words_and_nothing_else_is(name: str) -> None:
    value, before, after = CHANGES[name]
    label = controls(Generate)[name].label
    assert told(made(), made(**{name: value})) == [(label, before, after)]
    assert told(made(**{name: value}), made()) == [(label, after, before)]


def test_differences_stand_in_the_order_of_the_controls_and_measures_last() -> None:
    values = {name: value for name, (value, *_) in reversed(CHANGES.items())}
    other = made(**values, seconds=12.5, measured={"lufs": -9.0, "bpm": None, "keyscale": "C major"})
    labels = [label for label, *_ in told(made(), other)]
    asked = [k.label for name, k in controls(Generate).items() if name in CHANGES]
    assert labels == [*asked, "Length", "Loudness (LUFS)", "Measured tempo", "Measured key"]


def test_what_came_of_takes_is_told_in_its_units_or_not_at_all() -> None:
    loud = made(seconds=12.345, measured={"lufs": -9.0, "bpm": 60.0, "keyscale": None})
    assert told(made(), loud) == [
        ("Length", "10 s", "12.345 s"),
        ("Loudness (LUFS)", "-14.2", "-9"),
        ("Measured tempo", "119.8", "60"),
        ("Measured key", "A minor", ""),
    ]
    for nothing in (None, {}):
        assert told(made(measured=nothing), made(measured=dict.fromkeys(MEASURED))) == []


def test_takes_of_two_modes_differ_in_their_mode_and_in_what_one_of_them_lacks() -> None:
    rows = {label: words for label, *words in told(made(), made(Extend, extra_duration_s=20))}
    assert rows["Mode"] == ["Generate", "Extend"]
    assert rows["Duration (s)"] == ["30", ""] and rows["Extra duration (s)"] == ["", "20"]
    assert rows["Song to extend"] == ["", "2.00 s"]
    assert rows.keys().isdisjoint({"Style prompt", "Seed", "Length"}), "what both have is compared"


def test_what_one_mode_lacks_and_the_other_leaves_empty_is_not_told() -> None:
    flow = {"sub_mode": "flow_edit"}
    for one, other in (
        (made(), made(Edit, **flow)),
        (made(Cover), made(Edit, **flow)),
        (made(Extend), made(Edit, **flow)),
    ):
        for rows in (told(one, other), told(other, one)):
            assert [row for row in rows if row[0] in ("Lyrics", "Regions", "Source lyrics", "Target lyrics")] == []


def test_recordings_are_told_by_their_length_and_regions_by_their_times() -> None:
    assert told(made(Cover), made(Cover, source_audio=LONGER)) == [("Song to cover", "2.00 s", "3.00 s")]
    assert told(made(Cover), made(Cover, reference_audio=CLIP)) == [("Timbre reference", "", "2.00 s")]
    one, other = (made(Edit, regions=regions) for regions in ([[0, 0.5]], [[0, 0.5], [1, 1.25]]))
    assert told(one, other) == [("Regions", "0, 0.5", "0, 0.5, 1, 1.25")]


def test_long_values_are_cut() -> None:
    fits, long = "x" * LONG, "y" * (LONG + 1)
    assert told(made(prompt=fits), made(prompt=long)) == [("Style prompt", fits, "y" * LONG + "…")]


PLAN = {"codes": [1] * (10 * CODE_RATE)}
SHEET = "la " * 60
ALIKE = {
    "the end of long lyrics": ("Lyrics", made(lyrics=SHEET + "night"), made(lyrics=SHEET + "day")),
    "the strength of a LoRA": ("LoRAs", made(loras=[lora("choir", 0.2)]), made(loras=[lora("choir", 1.5)])),
    "a recording as long": ("Song to cover", made(Cover), made(Cover, source_audio=OTHER)),
    "the codes of a plan": (
        "Plan",
        made(duration_s=10, plan=PLAN),
        made(duration_s=10, plan={"codes": [2] * (10 * CODE_RATE)}),
    ),
}


@pytest.mark.parametrize("what", ALIKE)
def test_what_differs_is_told_even_where_it_reads_alike(what: str) -> None:
    label, one, other = ALIKE[what]
    assert [row[0] for row in told(one, other)] == [label]
    assert NO_DIFFERENCE not in table(("One", *one), ("Other", *other))


# The table


@pytest.mark.parametrize("mode, values", [(Generate, {}), (Cover, {}), (Extend, {}), (Edit, {"regions": [[0, 1]]})])
def test_equal_takes_say_so(mode: type[SongRequest], values: dict[str, Any]) -> None:
    one, other = made(mode, **values), made(mode, **values)
    assert told(one, other) == []
    assert table(("One", *one), ("Other", *other)) == "<p>The same was asked of both.</p>" == f"<p>{NO_DIFFERENCE}</p>"


def test_the_table_has_a_row_for_each_difference_and_a_dash_for_nothing() -> None:
    drawn = Reader(table(("Rain", *made(bpm=90)), ("Snow", *made(use_adg=True))))
    assert drawn.rows == [["", "A Rain", "B Snow"], ["Use ADG", "off", "on"], ["BPM", "90", "–"]]


def test_names_and_values_are_text_in_the_table() -> None:
    plain = Reader(table(("Rain", *made()), ("Snow", *made(prompt="drums"))))
    drawn = Reader(table((HOSTILE, *made(prompt=HOSTILE)), (f"2{HOSTILE}", *made(loras=[lora(HOSTILE)]))))
    assert drawn.tags == plain.tags
    assert drawn.rows == [
        ["", f"A {HOSTILE}", f"B 2{HOSTILE}"],
        ["Style prompt", HOSTILE, "calm piano"],
        ["LoRAs", "–", f"{HOSTILE} × 0.95"],
    ]


def test_the_panel_shows_when_there_are_two_takes_and_only_then() -> None:
    tracks = [Track("/a.mp3", 10, [0.5], "Rain"), Track("/b.mp3", 12, [1.0], "Snow")]
    column, playing, rows = shown(tracks, "<table></table>")
    assert column.visible and rows == "<table></table>"
    assert [track["name"] for track in playing["tracks"]] == ["Rain", "Snow"]
    for few in ([], tracks[:1]):
        column, playing, rows = shown(few, "<table></table>")
        assert (column.visible, playing, rows) == (False, None, "")


def test_the_panel_is_drawn_hidden_with_a_widget_for_all_that_is_shown() -> None:
    import gradio as gr

    with gr.Blocks():
        panel = comparing.draw()
    assert len(panel.shows) == len(shown([])) and not panel.column.visible and panel.done.interactive
