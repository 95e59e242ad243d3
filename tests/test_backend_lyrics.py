"""Lyrics at the gate and at the door: built when first asked, apart from the song model, with a stand-in that says so."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import tiny_lyricist
from tiny_lyricist import ask

import backend
import costs
import lyrics_lm
import modes
from errors import BadOutput, EngineFault, EngineMissing, KnobError, StudioError
from lyricists import LYRICISTS
from lyrics import LYRICS, Continue, Lyrics, Refine
from sections import broken
from singing import sung
from song import Generate, controls
from sound import Progress, Sheet, Written

GONE = "The weights of Qwen 2.5 7B could not be loaded: there is no network."
BRIEF = {"brief": "rain on the last train home", "structure": "verse, chorus", "seed": 7}


@pytest.fixture(autouse=True)
def gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's row without any model built, and nothing of a song may be."""
    monkeypatch.setenv("ACE_MODEL", "demo")
    monkeypatch.setattr(backend, "_lyricists", {})
    monkeypatch.setattr(backend, "_engine", None)
    monkeypatch.setattr(backend.ace_pipeline, "load", lambda *_: pytest.fail("a song model was loaded for lyrics"))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, str]]]:
    """Which rows can be had, all of them the tiny model; each attempt is noted with its device."""

    def only(*known: str, on: str = "cpu") -> list[tuple[str, str]]:
        tried: list[tuple[str, str]] = []

        def load(row: Any, device: str) -> lyrics_lm.Lyricist:
            tried.append((row.key, device))
            if row.key not in known:
                raise EngineMissing(GONE, "Fetch them.")
            return replace(tiny_lyricist.lyricist(), facts={"name": row.name, "id": row.source})

        monkeypatch.setattr(lyrics_lm, "load", load)
        monkeypatch.setattr(backend.checkpoints, "device", lambda: on)
        return tried

    return only


def written(mode: type[Lyrics] = Lyrics, **values: Any) -> Written:
    *told, last = modes.run(modes.HANDLERS[mode], {**BRIEF, **values})
    assert isinstance(last, Written) and {type(event) for event in told} == {Progress}
    return last


def test_the_model_is_by_machine_and_loaded_once_when_lyrics_are_asked(loads) -> None:
    tried = loads("smollm2")
    assert tried == []
    one, same = (written() for _ in range(2))
    assert tried == [("smollm2", "cpu")] and one.text == same.text
    assert one.metadata["model"] == {"name": "SmolLM2 135M", "id": "SmolLM2-135M-Instruct"}
    big = loads("qwen2.5-7b", on="cuda")
    assert written().metadata["model"]["id"] == "Qwen/Qwen2.5-7B-Instruct" and big == [("qwen2.5-7b", "cuda")]


def test_where_the_machines_own_cannot_be_had_the_small_one_stands_in_and_says_so(loads) -> None:
    tried = loads("smollm2", on="cuda")
    made = written().metadata
    assert made["model"]["name"] == "SmolLM2 135M"
    assert made["warnings"] == [f"SmolLM2 135M wrote these words. {GONE} Fetch them."]
    assert written().metadata["warnings"] == made["warnings"]
    assert tried == [("qwen2.5-7b", "cuda"), ("smollm2", "cuda"), ("qwen2.5-7b", "cuda")], (
        "a failed load is not remembered"
    )
    known = loads("smollm2", "qwen2.5-7b", on="cuda")
    assert written().metadata["warnings"] == [] and known == [("qwen2.5-7b", "cuda")]


def test_one_that_was_named_is_not_replaced(loads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACE_LYRICS_MODEL", "qwen2.5-7b")
    tried = loads("smollm2")
    with pytest.raises(StudioError, match="there is no network"):
        written()
    assert tried == [("qwen2.5-7b", "cpu")]


def test_without_any_the_sentence_is_that_of_the_machines_own(loads) -> None:
    loads(on="cuda")
    with pytest.raises(EngineMissing) as missing:
        written()
    assert str(missing.value) == f"{GONE} Fetch them."


def test_lyrics_cross_the_gate_as_plain_values_and_no_song_model_is_built(loads) -> None:
    loads("smollm2")
    request = ask(structure="intro, verse, chorus")
    events = list(backend.run_gpu(pickle.loads(pickle.dumps(request))))
    assert pickle.loads(pickle.dumps(events)) == events
    assert isinstance(events[-1], Sheet) and broken(events[-1].text, request.sections) == ""
    phases = list(dict.fromkeys(event.phase for event in events[:-1] if event.phase != "Starting"))
    assert phases == ["Loading the lyrics model; the first draft takes longer", "Reading the brief", "Writing"]
    assert "Loading the lyrics model; the first draft takes longer" not in {
        event.phase for event in list(backend.run_gpu(request))[:-1]
    }


def test_closing_stops_the_writing_and_the_next_song_need_not_wait(loads) -> None:
    loads("smollm2")
    events = backend.run_gpu(ask(structure=", ".join(["verse: 8"] * 12), max_new_tokens=2000))
    while not next(events).text:
        pass
    events.close()
    assert backend._lock.acquire(timeout=30)
    backend._lock.release()
    assert written().text


def test_memory_that_runs_out_gives_the_lyrics_model_back(loads, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    loads("smollm2")
    written()

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(backend, "get_backend", full)
    failure = list(backend.run_gpu(Generate.parse({"prompt": "rain"})))[-1]
    assert failure.kind == "OutOfMemory" and backend._lyricists == {}
    assert written().text


def test_out_of_memory_while_writing_is_a_sentence_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def text(self, prompt: Any, room: int) -> None:
            raise MemoryError

    lyricist = replace(tiny_lyricist.lyricist(), lm=Full())
    monkeypatch.setattr(backend, "get_lyricist", lambda: lyricist)
    with pytest.raises(StudioError) as error:
        written()
    assert str(error.value) == "These lyrics do not fit into this machine's memory. Ask for fewer lines."


def test_what_nobody_foresaw_has_an_incident(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "get_lyricist", lambda: 1 / 0)
    with pytest.raises(EngineFault, match="incident"):
        written()


def test_a_model_that_goes_in_circles_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(request: Any, report: Any) -> None:
        raise BadOutput("The lyrics model goes in circles.", "Try another seed.")

    class Stuck:
        write = staticmethod(stuck)

    monkeypatch.setattr(backend, "get_lyricist", Stuck)
    with pytest.raises(BadOutput, match="circles"):
        written()


def test_gpu_seconds_count_loading_and_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACE_GPU_MIN_S", "1")
    few, many = (backend.gpu_seconds(ask(max_new_tokens=n)) for n in (200, 1200))
    assert few > costs.COLD_START_S + costs.LYRICS_LOAD_S
    assert many - few == pytest.approx(1000 * costs.LYRICS_TOKEN_S * costs.MARGIN, abs=1)


def test_on_zero_gpu_it_is_not_built_ahead(loads, monkeypatch: pytest.MonkeyPatch) -> None:
    import app

    tried = loads("qwen2.5-7b", on="cuda")
    monkeypatch.setattr(backend, "get_backend", lambda: None)
    monkeypatch.setattr(backend, "get_planner", lambda: None)
    app.build_ahead()
    assert tried == [], "each song's worker would carry it"


# At the door


def test_the_recipe_tells_all_and_makes_it_again(loads) -> None:
    loads("smollm2")
    one = written(tone="tender", language="de", rhyme="none", temperature=0.5)
    made = dict(one.metadata)
    assert (made["mode"], made["seed"], made["tone"], made["inactive"]) == ("lyrics", 7, "tender", {})
    assert made["sections"] == [vars(section) for section in sung(one.text, "de")]
    assert {"app", "made", "timings", "warnings", "model"} <= made.keys() and not made.keys() & {"advanced", "lm"}
    again = {name: made[name] for name in controls(Lyrics)}
    assert written(**again).text == one.text


def test_a_temperature_of_0_makes_knobs_idle_and_the_recipe_says_so(loads) -> None:
    loads("smollm2")
    one, other = (written(temperature=0, seed=seed) for seed in (1, 2))
    assert one.text == other.text
    assert one.metadata["inactive"] == dict.fromkeys(
        ("top_p", "top_k", "seed"), "a temperature of 0 takes the likeliest"
    )


CHANGED = {
    "brief": "a dog that waits at the door",
    "structure": "verse, chorus, outro",
    "language": "de",
    "tone": "angry",
    "verse_lines": 4,
    "chorus_lines": 3,
    "bridge_lines": 3,
    "rhyme": "strict",
    "temperature": 1.5,
    "top_p": 0.1,
    "top_k": 1,
    "max_new_tokens": 100,
    "seed": 8,
}


@pytest.mark.parametrize("name", CHANGED)
def test_every_control_of_lyrics_changes_them(loads, name: str) -> None:
    loads("smollm2")
    assert CHANGED.keys() == controls(Lyrics).keys()
    base = {"structure": "verse, chorus, bridge"}
    assert written(**base).text != written(**{**base, name: CHANGED[name]}).text


def test_the_defaults_are_the_designs(loads) -> None:
    given = modes.defaults(Lyrics)
    assert given["seed"] == 42 and given["structure"].count(",") == 7 and given["top_k"] == 40
    assert modes.defaults(Generate)["seed"] == -1
    loads("smollm2")
    *_, made = modes.run(modes.HANDLERS[Lyrics], {"brief": "rain", "structure": "verse"})
    assert made.metadata["seed"] == 42


def test_only_drafting_has_an_endpoint() -> None:
    assert [mode for mode in LYRICS if mode in modes.PUBLIC] == [Lyrics]
    assert set(LYRICS) < set(modes.HANDLERS)


def test_refining_and_going_on_pass_the_same_door(loads) -> None:
    loads("smollm2")
    draft = written().text
    assert written(Refine, draft=draft, change="more concrete").text != draft
    assert written(Continue, draft=draft[:20]).text.startswith(draft[:20])
    with pytest.raises(KnobError, match="Change must be"):
        written(Refine, draft=draft, change="louder")


def test_the_rows_say_what_the_small_model_cannot() -> None:
    assert set(LYRICISTS["smollm2"].hints) <= controls(Lyrics).keys()
