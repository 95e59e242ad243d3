"""The planner as programs meet it: planned songs, saved plans, drafts. The demo checkpoint with the tiny planner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import served
import soundfile
import tiny_planner
from gradio_client import Client, handle_file
from test_api import PATIENCE_S

from plans import CODE_COUNT, Draft
from song import Generate

SONG = {"prompt": "slow piano", "lyrics": "la la", "duration_s": 10, "inference_steps": 8, "seed": 7}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[served.Served]:
    folder = tmp_path_factory.mktemp("planned")
    with served.studio(folder, ACE_PLANNER=str(tiny_planner.saved(folder / "tiny", CODE_COUNT))) as running:
        yield running


def make(client: Client, mode: str = "generate", **values: Any) -> tuple[bytes, dict[str, Any]]:
    path, metadata = client.submit(**{**SONG, **values}, api_name=f"/{mode}").result(timeout=PATIENCE_S)
    return Path(path).read_bytes(), metadata


@pytest.fixture(scope="module")
def planned(client: Client) -> tuple[bytes, dict[str, Any]]:
    return make(client)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("recordings") / "song.wav"
    t = np.arange(3 * 48_000) / 48_000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 220 * t) * (t % 0.5 < 0.25), 48_000)
    return handle_file(path)


def test_a_song_tells_its_plan_and_what_the_planner_chose(planned) -> None:
    told = planned[1]["planner"]
    assert told["name"] == "tiny" and "missing" not in told
    assert set(told["chosen"]) == {"bpm", "caption", "codes", "keyscale", "timesignature", "vocal_language"}
    assert len(told["plan"]["codes"].split()) == 50 and 30 <= told["plan"]["bpm"] <= 300
    assert planned[1]["inactive"] == {} and planned[1]["prompt"] == "slow piano"
    assert {"thought_s", "sketch_s"} <= planned[1]["timings"].keys()
    assert not [w for w in planned[1]["warnings"] if "planner" in w]


def test_a_saved_plan_gives_the_very_song_again(client: Client, planned) -> None:
    wav, metadata = planned
    for saved in (metadata["planner"]["plan"], metadata):
        again, told = make(client, plan=saved)
        assert (
            again == wav and told["planner"]["chosen"] == [] and told["planner"]["plan"] == metadata["planner"]["plan"]
        )


def test_the_same_seed_is_the_same_song_and_thinking_off_another(client: Client, planned) -> None:
    assert make(client)[0] == planned[0]
    plain, told = make(client, thinking=False)
    assert plain != planned[0] and "codes" not in told["planner"]["chosen"]
    assert set(told["inactive"]) == {"lm_cfg_scale", "lm_negative_prompt"}


def test_what_the_user_gave_is_in_the_plan_as_given(client: Client) -> None:
    own = {"bpm": 96, "keyscale": "F# minor", "timesignature": "3", "vocal_language": "fr"}
    _, told = make(client, **own)
    assert set(told["planner"]["chosen"]) == {"caption", "codes"}
    assert {name: told["advanced"][name] for name in own} == own


def test_a_remake_is_thought_about_but_not_sketched(client: Client, recording) -> None:
    own = {"source_audio": recording, "prompt": "brass band", "inference_steps": 8, "seed": 3}
    path, told = client.submit(**own, api_name="/cover").result(timeout=PATIENCE_S)
    assert soundfile.info(path).duration == 3
    assert "caption" in told["planner"]["chosen"] and told["planner"]["plan"]["codes"] == ""
    assert told["inactive"]["thinking"] == "the song takes the place of a sketch"


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({"plan": {"bpm": 900}}, "Plan must be a saved plan; its bpm cannot be used."),
        ({"plan": {"codes": "1 2 3"}}, "Plan holds 3 codes, 0.6 s of song; a duration of 10 s takes 50."),
        ({"plan": {"codes": "1 64000"}}, "Plan must be a saved plan; its codes cannot be used."),
        ({"lm_temperature": 3}, "LM temperature must be a number from 0 to 2; it is 3."),
    ],
    ids=str,
)
def test_bad_plans_are_refused_in_one_sentence(client: Client, values: dict, sentence: str) -> None:
    assert refused(client, "generate", {**SONG, **values}) == sentence


def refused(client: Client, mode: str, values: dict[str, Any]) -> str:
    with pytest.raises(ValueError) as error:
        client.predict(**values, api_name=f"/{mode}")
    return str(error.value)


def ask(client: Client, mode: str, **values: Any) -> dict[str, Any]:
    return client.submit(**values, api_name=f"/{mode}").result(timeout=PATIENCE_S)


def test_a_line_becomes_a_song_that_can_be_made(client: Client) -> None:
    draft = ask(client, "write", query="a sad song about rain", seed=5, vocal_language="fr")
    assert draft == ask(client, "write", query="a sad song about rain", seed=5, vocal_language="fr")
    assert draft != ask(client, "write", query="a sad song about rain", seed=6, vocal_language="fr")
    assert draft["vocal_language"] == "fr" and draft["seed"] == 5 and draft["prompt"] and draft["lyrics"]
    read = Draft.model_validate(draft)
    own = {n: draft[n] for n in ("prompt", "lyrics", "duration_s", "instrumental", "bpm", "keyscale", "timesignature")}
    assert Generate.parse({**own, "plan": read.plan.model_dump()}).open == frozenset()


def test_an_instrumental_has_no_words(client: Client) -> None:
    draft = ask(client, "write", query="a calm morning", instrumental=True, seed=5)
    assert draft["instrumental"] and draft["lyrics"] == ""


def test_tidying_keeps_what_was_said(client: Client) -> None:
    own = {"bpm": 96, "keyscale": "F# minor", "timesignature": "3", "vocal_language": "fr", "duration_s": 42.5}
    draft = ask(client, "tidy", prompt="piano", lyrics="la la la", seed=5, **own)
    assert {name: draft[name] for name in own} == own


def test_a_recording_is_described(client: Client, recording) -> None:
    draft = ask(client, "describe", source_audio=recording, seed=5)
    assert draft["prompt"] and 30 <= draft["bpm"] <= 300 and draft["keyscale"] and draft["timesignature"]


@pytest.mark.parametrize(
    "mode, values, sentence",
    [
        ("write", {"query": " "}, "Your idea is empty: write one line, such as a sad song about rain."),
        ("write", {"query": "<think></think>"}, "Your idea is empty: write one line, such as a sad song about rain."),
        ("write", {"query": "x" * 513}, "Your idea may hold 512 characters; yours has 513."),
        ("tidy", {"prompt": ""}, "There is nothing to tidy: write a style prompt or some lyrics first."),
        ("tidy", {"prompt": "a", "lyrics": "x" * 20_000}, "Lyrics may hold 4,096 characters; yours has 20,000."),
        ("describe", {"source_audio": None}, "Song to describe is missing: add a recording first."),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 9 else "",
)
def test_bad_questions_are_refused_in_one_sentence(client: Client, mode: str, values: dict, sentence: str) -> None:
    assert refused(client, mode, values) == sentence


def test_a_draft_tells_that_it_is_being_written_and_leaves_nothing(client: Client, studio: served.Served) -> None:
    job = client.submit(query="rain", seed=5, api_name="/write")
    job.result(timeout=PATIENCE_S)
    assert {"phase": "Writing", "step": 0, "of": 0} in job.outputs()[:-1]
    assert studio.left_behind() == []
