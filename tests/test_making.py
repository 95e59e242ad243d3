"""A song from a press to the screen: told step by step, stopped, left alone, taken again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import test_app
import tiny
from test_app import KEY, REMAKES, events, kept, made, press, press_generate, usable

import app
import backend
from fields import fields_of
from making import retake
from remakes import MODES
from song import Generate, SongRequest
from visits import VISITS

scratch, recording = test_app.scratch, test_app.recording


def test_a_song_is_told_from_the_first_word_to_the_file(monkeypatch: pytest.MonkeyPatch, scratch: Path):
    monkeypatch.setattr(backend, "_engine", tiny.engine())
    running = press_generate(app.studio(), seed=5)
    assert "Starting" in next(running)[0]
    steps, done = [], ()
    for told in running:
        if "step" in told[0]:
            steps.append(told[0])
            assert all(update == {"__type__": "update"} for update in told[1:]), "progress redraws nothing else"
        elif told[-1] != {"__type__": "update"}:
            done = told
            assert Path(told[-1].take.path).is_file(), "the page can play it as soon as it is told"
    assert len({words.partition(" · about")[0] for words in steps}) == 9
    assert 'style="width:100.0%"' in steps[-1]
    status, player, download, metadata, *_, last = done
    assert "seed 5" in status and metadata["seed"] == 5 and metadata == last.take.metadata
    assert sorted(kept(scratch)) == sorted([last.preview.path, last.take.path]), "they stay while the page shows them"
    assert [track["path"] for track in player["tracks"]] == [last.preview.path], "what is played is small"
    assert usable(download) and download.value["path"] == last.take.path, "gradio makes no second copy of it"
    assert last.mode is Generate and last.values["seed"] == 5, "what Retake begins from"
    assert list(scratch.iterdir()) == []


def halfway(running: Iterator[Any]) -> None:
    while "step 2" not in next(running)[0]:
        pass


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_song_that_is_stopped_halfway_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, scratch: Path):
    monkeypatch.setattr(backend, "_engine", tiny.engine())
    blocks = app.studio()
    running = press_generate(blocks, key=KEY, inference_steps=80)
    halfway(running)
    assert len(list(scratch.iterdir())) == 1
    visit = VISITS.at(KEY)
    visit.stop()
    running.close()
    until(lambda: not list(scratch.iterdir()))
    assert kept(scratch) == [] and visit.takes == () and visit.making is None
    *_, (status, *_) = press_generate(blocks, seed=6)
    assert "seed 6" in status


def test_a_song_whose_line_breaks_is_there_when_the_page_comes_back(monkeypatch: pytest.MonkeyPatch, scratch: Path):
    monkeypatch.setattr(backend, "_engine", tiny.engine())
    blocks, key = app.studio(), "cd" * 16
    running = press_generate(blocks, key=key, seed=9)
    halfway(running)
    running.close()
    visit, known = VISITS.at(key), events(blocks)
    assert visit.making, "it goes on"
    line, *able = known["arrived"].fn(key)
    assert "Going on with your song" in line and not usable(able[0])
    *_, (status, *_, last) = known["watch_on"].fn(key)
    assert "seed 9" in status and last is visit.shown
    line, *able = known["arrived"].fn(key)
    assert "Your last take is ready." in line and usable(able[0]) and able[-1] is last
    assert list(known["watch_on"].fn(key)) == [], "there is nothing left to watch"
    line, *rest = known["arrived"].fn("ef" * 16)
    assert line == {"__type__": "update"} and not usable(rest[0]) and rest[-1] == line, "others see nothing of it"


@pytest.mark.parametrize("mode", MODES)
def test_retake_turns_the_take_on_the_screen_towards_a_new_seed(
    monkeypatch: pytest.MonkeyPatch, scratch: Path, recording: str, mode: type[SongRequest]
):
    monkeypatch.setattr(backend, "_engine", tiny.engine())
    values = REMAKES[mode] | {"source_audio": recording} if mode in REMAKES else {"duration_s": 10}
    first, told, last = made(press(app.studio(), mode, **values))
    assert (told["mode"], told["retakes"]) == (mode.mode, [])
    same, _, _ = made(retake("", last, 0))
    assert same == first
    near, turned, after = made(retake("", last, 0.3))
    assert near != first
    assert turned["seed"] == told["seed"] and [variance for _, variance in turned["retakes"]] == [0.3]
    _, again, _ = made(retake("", after, 0.5))
    assert again["retakes"] == [*turned["retakes"], [again["retakes"][1][0], 0.5]], "a retake of the retake"
    _, new, _ = made(retake("", after, 1))
    assert new["seed"] not in (-1, told["seed"]) and new["retakes"] == []
    own = fields_of(mode).keys() - {"retakes"}
    assert {name: new[name] for name in own} == {name: told[name] for name in own}
    assert list(scratch.iterdir()) == []
