"""Plans and retakes brought back: the same press renders the same song, a retake keeps its plan, a hand's edit drops them.

A song is the very song again when its samples are; what was asked for it, which its file tells too, may differ.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import test_app
import tiny
import tiny_planner
from test_app import events, made, press

import app
import audio_io
import backend
import bringing
import making
import modes
import plan_panel
import saved
from errors import DiskFull
from song import Generate

one_thread, scratch = tiny_planner.one_thread, test_app.scratch
OWN = {"lyrics": "la la", "duration_s": 10, "seed": 5, "bpm": "96"}


@pytest.fixture(autouse=True)
def planned(monkeypatch: pytest.MonkeyPatch, scratch: Path) -> None:
    """The demo's page over the tiny engine and the tiny planner."""
    monkeypatch.setenv("ACE_PLANNER", "1.7B")
    monkeypatch.setattr(backend, "_engine", tiny.engine())
    monkeypatch.setattr(backend, "_planner", tiny_planner.planner())
    monkeypatch.setattr(modes, "_told", set())


def brought(metadata: dict[str, Any]) -> dict[str, Any]:
    """What "Use this plan" puts into Generate's form."""
    values = bringing.used(saved.of(metadata))
    return {name.removeprefix("generate-"): v for name, v in values.items() if name not in ("tabs", "status")}


def music(metadata: dict[str, Any]) -> str:
    """The hash of a take's samples, as its file holds them."""
    return metadata["take"]["sha256"]


def codes(metadata: dict[str, Any]) -> str:
    return metadata["planner"]["plan"]["codes"]


def test_a_used_plan_gives_the_very_song_again_and_with_another_seed_another() -> None:
    blocks = app.studio()
    _, told, _ = made(press(blocks, Generate, **OWN))
    assert len(codes(told).split()) == 50 and told["planner"]["chosen"]
    form = brought(told)
    assert "seed" not in form and (form["bpm"], form["duration_s"]) == (96, 10)
    assert form["prompt"] == told["planner"]["plan"]["caption"] != "calm piano"
    first, after, _ = made(press(blocks, Generate, **OWN | form))
    assert music(after) == music(told) and after["planner"]["chosen"] == []
    assert made(press(blocks, Generate, **OWN | form))[0] == first, "and what is asked alike is the very file"
    _, after, _ = made(press(blocks, Generate, **OWN | form | {"seed": 6}))
    assert music(after) != music(told) and codes(after) == codes(told)


def test_a_saved_plan_gives_the_very_song_again(tmp_path: Path) -> None:
    blocks, file = app.studio(), None
    for _, _, _, told, *panel, last in press(blocks, Generate, **OWN):
        if "seed" in told:
            first, file = told, Path(panel[2].value["path"])
            assert file.parent == Path(last.take.path).parent, "beside the song, and there as long as the song is"
    (tmp_path / "plan.json").write_bytes(file.read_bytes())
    found = saved.read(str(tmp_path / "plan.json"))
    assert json.loads((tmp_path / "plan.json").read_text()).keys() == {"mode", "duration_s", "plan"}
    values = bringing.used(found)
    form = {n.removeprefix("generate-"): v for n, v in values.items() if n not in ("tabs", "status")}
    assert music(made(press(blocks, Generate, **OWN | {"bpm": ""} | form))[1]) == music(first)


def test_a_retake_keeps_its_plan_and_a_new_take_gets_its_own() -> None:
    blocks = app.studio()
    first, told, last = made(press(blocks, Generate, **OWN))
    same, near, after = (made(making.retake("", last, 0)), *made(making.retake("", last, 0.5))[1:])
    assert same[0] == first and codes(near) == codes(told)
    assert "sketch_s" in told["timings"] and "sketch_s" not in near["timings"], "nothing is planned again"
    _, new, _ = made(making.retake("", after, 1))
    assert codes(new) != codes(told), "what a retake kept was not brought by the musician"


def test_a_plan_that_was_brought_stays_in_a_new_take() -> None:
    blocks = app.studio()
    _, told, _ = made(press(blocks, Generate, **OWN))
    _, _, last = made(press(blocks, Generate, **OWN | brought(told)))
    _, new, _ = made(making.retake("", last, 1))
    assert codes(new) == codes(told) and new["seed"] != told["seed"]


def test_a_retake_that_is_brought_gives_the_very_take_again_and_can_be_taken_again() -> None:
    blocks = app.studio()
    _, told, last = made(press(blocks, Generate, **OWN))
    _, turned, _ = made(making.retake("", last, 0.5))
    line = plan_panel.retaking(5, turned["retakes"])
    assert line["line"] == f"seed 5, 0.5 towards seed {turned['retakes'][0][0]}"
    form = brought(turned) | {"retakes": line}
    first, again, last = made(press(blocks, Generate, **OWN | form))
    assert music(again) == music(turned) != music(told) and again["retakes"] == turned["retakes"]
    assert made(making.retake("", last, 0))[0] == first
    _, further, _ = made(making.retake("", last, 0.25))
    assert further["retakes"][0] == turned["retakes"][0] and [turn for _, turn in further["retakes"]] == [0.5, 0.25]


def test_all_that_something_is_made_for_drops_it_and_an_example_too() -> None:
    blocks, dropping = app.studio(), {}
    for event in events(blocks).values():
        if event.js == "() => [null]":
            (brought_along,) = event.outputs
            assert {kind for _, kind in event.targets} == {"input"}, (
                "what the studio fills in by itself must not drop it"
            )
            dropping[brought_along.elem_id] = {blocks.blocks[edited].elem_id for edited, _ in event.targets}
    assert dropping == {
        "plan": {"prompt", "lyrics", "duration_s", "instrumental"},
        "cover-plan": {"cover-prompt", "cover-lyrics"},
        "extend-plan": {"extend-prompt", "extend-lyrics"},
        "edit-plan": {"edit-prompt", "edit-source_lyrics", "edit-target_lyrics"},
        **{name: {"seed"} for name in ("retakes", "cover-retakes", "extend-retakes", "edit-retakes")},
    }
    filled = ["prompt", "bpm", "keyscale", "plan"]
    examples = [event for event in events(blocks).values() if [o.elem_id for o in event.outputs] == filled]
    assert len(examples) == 4 and all(event.fn()[-1] is None for event in examples)


def test_a_full_disk_costs_the_file_of_a_plan_and_not_the_song(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = audio_io.whole

    def full(path: Path, content: memoryview) -> None:
        if path.suffix == ".json":
            raise DiskFull("The disk is full.")
        whole(path, content)

    monkeypatch.setattr(audio_io, "whole", full)
    *_, (status, player, _, _, _, use, save, *_) = press(app.studio(), Generate, **OWN)
    assert "seed 5" in status and player["tracks"]
    assert use.visible and not save.visible
