"""The take on the screen and the list of takes: what a wish from the list changes, of the visit and of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import test_app
import tiny
from test_app import events, made, press

import app
import backend
import keeping
from remakes import Edit, Extend
from song import Generate, SongRequest
from takes_panel import listed
from visits import VISITS, Visit

scratch, recording = test_app.scratch, test_app.recording
MARKUP = "<img src=x onerror=window.x=1>"
SKIP = {"__type__": "update"}


@pytest.fixture
def visit(monkeypatch: pytest.MonkeyPatch, scratch: Path) -> Visit:
    """A visit with two songs; `key` finds it again."""
    monkeypatch.setattr(backend, "_engine", tiny.engine())
    monkeypatch.setattr(VISITS, "_known", type(VISITS._known)())
    blocks = app.studio()
    for seed, prompt in ((1, "calm piano"), (2, MARKUP)):
        made(press(blocks, Generate, key=test_app.KEY, seed=seed, prompt=prompt, lyrics="[verse]\nla", bpm=90 + seed))
    return VISITS.at(test_app.KEY)


def wish(verb: str, id: str, text: str = "") -> dict[str, Any]:
    """The list's value when a visitor wants something."""
    return {**listed([]), "wish": {"verb": verb, "id": id, "text": text, "nonce": 1}}


def grant(visit: Visit, verb: str, id: str, text: str = "", **words: str) -> dict[str, Any]:
    boxes = {f"{mode.mode}-{name}": "" for mode, named in keeping.SENDS.items() for name in named}
    return keeping.granted(visit, wish(verb, id, text), boxes | words)


def shown(visit: Visit) -> tuple[Any, ...]:
    """Player, download, metadata, list, the take itself: what the screen shows."""
    player, download, metadata, *_, takes, column, pair, table, last = keeping.screen(visit)
    return player, download, metadata, takes, (column.visible, pair, table), last


def test_a_new_take_is_on_the_screen_and_first_in_the_list(visit: Visit) -> None:
    player, download, metadata, takes, _, last = shown(visit)
    assert [row["name"] for row in takes["rows"]] == [take.name for take in visit.takes]
    assert [row["what"] for row in takes["rows"]] == ["Generate · 0:10"] * 2 and takes["on"] == visit.takes[0].id
    assert last is visit.takes[0] and metadata["seed"] == 2 and download.value["path"] == last.take.path
    assert [track["name"] for track in player["tracks"]] == [last.name] and player["tracks"][0]["marks"] == []


def test_a_take_is_shown_again_with_all_that_belongs_to_it(visit: Visit) -> None:
    old = visit.takes[1]
    assert grant(visit, "show", old.id) == {}
    player, download, metadata, takes, _, last = shown(visit)
    assert last is old and metadata["seed"] == 1 and takes["on"] == old.id
    assert download.value["path"] == old.take.path and player["tracks"][0]["path"] == old.preview.path


def test_a_take_is_renamed_and_starred_and_never_nameless(visit: Visit) -> None:
    id = visit.takes[1].id
    grant(visit, "rename", id, f"  {MARKUP}{'x' * 10_000} ")
    grant(visit, "star", id)
    assert visit.find(id).name == (MARKUP + "x" * 100)[: keeping.NAME_LIMIT] and visit.find(id).starred
    grant(visit, "rename", id, "   ")
    grant(visit, "star", id)
    assert visit.find(id).name and not visit.find(id).starred


def test_two_takes_are_compared_by_ear_and_by_what_was_asked(visit: Visit) -> None:
    one, other = visit.takes
    assert shown(visit)[4] == (False, None, "")
    grant(visit, "compare", one.id)
    assert shown(visit)[4][0] is False, "one is no pair"
    grant(visit, "compare", other.id)
    visible, pair, table = shown(visit)[4]
    assert visible and [track["name"] for track in pair["tracks"]] == [one.name, other.name]
    assert "BPM" in table and "92" in table and "91" in table and "Duration" not in table
    assert "<img" not in table


def test_a_deleted_take_is_gone_and_another_comes_on_the_screen(visit: Visit) -> None:
    first, second = visit.takes
    told = grant(visit, "delete", first.id)
    assert "is deleted" in told["status"] and "<img" not in told["status"]
    assert visit.takes == (second,) and shown(visit)[-1] is second
    grant(visit, "delete", second.id)
    player, download, metadata, takes, _, last = shown(visit)
    assert (player, metadata, last) == (None, None, None) and not download.interactive and takes["rows"] == []


@pytest.mark.parametrize("mode", keeping.SENDS)
def test_a_take_is_sent_on_with_its_words_where_there_are_none(visit: Visit, mode: type[SongRequest]) -> None:
    take, at = visit.takes[1], mode.mode
    told = grant(visit, at, take.id)
    assert told.pop(f"{at}-source_audio") == take.take.path and told.pop("tabs").selected == f"{at}-tab"
    assert f"{take.name} stands in {mode.__name__} now." in told.pop("status")
    own = {"prompt": "calm piano", "lyrics": "[verse]\nla"}
    assert told == {f"{at}-{box}": own[name] for box, name in keeping.SENDS[mode].items()}
    kept = {f"{at}-{box}": "mine" for box in keeping.SENDS[mode]}
    assert not grant(visit, at, take.id, **kept).keys() & kept.keys(), "what a visitor wrote stays"


@pytest.mark.parametrize("value", [None, {}, wish("sing", "1"), wish("show", "no such take"), wish("delete", "")])
def test_what_is_no_wish_changes_nothing(visit: Visit, value: Any) -> None:
    before = visit.takes, visit.on, visit.pair
    assert keeping.granted(visit, value, {}) == {} and before == (visit.takes, visit.on, visit.pair)


def test_the_page_grants_wishes_of_the_visit_alone(visit: Visit) -> None:
    event = events(app.studio())["on_wish"]
    words = [""] * (len(event.inputs) - 2)
    told = event.fn(test_app.KEY, wish("delete", visit.takes[0].id), *words)
    assert len(told) == len(event.outputs) and len(visit.takes) == 1
    event.fn("cd" * 16, wish("delete", visit.takes[0].id), *words)
    assert len(visit.takes) == 1, "another visitor cannot"
    told = event.fn(test_app.KEY, wish("delete", visit.takes[0].id), *words)
    assert {"__type__": "update", "interactive": False} in told, "nothing can be made of no take"
    assert len(event.fn(test_app.KEY, wish("show", "gone"), *words)) == len(event.outputs)


def test_comparing_ends(visit: Visit) -> None:
    visit.pair = tuple(take.id for take in visit.takes)
    events(app.studio())["on_done"].fn(test_app.KEY)
    assert visit.pair == ()


@pytest.mark.parametrize(
    "mode, values, marks",
    [
        (Extend, {"extra_duration_s": 5, "crossfade_s": 0.5}, [[0.5, 6.0, "new"]]),
        (Edit, {"regions": {"seconds": 1.0, "peaks": [], "regions": [[0.2, 0.6]]}}, [[0.2, 0.6, "edited"]]),
    ],
)
def test_what_is_new_in_a_remake_is_marked_in_its_waveform(
    monkeypatch: pytest.MonkeyPatch, scratch: Path, recording: str, mode: type[SongRequest], values: Any, marks: Any
) -> None:
    monkeypatch.setattr(backend, "_engine", tiny.engine())
    *_, last = made(press(app.studio(), mode, source_audio=recording, **values))
    assert [list(mark) for mark in keeping.track(last).marks] == [pytest.approx(mark) for mark in marks]
