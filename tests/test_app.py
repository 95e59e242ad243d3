"""The pieces of `app.py` without a browser: what it imports, what it builds before serving, how its events run."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny

import app
import backend
import modes
from afters import AFTERS
from drafts import DRAFTS
from making import retake
from remakes import MODES, Cover, Edit, Extend
from settings import CHECKPOINTS, ROOT, read
from song import Generate, SongRequest
from sound import Take
from visits import Shown

IMPORTS = """
import json, os, sys
import app
print(json.dumps({"modules": sorted(sys.modules), "analytics": os.environ["GRADIO_ANALYTICS_ENABLED"]}))
"""

BUTTONS = [f"on_{mode.mode}" for mode in (*MODES, *DRAFTS, *AFTERS)]
BUTTONS += ["on_describe_1", "on_describe_2", "on_writing"]  # on three tabs; all of the Lyrics tab
BESIDE = {"normalise", "export", "on_normalise", "on_export"}  # what needs no GPU


KEY = "ab" * 16


class BrokenEngine:
    """An engine whose every song fails in a way nobody foresaw."""

    pipe = tiny.engine().pipe

    def takes(self, request: Any, report: Callable[[Any], None], done: int = 0) -> Any:
        raise ZeroDivisionError("<b>not for users</b>")


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where this test's requests work; what they finish stays in `kept`."""
    monkeypatch.setenv("ACE_MODEL", "demo")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    own = replace(read(), scratch=tmp_path / "scratch")
    monkeypatch.setattr(modes, "read", lambda: own)
    return own.scratch


def kept(scratch: Path) -> list[str]:
    """The files that stay for a while."""
    return [str(path) for path in scratch.parent.glob("gradio/ace-studio/*/*")]


@pytest.fixture
def recording(tmp_path: Path) -> str:
    """A second of two tones, as a visitor's file."""
    t = np.arange(48_000) / 48_000
    path = str(tmp_path / "song.wav")
    soundfile.write(path, 0.3 * np.stack([np.sin(1382 * t), np.sin(2073 * t)], axis=1), 48_000, subtype="PCM_16")
    return path


@pytest.fixture
def empty_checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """ACE_MODEL names a folder without weights, and no engine was built yet."""
    folder = tmp_path / "half-a-download"
    folder.mkdir()
    monkeypatch.setenv("ACE_MODEL", str(folder))
    monkeypatch.setattr(backend, "_engine", None)
    return folder


def events(blocks: Any) -> dict[str, Any]:
    """Everything the page can be asked to do, by name."""
    return {event.api_name: event for event in blocks.fns.values()}


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """All that the demo's page can be asked to do."""
    monkeypatch.setenv("ACE_MODEL", "demo")
    return events(app.studio())


def press(blocks: Any, mode: type[SongRequest], **values: Any) -> Iterator[tuple[Any, ...]]:
    """What the page is told from a press of a mode's button on: status, player, download, metadata, panels, last take."""
    event = events(blocks)[f"on_{mode.mode}"]
    sent = {drawn.elem_id.removeprefix(f"{mode.mode}-"): drawn.value for drawn in event.inputs}
    assert values.keys() <= sent.keys(), "a control is not on the page"
    return event.fn(*(sent | {"prompt": "calm piano", "inference_steps": 8} | values).values())


def press_generate(blocks: Any, **values: Any) -> Iterator[tuple[Any, ...]]:
    return press(blocks, Generate, **values)


def usable(update: Any) -> bool:
    return update.interactive if hasattr(update, "interactive") else update["interactive"]


def test_importing_the_app_loads_neither_a_model_library_nor_gradio():
    env = {name: value for name, value in os.environ.items() if not name.startswith("GRADIO_")}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    assert not {"torch", "diffusers", "transformers", "gradio"} & set(told["modules"])
    assert told["analytics"] == "False"


def test_on_a_space_the_engine_is_built_before_the_first_visitor(monkeypatch: pytest.MonkeyPatch):
    done = []
    monkeypatch.setenv("ACE_MODEL", "demo")
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setattr(backend, "get_backend", lambda: done.append("engine"))
    monkeypatch.setattr(app, "serve", lambda blocks: done.append("serve"))
    app.main()
    assert done == ["engine", "serve"]


def test_on_your_machine_the_page_does_not_wait_for_the_engine(monkeypatch: pytest.MonkeyPatch):
    done = []
    monkeypatch.setenv("ACE_MODEL", "demo")
    monkeypatch.setattr(backend, "get_backend", lambda: done.append("engine"))
    monkeypatch.setattr(app, "serve", lambda blocks: done.append("serve"))
    app.main()
    assert done == ["serve"]


def test_a_space_without_weights_starts_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, empty_checkpoint: Path
):
    served = []
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setattr(app, "serve", served.append)
    app.main()
    assert "on_generate" in events(served[0])
    assert f"The checkpoint in {empty_checkpoint.name}/ is incomplete or damaged" in caplog.text


def test_a_page_without_weights_answers_generate_with_one_sentence(empty_checkpoint: Path):
    *_, (status, _, _, metadata, *_) = press_generate(app.studio())
    assert 'role="alert"' in status
    assert f"The checkpoint in {empty_checkpoint.name}/ is incomplete or damaged" in status
    assert "Fetch or copy it again." in status and "The model is not here" in status
    assert metadata == {"__type__": "update"}, "whatever was on the screen stays there"


def test_songs_share_one_place_at_the_gpu_and_recordings_are_read_elsewhere(page: dict[str, Any]):
    queued = {name: (e.concurrency_id, e.concurrency_limit) for name, e in page.items() if e.queue}
    songs = {"retake", *(mode.mode for mode in modes.PUBLIC), *BUTTONS} - BESIDE
    readers = {"on_recording", "on_source", "on_source_1", "on_song_to_edit"}  # cover has two
    readers |= {"on_drop", "on_music_box", "on_8_bit", "on_open", "restore", *BESIDE}
    # whatever else the page does must not wait behind a song
    assert queued.pop("watch_on") == ("watch", None), "coming back to a song waits for nobody"
    assert queued == dict.fromkeys(songs, ("gpu", 1)) | dict.fromkeys(readers, ("decode", 2))
    assert page.keys() > queued.keys()


def test_every_press_and_every_end_of_what_takes_a_turn_is_seen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ACE_MODEL", "demo")
    monkeypatch.setenv("ACE_PLANNER", "random:1.7B")
    page = events(app.studio())
    turns = [page[name] for name in ("retake", "watch_on", *BUTTONS)]
    pressed = {button for event in turns for button, _ in event.targets}
    (before,) = (event for event in page.values() if "running waiting" in (event.js or ""))
    assert {button for button, _ in before.targets} == pressed
    assert before._id < min(event._id for event in turns), "what the turn itself says comes later"

    def following(event: Any) -> list[Any]:
        return [other for other in page.values() if other.trigger_after == event._id]

    for event in turns:
        after = [(one, *following(one)) for one in following(event)]
        ends = [other for one in after for other in one if "Date.now()" in (other.js or "")]
        assert len(ends) == 2, "one after a success, one after a failure"


def test_only_the_endpoints_are_public(page: dict[str, Any]):
    public = {name: e.api_visibility for name, e in page.items() if e.api_visibility != "private"}
    assert public == dict.fromkeys(("restore", *(mode.mode for mode in modes.PUBLIC)), "public")


def test_all_that_makes_songs_streams(page: dict[str, Any]):
    songs = [event for name, event in page.items() if event.concurrency_id == "gpu" or name in BESIDE]
    assert len(songs) == len(BUTTONS) + 1 + len(modes.PUBLIC)
    still = [event.api_name for event in songs if not inspect.isgeneratorfunction(event.fn)]
    assert still == [], "gradio runs as a generator only what is a generator function"


def test_stop_ends_every_song_of_the_page(page: dict[str, Any]):
    (stopped,) = (event.cancels for event in page.values() if event.cancels)
    assert set(stopped) == {page[name]._id for name in ("retake", "watch_on", *BUTTONS)}


def answers(js: str) -> list[Any]:
    """Every list and dictionary that stands as JSON in a function of the browser."""
    found, at = [], 0
    while at < len(js):
        try:
            value, at = json.JSONDecoder().raw_decode(js, at) if js[at] in "[{" else (None, at + 1)
        except ValueError:
            value, at = None, at + 1
        found += [value] if value else []
    return found


@pytest.mark.parametrize("model", CHECKPOINTS)
def test_what_the_browser_does_by_itself_has_a_value_for_each_widget(monkeypatch: pytest.MonkeyPatch, model: str):
    monkeypatch.setenv("ACE_MODEL", model)
    functions = [event for event in events(app.studio()).values() if event.js]
    assert len(functions) > 10
    for event in functions:
        for answer in answers(event.js):
            one = isinstance(answer, dict) and "__type__" in answer
            by_choice = isinstance(answer, dict) and not one
            widths = [1] if one else [len(a) for a in answer.values()] if by_choice else [len(answer)]
            ends = event.js.startswith("line =>")  # the line itself comes before the list, the time after it
            assert set(widths) == {len(event.outputs) - 2 * ends}, event.js


def test_an_unforeseen_failure_reaches_the_page_as_an_incident_and_nothing_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, scratch: Path
):
    monkeypatch.setattr(backend, "_engine", BrokenEngine())
    *_, (status, *_) = press_generate(app.studio())
    assert 'role="alert"' in status
    assert "Something went wrong in the studio (incident " in status
    assert "not for users" not in status
    incident = status.partition("incident ")[2].partition(")")[0]
    assert f"incident {incident}" in caplog.text
    assert list(scratch.iterdir()) == []


REMAKES = {
    Cover: {},
    Extend: {"extra_duration_s": 5, "crossfade_s": 0.5},
    Edit: {"regions": {"seconds": 1.0, "peaks": [], "regions": [[0.2, 0.6]]}},
}


def made(running: Iterator[tuple[Any, ...]]) -> tuple[bytes, dict[str, Any], Any]:
    """File, metadata and what Retake begins from; fails with the sentence of a song that failed."""
    for status, _, _, metadata, *_, last in running:
        assert 'role="alert"' not in status, status
        if isinstance(metadata, dict) and "seed" in metadata:
            done = Path(last.take.path).read_bytes(), metadata, last
    return done


def test_what_needs_a_take_waits_for_one(page: dict[str, Any]):
    taking = ["retake", "normalise", "stems", "export"]
    quiet = [event for event in page.values() if not event.js]
    (able,) = (event for event in quiet if [widget.elem_id for widget in event.outputs] == taking)
    assert [usable(button) for button in able.fn(None)] == [False] * 4
    assert [usable(button) for button in able.fn(Shown(Generate, {}, Take("", {})))] == [True] * 4
    assert list(retake("", None, 0.5)) == []


def test_a_song_that_fails_leaves_the_last_take_to_retake(monkeypatch: pytest.MonkeyPatch, scratch: Path):
    monkeypatch.setattr(backend, "_engine", BrokenEngine())
    *_, (*_, last) = press_generate(app.studio())
    assert last == {"__type__": "update"}


@pytest.mark.parametrize("name, value", [("ACE_PORT", "seven"), ("ACE_MODEL", "no"), ("ACE_STEMS_MODEL", "no")])
def test_a_setting_that_cannot_be_used_ends_with_its_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=f"{name} must be .* '{value}'"):
        app.main()
