"""After the song, as programs meet it: /stems, /normalise, /export and /restore of a served studio, one take a session."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import served
import soundfile
import tiny_stems
from gradio_client import Client, handle_file
from test_api import PATIENCE_S, call, refusal, with_mcp

import tags
from afters import Export
from song import controls
from sound import SAMPLE_RATE

SONG = {"prompt": "calm piano", "duration_s": 10, "instrumental": True, "inference_steps": 8, "seed": 7}
NO_TAKE = "There is no take yet. Make a song first."


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[served.Served]:
    folder = tmp_path_factory.mktemp("after")
    with served.studio(folder, ACE_STEMS_MODEL=str(tiny_stems.weights(folder / "tiny"))) as running:
        yield running


@pytest.fixture(scope="module")
def song(client: Client) -> tuple[str, dict[str, Any]]:
    """The client's own take."""
    return client.predict(**SONG, api_name="/generate")


def visitor(studio: served.Served, folder: Path) -> Client:
    return Client(studio.url, download_files=str(folder), verbose=False, analytics_enabled=False)


def test_a_take_is_exported_with_its_title_and_recipe(client: Client, song: Any) -> None:
    path, told = client.predict("flac", "Rain", 1, 2, api_name="/export")
    assert Path(path).name == "Rain.flac" and soundfile.info(path).subtype == "PCM_24"
    assert told["after"] == {
        "format": "flac",
        "title": "Rain",
        "fade_in_s": 1.0,
        "fade_out_s": 2.0,
        "target_lufs": "",
        "sample_rate": "48000",
    }
    assert tags.read(path).title == "Rain" and json.loads(tags.read(path).recipe)["controls"]["seed"] == 7


def test_a_take_is_normalised_and_says_what_was_measured(client: Client, song: Any) -> None:
    path, told = client.predict(-16, api_name="/normalise")
    assert told["loudness"]["after"]["lufs"] == pytest.approx(-16, abs=0.2)
    assert told["loudness"]["before"].keys() == {"lufs", "true_peak_db"}
    assert soundfile.info(path).frames == 10 * SAMPLE_RATE
    _, usual = client.predict(api_name="/normalise")
    assert usual["after"]["target_lufs"] == "-14" and usual["loudness"]["before"] == told["loudness"]["before"]


def test_a_take_is_taken_apart(client: Client, song: Any) -> None:
    job = client.submit(api_name="/stems")
    files, told = job.result(timeout=PATIENCE_S)
    assert [Path(path).name for path in files] == [
        *(f"calm piano - {name}.wav" for name in ("vocals", "drums", "bass", "other")),
        "calm piano - stems.zip",
    ]
    total = sum(soundfile.read(path, dtype="float32")[0] for path in files[:4])
    assert np.abs(total - soundfile.read(song[0], dtype="float32")[0]).max() < 1e-4
    assert told["sum_db"] < -40 and told["model"]["id"] == "tiny"
    phases = [step["phase"] for _, step in job.outputs()[:-1]]
    assert any(phase.startswith("Loading the stems model") for phase in phases) and "Separating" in phases


def test_what_was_made_of_a_song_is_made_of_the_callers_own(studio: served.Served, tmp_path: Path, song: Any) -> None:
    """P6: another session has no take, whatever it names."""
    stranger = visitor(studio, tmp_path)
    try:
        for name in ("/stems", "/normalise", "/export"):
            with pytest.raises(Exception, match="There is no take yet"):
                stranger.predict(api_name=name)
        stranger.predict(**{**SONG, "seed": 8}, api_name="/generate")
        path, _ = stranger.predict("wav24", api_name="/export")
        assert json.loads(tags.read(path).recipe)["controls"]["seed"] == 8
    finally:
        stranger.close()


def test_a_newer_take_takes_the_place_of_the_one_before(client: Client, song: Any) -> None:
    client.predict(**{**SONG, "seed": 9}, api_name="/generate")
    path, _ = client.predict("mp3", api_name="/export")
    assert json.loads(tags.read(path).recipe)["controls"]["seed"] == 9
    client.predict(**SONG, api_name="/generate")


@pytest.mark.parametrize("endpoint", ["stems", "normalise", "export"])
def test_plain_http_has_no_take_and_names_no_path(studio: served.Served, song: Any, endpoint: str) -> None:
    assert refusal(studio, endpoint) == NO_TAKE
    joined = call(studio, json.dumps({"path": song[0], "take": {"path": song[0]}}), f"call/v2/{endpoint}")
    assert joined.status_code == 422


def test_a_program_without_gradios_client_may_name_its_session(studio: served.Served) -> None:
    def predicted(name: str, values: list[Any]) -> Any:
        body = {"data": values, "session_hash": "a-session-of-mine"}
        joined = httpx.post(f"{studio.url}/gradio_api/call/{name}", json=body, timeout=PATIENCE_S).json()
        told = httpx.get(f"{studio.url}/gradio_api/call/{name}/{joined['event_id']}", timeout=PATIENCE_S).text
        return json.loads(told.strip().rpartition("data: ")[2])

    defaults = [p["parameter_default"] for p in _parameters(studio, "generate")[1:]]
    values = [SONG["prompt"], *defaults]
    predicted("generate", values)
    assert predicted("export", ["ogg", "", 0, 0, "", "48000"])[1]["after"]["format"] == "ogg"


def _parameters(studio: served.Served, endpoint: str) -> list[dict[str, Any]]:
    info = httpx.get(f"{studio.url}/gradio_api/info", timeout=PATIENCE_S).json()
    return info["named_endpoints"][f"/{endpoint}"]["parameters"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["exe"], "Format must be one of mp3, flac"),
        (["mp3", "x" * 121], "Title may hold 120 characters; yours has 121."),
        (["mp3", "", 6, 6], "Fade in (6 s) and fade out (6 s) are longer than the take, 10.00 s."),
        (["mp3", "", 0, 0, -11], "Loudness (LUFS) must be one of"),
    ],
)
def test_an_export_that_cannot_be_is_one_sentence(client: Client, song: Any, values: list[Any], said: str) -> None:
    with pytest.raises(Exception) as refused:
        client.predict(*values, api_name="/export")
    assert said in str(refused.value)


@pytest.mark.parametrize("form", ["mp3", "flac", "wav16", "ogg"])
def test_a_file_is_restored_to_the_same_song(client: Client, song: Any, form: str) -> None:
    path, _ = client.predict(form, api_name="/export")
    told = client.predict(handle_file(path), api_name="/restore")
    assert told["mode"] == "generate" and told["not_restored"] == [] and told["needs"] == {}
    assert told["after"]["format"] == form
    again, _ = client.predict(**told["controls"], api_name="/generate")
    assert Path(again).read_bytes() == Path(song[0]).read_bytes()


def test_restoring_needs_a_song_of_the_studio(client: Client, studio: served.Served, song: Any, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "plain.wav", np.zeros((48_000, 2)), 48_000)
    with pytest.raises(Exception, match="This file holds no recipe"):
        client.predict(handle_file(str(tmp_path / "plain.wav")), api_name="/restore")
    assert refusal(studio, "restore", file=None) == "File is missing: send a song that this studio made."
    for foreign in ({"path": "/etc/passwd"}, "/etc/passwd", {"path": "http://127.0.0.1:1/x.wav"}):
        words = refusal(studio, "restore", file=foreign)
        assert words in (None, "File must be an uploaded file.")


def test_the_endpoints_are_tools_with_their_limits(studio: served.Served) -> None:
    async def ask(session: Any) -> Any:
        listed = {tool.name.rpartition("_")[2]: tool for tool in (await session.list_tools()).tools}
        return listed, await session.call_tool(listed["export"].name, {"format": "mp3"})

    listed, answer = with_mcp(studio, ask)
    assert {"stems", "normalise", "export", "restore"} <= listed.keys()
    words = {name: part["description"] for name, part in listed["export"].inputSchema["properties"].items()}
    assert list(words) == list(controls(Export))
    assert "mp3, flac, wav16, wav24, wav32, ogg" in words["format"] and "0 to 30" in words["fade_in_s"]
    assert "A song that this studio made" in listed["restore"].inputSchema["properties"]["file"]["description"]
    assert NO_TAKE in answer.content[0].text


def test_nothing_stays_in_the_scratch_folder_and_files_have_unguessable_names(studio: served.Served, song: Any) -> None:
    assert studio.left_behind() == []
    kept = list((studio.scratch.parent / "gradio" / "ace-studio").iterdir())
    assert kept and all(len(folder.name) == 32 for folder in kept)
    assert not list(studio.scratch.parent.rglob("*.part"))
