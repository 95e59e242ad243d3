"""What the buttons say a song will take: as the request of the same values costs, and nothing where it cannot be told."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
from test_ui import desk

import ace_pipeline
import backend
import checkpoints
import costs
import estimating
import ui
from estimating import COUNTS, expected, made, pace, words
from remakes import MODES, Cover, Edit, Extend
from settings import ROOT
from song import Generate, SongRequest, codes_for, controls
from sound import SAMPLE_RATE, AudioClip, Lora, Progress, Sound
from tabs import Tab

FLOW = {"sub_mode": "flow_edit", "inference_steps": 20}
CLIPS = {seconds: AudioClip(np.zeros((2, seconds * SAMPLE_RATE), np.float32), {"format": "WAV"}) for seconds in (8, 70)}
SONGS: list[tuple[type[SongRequest], int, dict[str, Any]]] = [
    (Generate, 0, {}),
    (Generate, 0, {"duration_s": 45.5, "inference_steps": 50}),
    (Generate, 0, {"thinking": False}),
    (Generate, 0, {"guidance_scale": 1}),
    (Generate, 0, {"takes": 3}),
    (Extend, 70, {"takes": 4, "guidance_scale": 1}),
    (Cover, 8, {}),
    (Cover, 70, {"inference_steps": 80}),
    (Cover, 8, {"guidance_scale": 1}),
    (Extend, 8, {"extra_duration_s": 20}),
    (Extend, 70, {"context_s": 5}),
    (Edit, 8, {}),
    (Edit, 70, {}),
    (Edit, 8, FLOW),
    (Edit, 70, FLOW | {"n_avg": 3}),
    (Edit, 8, FLOW | {"n_min": 0.25, "n_max": 0.75}),
    (Edit, 8, FLOW | {"n_max": 0}),
]


@pytest.fixture(autouse=True)
def own_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo model on a CPU, loaded, with a planner and no song yet."""
    monkeypatch.setenv("ACE_MODEL", "demo")
    monkeypatch.setenv("ACE_PLANNER", "random:1.7B")
    monkeypatch.setattr(checkpoints, "device", lambda: "cpu")
    monkeypatch.setattr(costs, "_beliefs", {})
    monkeypatch.setattr(backend, "_engine", Timed())


def on_page(mode: type[SongRequest], **values: Any) -> dict[str, Any]:
    """What stands on the page, as far as times depend on it."""
    shown = {name: k.default for name, k in controls(mode).items() if name in COUNTS}
    return shown | {"loras": {"loras": []}} | values


def request(mode: type[SongRequest], seconds: int, **values: Any) -> SongRequest:
    """What the engine is given for the same values."""
    own = {"source_audio": CLIPS[seconds]} if seconds else {}
    own |= {"regions": [[1, 2]]} if mode is Edit else {}
    return mode.parse({"prompt": "rain", **own, **values}).heard()[0]


def row(name: str) -> dict[str, Any]:
    return {"source": {"preset": name}, "sha256": name, "name": name, "strength": 1}


@pytest.mark.parametrize("mode, seconds, values", SONGS)
def test_what_is_expected_is_what_the_request_of_the_same_values_costs(
    mode: type[SongRequest], seconds: int, values: dict[str, Any]
) -> None:
    asked, shown = request(mode, seconds, **values), on_page(mode, **values)
    assert made(mode, shown, seconds or None) == pytest.approx(asked.seconds, abs=0.05)
    cost = costs.expected(costs.Work.of(asked), "cpu", "demo")
    assert expected(mode, shown, seconds or None) == pytest.approx(cost, rel=0.01)


def test_each_lora_on_the_stack_takes_its_time() -> None:
    none, two = (
        expected(Generate, on_page(Generate, loras={"loras": rows}), None) for rows in ([], [row("a"), row("b")])
    )
    loras = [{"lora": Lora("/a", name, name, 1, 8, {})} for name in "ab"]
    cost = costs.expected(costs.Work.of(request(Generate, 0, loras=loras)), "cpu", "demo")
    assert two == pytest.approx(cost) and two > none + 2 * costs.COSTS["cpu"]["lora_s"], (
        "loaded once, heard in each step"
    )


def test_without_a_planner_nothing_is_thought_or_sketched(monkeypatch: pytest.MonkeyPatch) -> None:
    thinking, plain = (on_page(Generate, thinking=on) for on in (True, False))
    sketched, thought = (expected(Generate, shown, None) for shown in (thinking, plain))
    brought = expected(Generate, thinking | {"plan": {"plan": {"codes": "1 2"}}}, None)
    monkeypatch.setenv("ACE_PLANNER", "none")
    bare = expected(Generate, thinking, None)
    assert sketched > thought == brought == pytest.approx(bare + costs.COSTS["cpu"]["thought_s"])
    assert expected(Generate, plain, None) == bare


def test_times_are_of_this_machine_and_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on_page(Generate)
    here = expected(Generate, shown, None)
    costs.learn(costs.Work(27, 30), "cpu", "demo", {"denoise_s": 1_000})
    assert expected(Generate, shown, None) > 5 * here
    monkeypatch.setattr(checkpoints, "device", lambda: "cuda")
    there = expected(Generate, shown, None)
    monkeypatch.setenv("ACE_MODEL", "xl-turbo")
    assert (
        there == expected(Generate, shown, None) == costs.expected(costs.Work.of(request(Generate, 0)), "cuda", "any")
    )


def test_a_model_that_has_to_be_loaded_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    cost, loaded = costs.COSTS["cpu"], expected(Generate, on_page(Generate), None)
    monkeypatch.setattr(backend, "_engine", None)
    assert pace()["cold"] == 1
    both = cost["load_s"] + cost["planner_load_s"]
    assert expected(Generate, on_page(Generate), None) == pytest.approx(loaded + both)
    monkeypatch.setenv("ACE_PLANNER", "none")
    alone = loaded - cost["thought_s"] - codes_for(30) * cost["code_s"]
    assert expected(Generate, on_page(Generate), None) == pytest.approx(alone + cost["load_s"])


class Timed:
    """An engine that says how long its songs took."""

    def takes(self, request: Any, report: Callable[[Progress], None], done: int = 0) -> Iterator[Sound]:
        yield Sound(np.zeros((2, 4), np.float32), SAMPLE_RATE, self.timings, {"key": "fake"})

    timings: ClassVar = {"conditioning_s": 0.0, "denoise_s": 30.0, "decode_s": 10.0, "per_step_s": 1.0, "total_s": 40.0}


@pytest.mark.parametrize("planner", ["none", "random:1.7B"])
def test_after_a_song_the_same_song_is_expected_to_take_as_long(planner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = request(Generate, 0, plan={"bpm": 90}, thinking=False)
    shown = on_page(Generate, plan={"bpm": 90}, thinking=False)
    monkeypatch.setenv("ACE_PLANNER", planner)
    for _ in range(3):
        assert isinstance(list(backend.answer(made))[-1], Sound)
    thought = costs.COSTS["cpu"]["thought_s"] if planner != "none" else 0
    assert expected(Generate, shown, None) == pytest.approx(40 + thought, rel=0.05)


def test_from_the_song_that_loaded_the_model_nothing_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    before = expected(Generate, on_page(Generate), None)
    monkeypatch.setattr(backend, "_engine", None)
    monkeypatch.setattr(ace_pipeline, "load", lambda *_: Timed())
    monkeypatch.setenv("ACE_PLANNER", "none")
    made = request(Generate, 0)
    assert isinstance(list(backend.answer(made))[-1], Sound) and backend.loaded() and not costs._beliefs
    assert isinstance(list(backend.answer(made))[-1], Sound) and costs._beliefs
    monkeypatch.setenv("ACE_PLANNER", "random:1.7B")
    assert expected(Generate, on_page(Generate), None) != before


# What cannot be told

NEEDED = {
    Generate: ["duration_s"],
    Cover: [],
    Extend: ["context_s", "extra_duration_s"],
    Edit: ["n_min", "n_max", "n_avg"],
}


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_box_or_a_missing_source_leaves_the_time_untold(mode: type[SongRequest]) -> None:
    shown = on_page(mode, **(FLOW if mode is Edit else {}))
    assert expected(mode, shown, 8.0) > 0
    for name in ("inference_steps", "guidance_scale", *NEEDED[mode]):
        assert expected(mode, shown | {name: None}, 8.0) is None, name
    assert (expected(mode, shown, None) is None) == (mode is not Generate)
    if mode is Edit:
        repaint = shown | dict.fromkeys(NEEDED[Edit]) | {"sub_mode": "repaint"}
        assert expected(Edit, repaint, 8.0) > 0 and expected(Edit, repaint, None) is None


# The buttons, as Python says them and as the browser does


Button = tuple[Tab, dict[str, Any], dict[str, float]]  # with the values on the page and the lengths of recordings


@pytest.fixture
def browser() -> Callable[[list[Button]], list[str]]:
    """What the browser says on buttons."""
    node = shutil.which("node")
    if not node:
        pytest.skip("no JavaScript without a browser here")
    script = f"globalThis.window = {{studio: {{}}}};{(ROOT / 'assets' / 'estimates.js').read_text(encoding='utf-8')};"

    def says(buttons: list[Button]) -> list[str]:
        given = []
        for t, shown, n in buttons:
            places = {name: place for place, name in enumerate(shown)}
            given.append([[[t.mode.mode, t.action, places]], [*shown.values(), n, pace()]])
        asked = f"{script}console.log(JSON.stringify({json.dumps(given)}.flatMap(told => window.studio.time(...told))))"
        run = subprocess.run([node, "-e", asked], capture_output=True, text=True, check=True, timeout=60)
        return json.loads(run.stdout)

    return says


@pytest.mark.parametrize("loaded", [True, False])
@pytest.mark.parametrize("planner", ["none", "random:1.7B"])
def test_the_browser_says_what_python_says(
    planner: str, loaded: bool, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACE_PLANNER", planner)
    costs.learn(costs.Work(27, 30), "cpu", "demo", {"denoise_s": 31.7, "decode_s": 2.3})
    monkeypatch.setattr(backend, "_engine", Timed() if loaded else None)
    buttons, said = [], []
    for mode, seconds, values in SONGS:
        tab, shown = Tab(mode, "Title", "Make it"), on_page(mode, **values) | {"loras": {"loras": [row("a")]}}
        buttons.append((tab, shown, {other.mode: 600.0 for other in MODES} | {mode.mode: float(seconds)}))
        said.append(words(tab, shown, float(seconds)))
        assert said[-1] == f"Make it · {costs.about(expected(mode, shown, seconds))}"
    assert browser(buttons) == said and len(set(said)) > 4


def test_a_timbre_reference_is_listened_to(browser: Any) -> None:
    both = costs.Work.of(request(Cover, 8, reference_audio=CLIPS[8]))
    shown = on_page(Cover) | {"reference_audio": {"path": "a.wav"}}
    told, without = (expected(Cover, values, 8.0) for values in (shown, on_page(Cover)))
    assert told == pytest.approx(costs.expected(both, "cpu", "demo"), rel=0.01) and told > without + 5
    tab = Tab(Cover, "Title", "Make it")
    assert browser([(tab, shown, {"cover": 8.0})]) == [f"Make it · {costs.about(told)}"]


@pytest.mark.parametrize("mode", MODES)
def test_where_it_cannot_be_told_a_button_says_only_what_it_does(mode: type[SongRequest], browser: Any) -> None:
    tab, shown = Tab(mode, "Title", "Make it"), on_page(mode, **(FLOW if mode is Edit else {}))
    empty = {name: shown | {name: None} for name in ("inference_steps", *NEEDED[mode], "guidance_scale")}
    assert {words(tab, values, 8.0) for values in empty.values()} == {"Make it"}
    others = {other.mode: 8.0 for other in MODES if other is not mode}
    if mode is not Generate:
        assert [words(tab, shown), *browser([(tab, shown, others)])] == ["Make it"] * 2, "of other tabs' songs"
    said = browser([(tab, values, others | {mode.mode: 8.0}) for values in empty.values()])
    assert dict(zip(empty, said, strict=True)) == dict.fromkeys(empty, "Make it")


@pytest.mark.parametrize("seconds", [0, 9.2, 60, 89.9, 149, 150, 151])
def test_both_put_a_time_into_the_same_words(seconds: float, browser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tab, shown = Tab(Generate, "Title", "Make it"), on_page(Generate)
    exact = dict.fromkeys(pace(), 0.0) | {"decode_s_per_s": seconds / shown["duration_s"]}
    monkeypatch.setattr(costs, "expected", lambda *_: seconds)
    monkeypatch.setattr(costs, "told", lambda *_: exact)
    assert [words(tab, shown)] == browser([(tab, shown, {})])


def test_on_a_fresh_page_generate_has_its_time_and_what_lacks_its_song_has_not() -> None:
    blocks, page = ui.build(desk("demo"), "cpu")
    with blocks:
        estimating.joins(page, blocks)
    first, *others = page.tabs
    assert first.button.value == f"Generate · {costs.about(expected(Generate, on_page(Generate), None))}"
    assert [tab.button.value for tab in others] == [tab.action for tab in others]
    assert page.pace.value == pace()
    (event,) = (event for event in blocks.fns.values() if event.outputs == [tab.button for tab in page.tabs])
    assert {id for id, _ in event.targets} == {part._id for part in event.inputs}, "whatever counts is heard"
    assert event.inputs[-2:] == [page.lengths, page.pace]
    told = json.loads(event.js.partition("time(")[2].rpartition(", values)")[0])
    assert [(mode, action) for mode, action, _ in told] == [(tab.mode.mode, tab.action) for tab in page.tabs]
    for tab, (*_, places) in zip(page.tabs, told, strict=True):
        parts = {name: page.inputs(tab)[name] for name in COUNTS if name in page.inputs(tab)}
        assert {name: event.inputs[place] for name, place in places.items()} == parts
