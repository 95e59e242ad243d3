"""The planner at the gate: built once beside the engine, missed without harm, and counted in GPU seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_planner

import backend
import costs
import modes
import planners
from drafts import Write
from errors import EngineMissing, StudioError
from plans import Draft
from song import Generate
from sound import Take

SONG = {"prompt": "rain", "duration_s": 10, "inference_steps": 8, "seed": 5}
GONE = "The weights of the planner 1.7B could not be loaded: there is no network."


@pytest.fixture(autouse=True)
def gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's row over the tiny engine, with a planner that nobody has built yet."""
    monkeypatch.setenv("ACE_MODEL", "demo")
    monkeypatch.setenv("ACE_PLANNER", "1.7B")
    monkeypatch.setattr(backend, "_engine", tiny.engine())
    monkeypatch.setattr(backend, "_planner", None)
    monkeypatch.setattr(modes, "_told", set())


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A planner whose weights cannot be had; each attempt is noted."""
    tried: list[str] = []

    def load(row: Any, *_: Any) -> None:
        tried.append(row.key)
        raise EngineMissing(GONE, "Fetch them.")

    monkeypatch.setattr(planners, "load", load)
    return tried


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The tiny planner; what it is loaded with is noted."""
    asked: list[Any] = []

    def load(*values: Any) -> Any:
        asked.append(values)
        return tiny_planner.planner()

    monkeypatch.setattr(planners, "load", load)
    return asked


def take(folder: Path, **values: Any) -> Take:
    *_, last = modes.generate({**SONG, **values}, folder)
    return last


def test_the_planner_is_loaded_once_with_the_engines_device_and_tokenizer(found: list, tmp_path: Path) -> None:
    for _ in range(2):
        assert take(tmp_path).metadata["planner"]["name"] == "tiny"
    ((row, device, tokenizer, shares),) = found
    assert (row.key, device, shares) == ("1.7B", "cpu", False) and tokenizer is tiny.engine().pipe.tokenizer


def test_a_song_that_asks_nothing_of_the_planner_does_not_load_it(missing: list, tmp_path: Path) -> None:
    off = dict.fromkeys(("thinking", "use_cot_caption", "use_cot_metas", "use_cot_language"), False)
    assert take(tmp_path, **off).metadata["planner"] is None and missing == []


def test_a_song_is_made_without_a_missing_planner_and_that_is_said_once(missing: list, tmp_path: Path) -> None:
    first, second = (take(tmp_path).metadata for _ in range(2))
    sentence = f"Made without the planner. {GONE} Fetch them."
    assert first["warnings"] == [sentence] and second["warnings"] == []
    for told in (first, second):
        assert told["planner"] == {"missing": f"{GONE} Fetch them."}
        assert {told["inactive"][name] for name in modes.PLANNER_KNOBS} == {modes.NO_PLANNER}
    assert missing == ["1.7B"] * 2, "a failed load is not remembered"


def test_a_draft_without_the_planner_says_why(missing: list) -> None:
    with pytest.raises(StudioError, match="could not be loaded"):
        list(modes.run(modes.HANDLERS[Write], {"query": "rain"}))


def test_a_draft_is_written_through_the_gate(found: list) -> None:
    *told, draft = modes.run(modes.HANDLERS[Write], {"query": "rain", "seed": 3})
    assert isinstance(draft, Draft) and draft.seed == 3 and {event.phase for event in told} == {"Writing"}


def test_no_planner_is_looked_for_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, missing: list, tmp_path: Path
) -> None:
    monkeypatch.setenv("ACE_PLANNER", "none")
    told = take(tmp_path).metadata
    assert (told["planner"], told["warnings"], missing) == (None, [], [])
    with pytest.raises(StudioError, match=r"There is no planner here\."):
        list(modes.run(modes.HANDLERS[Write], {"query": "rain"}))


def test_a_plan_that_is_brought_needs_no_planner(found: list, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = take(tmp_path)
    monkeypatch.setenv("ACE_PLANNER", "none")
    again = take(tmp_path, plan=dict(first.metadata))
    assert Path(again.path).read_bytes() == Path(first.path).read_bytes()
    assert again.metadata["planner"] == {"chosen": [], "plan": first.metadata["planner"]["plan"]}


def seconds(**values: Any) -> int:
    return backend.gpu_seconds(Generate.parse({**SONG, "inference_steps": 80, **values}))


def test_gpu_seconds_count_the_sketch_and_a_draft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACE_GPU_MIN_S", "1")
    for length in (60, 600):
        sketch = seconds(duration_s=length) - seconds(duration_s=length, thinking=False)
        assert abs(sketch - costs.MARGIN * 5 * length * costs.COSTS["cuda"]["code_s"]) <= 1
    draft = backend.gpu_seconds(Write.parse({"query": "rain"}))
    assert costs.COLD_START_S < draft < 120


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import app

    monkeypatch.setattr(backend, "get_backend", lambda: tiny.engine())
    return app


def test_on_zero_gpu_the_planner_is_there_before_the_first_worker(ahead, found: list) -> None:
    ahead.build_ahead()
    assert len(found) == 1


def test_a_missing_planner_does_not_keep_the_page_from_starting(ahead, missing: list, caplog) -> None:
    ahead.build_ahead()
    assert missing == ["1.7B"] and GONE in caplog.text
