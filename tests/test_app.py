"""The pieces of `app.py` without a browser: what it imports, what it builds before serving, how its events run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

import app
import backend
import modes
from settings import ROOT, read

IMPORTS = """
import json, os, sys
import app
print(json.dumps({"modules": sorted(sys.modules), "analytics": os.environ["GRADIO_ANALYTICS_ENABLED"]}))
"""


class BrokenEngine:
    """An engine whose every song fails in a way nobody foresaw."""

    def sing(self, request: Any, report: Callable[[Any], None]) -> Any:
        raise ZeroDivisionError("<b>not for users</b>")


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where this test's requests work."""
    own = replace(read({"ACE_MODEL": "demo"}), scratch=tmp_path / "scratch")
    monkeypatch.setenv("ACE_MODEL", "demo")
    monkeypatch.setattr(modes, "read", lambda: own)
    return own.scratch


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


def press_generate(blocks: Any, **values: Any) -> Iterator[tuple[Any, ...]]:
    """What the page is told from a press of Generate on: (status, player, download, metadata)."""
    given = modes.defaults() | {"prompt": "calm piano", "inference_steps": 8, **values}
    return events(blocks)["on_generate"].fn(*given.values())


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
    *_, (status, _, _, metadata) = press_generate(app.studio())
    assert 'role="alert"' in status
    assert f"The checkpoint in {empty_checkpoint.name}/ is incomplete or damaged" in status
    assert "Fetch or copy it again." in status
    assert metadata is None


def test_page_and_endpoint_share_one_place_at_the_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ACE_MODEL", "demo")
    known = events(app.studio())
    singing = [known.pop("on_generate"), known.pop("generate")]
    assert {(e.concurrency_id, e.concurrency_limit, e.queue) for e in singing} == {("gpu", 1, True)}
    # whatever else the page does must not wait behind a song
    assert known and not [name for name, event in known.items() if event.queue]


def test_only_the_endpoint_is_public(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ACE_MODEL", "demo")
    known = events(app.studio())
    assert [name for name, event in known.items() if event.api_visibility != "private"] == ["generate"]
    assert known["generate"].api_visibility == "public"


def test_a_song_is_told_from_the_first_word_to_the_file(monkeypatch: pytest.MonkeyPatch, scratch: Path):
    monkeypatch.setattr(backend, "_engine", tiny.engine())
    running = press_generate(app.studio(), seed=5)
    assert "Starting" in next(running)[0]
    steps, done = [], ()
    for told in running:
        if "step" in told[0]:
            steps.append(told[0])
            assert all(update == {"__type__": "update"} for update in told[1:]), "progress redraws nothing else"
        elif isinstance(told[1], str):
            done = told
            assert Path(told[1]).is_file(), "Gradio copies the file while the handler waits"
    assert len({words.partition(" · about")[0] for words in steps}) == 9
    assert 'style="width:100.0%"' in steps[-1]
    status, player, download, metadata = done
    assert "seed 5" in status
    assert Path(player).parent.parent == scratch
    assert usable(download)
    assert metadata["seed"] == 5
    assert list(scratch.iterdir()) == []


def test_leaving_a_song_halfway_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, scratch: Path):
    monkeypatch.setattr(backend, "_engine", tiny.engine())
    blocks = app.studio()
    running = press_generate(blocks)
    while "step 2" not in next(running)[0]:
        pass
    assert len(list(scratch.iterdir())) == 1
    running.close()
    assert list(scratch.iterdir()) == []
    *_, (status, *_) = press_generate(blocks, seed=6)
    assert "seed 6" in status


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


@pytest.mark.parametrize("name, value", [("ACE_PORT", "seven"), ("ACE_MODEL", "no such model")])
def test_a_setting_that_cannot_be_used_ends_with_its_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=f"{name} must be .* '{value}'"):
        app.main()
