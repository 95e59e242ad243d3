"""What the page says of a recording at once: what it is or why it cannot be used, its length, what is marked on it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from test_ui import desk

import audio_io
import receiving
import ui
from receiving import PEAKS, on_song_to_edit, recorded, source
from turns import READ_QUEUE

EMPTY = {"seconds": 0, "peaks": [], "regions": []}
MARKS = [[0.2, 0.6], [0.8, 0.95]]


def tones(folder: Path, name: str, seconds: float = 1, rate: int = 48_000, channels: int = 2) -> str:
    """A tone that swells, as a visitor's file."""
    t = np.arange(round(seconds * rate)) / rate
    path = folder / f"{name}.wav"
    soundfile.write(path, np.stack([0.3 * t / seconds * np.sin(1382 * t)] * channels, axis=1), rate, subtype="PCM_16")
    return str(path)


@pytest.fixture
def song(tmp_path: Path) -> str:
    return tones(tmp_path, "song")


@pytest.fixture
def other(tmp_path: Path) -> str:
    return tones(tmp_path, "other", 1.5)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "The file is empty."),
    "no sound": (lambda path: path.write_bytes(b"<b>no sound</b>" * 100), ""),
    "silent": (lambda path: soundfile.write(path, np.zeros((48_000, 2)), 48_000, format="WAV"), ""),
    "too short": (lambda path: soundfile.write(path, np.full((4_800, 2), 0.1), 48_000, format="WAV"), ""),
    "a folder": (lambda path: path.mkdir(), "This is not a plain file."),
    "gone": (lambda path: None, audio_io.EXPIRED),
}


@pytest.fixture(params=BAD)
def bad(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """A recording that cannot be used, and what is said of it where that is always the same."""
    make, said = BAD[request.param]
    path = tmp_path / "secret" / "bad.wav"
    path.parent.mkdir()
    make(path)
    return str(path), said


LOOKS: dict[str, Callable[[str | None], str]] = {  # the line that each control's look gives
    "cover-reference_audio": lambda path: recorded("cover-reference_audio")(path, {}),
    "cover-source_audio": lambda path: source("cover")(path, {}, {})[0],
    "extend-source_audio": lambda path: source("extend")(path, {}, {})[0],
    "edit-source_audio": lambda path: on_song_to_edit(path, {}, {}, EMPTY)[0],
}


# The line


@pytest.mark.parametrize("control", LOOKS)
def test_of_a_good_recording_it_is_said_what_was_read(control: str, tmp_path: Path) -> None:
    look = LOOKS[control]
    told = [look(tones(tmp_path, "stereo")), look(tones(tmp_path, "mono", 62.5, 8_000, 1))]
    assert told == [
        '<p role="status" class="done">0:01.00 · WAV · 48 kHz · stereo</p>',
        '<p role="status" class="done">1:02.50 · WAV · 8 kHz · mono</p>',
    ]


@pytest.mark.parametrize("control", LOOKS)
def test_of_none_nothing_is_said(control: str) -> None:
    assert [LOOKS[control](nothing) for nothing in (None, "")] == ["", ""]


@pytest.mark.parametrize("control", LOOKS)
def test_of_a_bad_one_a_card_says_why_and_offers_another_file_for_that_very_control(
    control: str, bad: tuple[str, str]
) -> None:
    path, said = bad
    card = LOOKS[control](path)
    mode, name = control.split("-")
    assert re.findall(r"<button [^>]*>[^<]*</button>", card) == [
        f'<button type="button" data-remedy="file" data-at="{mode}" data-about="{name}">Pick another file</button>'
    ]
    assert "<b>This recording cannot be used</b>" in card
    assert said in re.search(r'<p role="alert" class="error">([^<]+)</p>', card)[1]
    assert "secret" not in card and "no sound" not in card


@pytest.mark.parametrize("control", LOOKS)
def test_a_button_of_a_card_finds_its_control_on_the_page(control: str) -> None:
    _, page = ui.build(desk("demo"), "cpu")
    drawn = {part.elem_id for tab in page.tabs for part in tab.inputs.values()}
    assert control in drawn, "the browser looks for data-at and data-about, joined"


def test_after_a_recipe_was_restored_it_is_said_whether_this_is_its_recording(song: str, other: str) -> None:
    sha = audio_io.admit(song).facts["sha256"]
    wanted = {"cover-reference_audio": {"sha256": sha}, "extend-source_audio": {"sha256": None}}
    look = recorded("cover-reference_audio")
    assert look(song, wanted).endswith(" · the one of the recipe</p>")
    assert look(other, wanted).endswith(" · not the one of the recipe, so it will be another song</p>")
    for line in (source("cover")(song, wanted, {})[0], source("extend")(song, wanted, {})[0]):
        assert line.endswith("stereo</p>"), "it is not known of other controls' recordings"


# Lengths


@pytest.mark.parametrize("mode", ["cover", "extend", "edit"])
def test_the_length_of_a_source_is_kept_by_mode_until_it_goes(mode: str, song: str, other: str, tmp_path: Path) -> None:
    def look(path: str | None, lengths: dict[str, float]) -> dict[str, float]:
        if mode == "edit":
            return on_song_to_edit(path, {}, lengths, EMPTY)[1]
        return source(mode)(path, {}, lengths)[1]

    others = {name: 7.0 for name in ("cover", "extend", "edit") if name != mode}
    one = look(song, others)
    assert one == others | {mode: 1.0}
    two = look(other, one)
    assert two == others | {mode: 1.5} and one == others | {mode: 1.0}, "another page's lengths are left alone"
    assert look(None, two) == look(str(tmp_path / "gone.wav"), two) == others


# Regions


def test_a_song_to_edit_is_drawn_with_its_waveform(song: str) -> None:
    editor = on_song_to_edit(song, {}, {}, EMPTY)[2]
    assert (editor["seconds"], editor["regions"], len(editor["peaks"])) == (1.0, [], PEAKS)
    assert max(editor["peaks"]) == 1.0 and np.corrcoef(editor["peaks"], np.arange(PEAKS))[0, 1] > 0.99, "it swells"


@pytest.mark.parametrize("marks", [MARKS, [[0.2, None]], []], ids=["marked", "half typed", "none"])
def test_what_is_marked_on_a_song_is_kept_when_the_same_song_comes_in_again(marks: list[Any], song: str) -> None:
    drawn = on_song_to_edit(song, {}, {}, EMPTY)[2]
    kept = json.loads(json.dumps(drawn | {"regions": marks}))  # as the browser gives it back after a reload
    assert on_song_to_edit(song, {}, {}, kept)[2] == drawn | {"regions": marks}
    wanted = {"edit-regions": [[0.1, 0.3]]}
    assert on_song_to_edit(song, wanted, {}, kept)[2]["regions"] == marks, "what was marked since is the visitor's"


def test_what_is_marked_on_one_song_is_not_marked_on_another(song: str, other: str) -> None:
    marked = on_song_to_edit(song, {}, {}, EMPTY)[2] | {"regions": MARKS}
    new = on_song_to_edit(other, {}, {}, marked)[2]
    assert (new["regions"], new["seconds"]) == ([], 1.5) and new["peaks"] != marked["peaks"]


def test_without_a_song_there_is_nothing_to_mark_on(song: str, bad: tuple[str, str]) -> None:
    marked = on_song_to_edit(song, {}, {}, EMPTY)[2] | {"regions": MARKS}
    for path, before in ((bad[0], marked), *((None, b) for b in (marked, EMPTY, EMPTY | {"regions": MARKS}, None))):
        assert on_song_to_edit(path, {"edit-regions": MARKS}, {}, before)[2] == EMPTY


@pytest.mark.parametrize("before", [EMPTY, EMPTY | {"regions": [[0, 9]]}, None, "", {}], ids=repr)
def test_those_of_a_restored_recipe_are_marked(before: Any, song: str, other: str) -> None:
    wanted = {"edit-regions": MARKS}
    assert on_song_to_edit(song, wanted, {}, before)[2]["regions"] == MARKS
    assert on_song_to_edit(song, {}, {}, before)[2]["regions"] == []
    marked = on_song_to_edit(other, {}, {}, EMPTY)[2] | {"regions": [[1, 1.2]]}
    assert on_song_to_edit(song, wanted, {}, marked)[2]["regions"] == MARKS, "and not those of the song before"
    assert wanted == {"edit-regions": MARKS}


# The page


def test_every_recording_of_the_song_tabs_is_looked_at_as_soon_as_it_comes_in() -> None:
    blocks, page = ui.build(desk("demo"), "cpu")
    with blocks:
        receiving.joins(page)
    told = {}
    for event in blocks.fns.values():
        ((id, trigger),) = event.targets
        told[blocks.blocks[id].elem_id] = event
        assert trigger == "change" and event.concurrency_id == READ_QUEUE["concurrency_id"]
    assert told.keys() == LOOKS.keys() == {f"{tab.mode.mode}-{name}" for tab in page.tabs for name in tab.heard}
    for name, event in told.items():
        line, *more = event.outputs
        assert line.elem_id == f"{name}-heard"
        assert (page.lengths in more) == (page.lengths in event.inputs) == name.endswith(receiving.SOURCE)
    editor = next(tab.inputs["regions"] for tab in page.tabs if tab.mode.mode == "edit")
    event = told["edit-source_audio"]
    assert [event.inputs[-1], event.outputs[-1]] == [editor, editor]
