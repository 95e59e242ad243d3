"""The studio as programs meet it: gradio_client, plain HTTP and MCP against a served demo checkpoint."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import re
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import served
import soundfile
from gradio_client import Client
from waiting import wait_until

import modes
from afters import AFTERS
from drafts import DRAFTS
from lora_stack import LORA_MAX_BYTES
from lyrics import Lyrics
from remakes import MODES
from song import Advanced, LMOptions, SongRequest, controls

SONG = {"prompt": "lo-fi\u202e beat\x00", "duration_s": 10.5, "instrumental": True, "inference_steps": 8, "seed": 7}
ENDPOINTS = {"restore", *(mode.mode for mode in (*MODES, *DRAFTS, Lyrics, *AFTERS))}
PATIENCE_S = 120  # a busy machine of two cores makes these songs in a fifth of it


class Song(NamedTuple):
    """What came back for one song. `told` are the outputs before the last."""

    wav: bytes
    metadata: dict[str, Any]
    told: list[Any]


@pytest.fixture(scope="module")
def songs(client: Client) -> dict[str, Song]:
    """Five songs, asked for at once as five visitors would."""
    asked = {
        "first": {},
        "again": {"use_adg": "false"},
        "sde": {"infer_method": "sde"},
        "sde again": {"infer_method": "sde"},
        "sde other": {"infer_method": "sde", "seed": 8},
    }
    jobs = {name: client.submit(**{**SONG, **own}, api_name="/generate") for name, own in asked.items()}
    made = {}
    for name, job in jobs.items():
        path, metadata = job.result(timeout=PATIENCE_S)
        made[name] = Song(Path(path).read_bytes(), metadata, job.outputs()[:-1])
    return made


def call(studio: served.Served, body: str, path: str = "call/v2/generate") -> httpx.Response:
    headers = {"content-type": "application/json"}
    return httpx.post(f"{studio.url}/gradio_api/{path}", content=body, headers=headers, timeout=PATIENCE_S)


def upload(studio: served.Served, name: str, content: Any) -> httpx.Response:
    """An upload as a browser sends it; `content` may be too much to hold at once."""
    start = f'--edge\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    body = itertools.chain([start], [content] if isinstance(content, bytes) else content, [b"\r\n--edge--\r\n"])
    headers = {"content-type": "multipart/form-data; boundary=edge"}
    return httpx.post(f"{studio.url}/gradio_api/upload", content=body, headers=headers, timeout=PATIENCE_S)


def refusal(studio: served.Served, endpoint: str, **values: Any) -> str | None:
    """The sentence with which plain HTTP is refused; None where gradio keeps it to itself."""
    joined = call(studio, json.dumps(values), f"call/v2/{endpoint}")
    told = httpx.get(f"{studio.url}/gradio_api/call/{endpoint}/{joined.json()['event_id']}", timeout=PATIENCE_S).text
    last = told.strip().rpartition("event: ")[2]
    assert last.startswith("error")
    return json.loads(last.partition("data: ")[2])["error"]


def with_mcp(studio: served.Served, ask: Callable[[Any], Awaitable[Any]]) -> Any:
    """The answer of the studio's MCP server to `ask(session)`."""
    pytest.importorskip("mcp", reason="the mcp extra is not installed")
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async def talk() -> Any:
        async with (
            streamable_http_client(f"{studio.url}/gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            return await ask(session)

    return asyncio.run(talk())


def test_the_songs_the_drafts_and_what_follows_a_song_are_the_endpoints(client: Client):
    api = client.view_api(print_info=False, return_format="dict")
    assert set(api["named_endpoints"]) == {f"/{name}" for name in ENDPOINTS}
    assert api["unnamed_endpoints"] == {}


@pytest.mark.parametrize("mode", MODES)
def test_parameters_are_the_controls_with_the_checkpoints_defaults(
    client: Client, monkeypatch: pytest.MonkeyPatch, mode: type[SongRequest]
):
    monkeypatch.setenv("ACE_MODEL", "demo")
    endpoint = client.view_api(print_info=False, return_format="dict")["named_endpoints"][f"/{mode.mode}"]
    names = [p["parameter_name"] for p in endpoint["parameters"]]
    assert names == list(controls(mode))
    assert len(names) == {"generate": 8, "cover": 9, "extend": 11, "edit": 17}[mode.mode] + 21
    optional = {
        p["parameter_name"]: p["parameter_default"] for p in endpoint["parameters"] if p["parameter_has_default"]
    }
    expected = modes.defaults(mode)
    del expected[names[0]]
    assert optional == {name: list(value) if value == () else value for name, value in expected.items()}
    assert optional["guidance_scale"] == 3.0, "the demo checkpoint's own default"


def test_a_song_is_48_khz_stereo_of_the_asked_length(songs: dict[str, Song]):
    info = soundfile.info(io.BytesIO(songs["first"].wav))
    assert (info.format, info.samplerate, info.channels) == ("WAV", 48_000, 2)
    assert info.frames == 10.5 * 48_000


def test_metadata_holds_everything_that_was_asked(songs: dict[str, Song]):
    told = songs["first"].metadata
    assert told["mode"] == "generate"
    assert told["prompt"] == "lo-fi beat", "control and bidirectional characters are dropped"
    assert told["seed"] == told["advanced"]["seed"] == 7
    assert told["advanced"].keys() == Advanced.model_fields.keys()
    assert told["lm"].keys() == LMOptions.model_fields.keys()
    assert (len(told["advanced"]), len(told["lm"])) == (12, 9)
    assert (told["duration_s"], told["instrumental"], told["advanced"]["inference_steps"]) == (10.5, True, 8)


def test_metadata_names_the_model_and_the_times_by_phase(songs: dict[str, Song]):
    told = songs["first"].metadata
    model = told["model"]
    assert (model["id"], model["revision"]) == ("demo", None)
    assert model["device"] in ("cpu", "cuda", "mps") and model["dtype"] in ("float32", "bfloat16")
    times = told["timings"]
    phases = [times[name] for name in ("conditioning_s", "denoise_s", "decode_s")]
    assert all(seconds > 0 for seconds in phases)
    assert sum(phases) == pytest.approx(times["total_s"], abs=0.01)
    assert times["per_step_s"] == pytest.approx(times["denoise_s"] / 8, abs=0.001)


def test_progress_comes_by_step_before_the_song(songs: dict[str, Song]):
    for song in songs.values():
        files, told = zip(*song.told, strict=True)
        steps = [event["step"] for event in told if event["of"] == 8]
        assert steps == sorted(steps)  # a slow step is told more than once
        assert set(steps) == set(range(9))
        assert set(files) == {None}


def test_the_same_seed_makes_the_same_file(songs: dict[str, Song]):
    assert songs["first"].wav == songs["again"].wav
    assert songs["sde"].wav == songs["sde again"].wav


def test_sde_and_another_seed_change_the_song(songs: dict[str, Song]):
    assert len({songs[name].wav for name in ("first", "sde", "sde other")}) == 3


def test_a_checkbox_sent_as_the_word_false_is_off(songs: dict[str, Song]):
    assert songs["again"].metadata["advanced"]["use_adg"] is False


BAD_INPUT = {
    "no words": ({"prompt": " "}, "Write a style prompt or some lyrics: the studio needs one of the two."),
    "1 MB prompt": ({"prompt": "x" * 1_000_000}, "Style prompt may hold 512 characters; yours has 1,000,000."),
    "long lyrics": ({"lyrics": "la " * 2000 + "!"}, "Lyrics may hold 4,096 characters; yours has 6,001."),
    "no prompt": ({"prompt": None}, "Style prompt must be text up to 512 characters; it is empty."),
    "half a step": ({"inference_steps": 27.5}, "Inference steps must be a whole number from 8 to 80; it is 27.5."),
    "1e300 steps": ({"inference_steps": 1e300}, "Inference steps must be a whole number from 8 to 80; it is 1e+300."),
    "true as a number": ({"seed": True}, "Seed must be a whole number from -1 to 4294967295; it is True."),
    "the word NaN": ({"guidance_scale": "NaN"}, "Guidance scale (CFG) must be a number from 1 to 15; it is 'NaN'."),
    "too long": ({"duration_s": 600.1}, "Duration (s) must be a number from 10 to 600; it is 600.1."),
    "slow bpm": ({"bpm": 7}, "BPM must be a whole number from 30 to 300, empty = auto; it is 7."),
    "maybe": ({"use_adg": "maybe"}, "Use ADG must be on or off; it is 'maybe'."),
    "unknown method": ({"infer_method": "evil"}, "Inference method must be one of ode, sde; it is 'evil'."),
    "interval backwards": (
        {"cfg_interval_start": 0.8, "cfg_interval_end": 0.2},
        "CFG interval start (0.8) must not be above CFG interval end (0.2).",
    ),
    "key with a tail": (
        {"keyscale": "H minor; DROP"},
        "Key / scale must be a key such as C major, F# minor or Am; it is 'H minor; DROP'.",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gets_one_sentence_and_leaves_nothing(client: Client, studio: served.Served, case: str):
    values, sentence = BAD_INPUT[case]
    log_before = studio.log.stat().st_size
    with pytest.raises(ValueError) as refused:
        client.predict(**{"prompt": "calm piano", **values}, api_name="/generate")
    assert str(refused.value) == sentence
    assert studio.left_behind() == []
    assert "Traceback" not in studio.log.read_text()[log_before:], "the log is for faults of ours"


def test_a_nan_over_http_gets_the_same_sentence(studio: served.Served):
    words = refusal(studio, "generate", prompt="calm piano", duration_s=float("nan"))
    assert words == "Duration (s) must be a number from 10 to 600; it is nan."


def test_an_unknown_knob_is_named(client: Client, studio: served.Served):
    with pytest.raises(TypeError, match="guidance_scal"):
        client.predict(prompt="calm piano", guidance_scal=3, api_name="/generate")
    refused = call(studio, '{"prompt": "calm piano", "guidance_scal": 3}')
    assert refused.status_code == 422
    assert refused.json() == {"error": "Parameter `guidance_scal` is not a valid key-word argument."}


def test_a_missing_prompt_is_named(studio: served.Served):
    refused = call(studio, "{}")
    assert refused.status_code == 422
    assert refused.json() == {"error": "No value provided for required argument: prompt"}


def test_a_song_cannot_be_started_past_the_queue(studio: served.Served, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ACE_MODEL", "demo")
    values = modes.defaults() | {"prompt": "calm piano", "inference_steps": 8}
    refused = call(studio, json.dumps({"data": list(values.values())}), "run/generate")
    assert refused.status_code == 404
    assert "join the queue" in refused.text


def cancels(client: Client, studio: served.Served, api_name: str, long: dict[str, Any]) -> None:
    """Begin a long song, cancel it after its first step, and see that its work ends and leaves nothing."""
    job = client.submit(**long, api_name=api_name)
    wait_until(lambda: any(told["step"] for _, told in job.outputs()), PATIENCE_S)
    assert len(studio.left_behind()) == 1
    job.cancel()
    assert job.status().code.name == "CANCELLED"
    wait_until(lambda: studio.left_behind() == [], seconds=10)  # a fraction of what the song would still take


def test_a_cancelled_song_ends_and_the_next_is_served(client: Client, studio: served.Served):
    cancels(client, studio, "/generate", {**SONG, "duration_s": 60, "inference_steps": 80})
    path, _ = client.predict(**SONG, api_name="/generate")
    assert Path(path).is_file()


BEHIND_BUTTONS = [f"on_{mode.mode}" for mode in (*MODES, *AFTERS)]
BEHIND_BUTTONS += ["retake", "on_recording", "on_song_to_edit", "on_open"]


@pytest.mark.parametrize("name", BEHIND_BUTTONS)
def test_what_the_buttons_do_is_closed_to_clients(client: Client, studio: served.Served, name: str):
    with pytest.raises(ValueError, match="Cannot find a function"):
        client.predict(api_name=f"/{name}")
    assert call(studio, "{}", f"call/v2/{name}").is_error


@pytest.mark.parametrize("path", ["/etc/passwd", str(served.ROOT / "app.py"), str(served.ROOT / "demo")])
def test_files_of_the_machine_are_closed(studio: served.Served, path: str):
    assert httpx.get(f"{studio.url}/gradio_api/file={path}").status_code == 403


def test_an_upload_over_the_limit_is_refused(studio: served.Served):
    refused = upload(studio, "long.wav", itertools.repeat(bytes(2**20), LORA_MAX_BYTES // 2**20 + 1))
    assert refused.status_code == 413
    assert refused.text == f"File size exceeded maximum allowed size of {LORA_MAX_BYTES} bytes."


def test_the_name_of_an_upload_leads_nowhere(studio: served.Served):
    (path,) = upload(studio, "../../../../tmp/evil<img src=x onerror=1>.wav", b"no music").json()
    assert Path(path).parent.parent == studio.scratch.parent / "gradio" and "<" not in path
    assert Path(path).read_bytes() == b"no music"


OUTSIDE = ["/etc/passwd", "{upload}/../../../../../etc/passwd", "file:///etc/passwd", "../etc/passwd", "\x00", "\ud800"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_file_of_the_machine_is_a_recording(studio: served.Served, path: str):
    (own,) = upload(studio, "song.wav", b"no music").json()
    path = path.format(upload=own)
    before = studio.log.stat().st_size
    for value in ({"path": path}, path, {"url": path}, [path]):
        assert refusal(studio, "cover", source_audio=value) == "Song to cover must be an uploaded file."
        beside = refusal(studio, "cover", source_audio={"path": own}, reference_audio=value)
        assert beside == "Timbre reference must be an uploaded file."
    assert "Traceback" not in studio.log.read_text()[before:]
    marked = refusal(studio, "cover", source_audio={"path": path, "meta": {"_type": "gradio.FileData"}})
    assert marked in (None, "Song to cover must be an uploaded file."), "gradio looks first, and refuses without a word"
    assert studio.left_behind() == []


@pytest.mark.parametrize("mark", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_a_recording_is_not_fetched_from_this_machines_network(studio: served.Served, mark: dict):
    with socket.create_server(("127.0.0.1", 0)) as bait:
        bait.setblocking(False)
        address = f"http://127.0.0.1:{bait.getsockname()[1]}/song.wav"
        for value in ({"path": address}, {"url": address}, {"path": address, "url": address}):
            assert refusal(studio, "cover", source_audio={**value, **mark}) in (
                None,
                "Song to cover must be an uploaded file.",
            )
        with pytest.raises(BlockingIOError):
            bait.accept()


def test_mcp_offers_tools_that_explain_every_parameter(studio: served.Served):
    tools = {tool.name: tool for tool in with_mcp(studio, lambda session: session.list_tools()).tools}
    assert tools.keys() == ENDPOINTS
    for mode in (*MODES, *DRAFTS, Lyrics, *AFTERS):
        tool = tools[mode.mode]
        assert tool.description.startswith(mode.__doc__)
        parameters = tool.inputSchema["properties"]
        assert list(parameters) == list(controls(mode))
        assert [name for name, known in parameters.items() if not known.get("description")] == []
        assert mode not in MODES or "(8 to 80)" in parameters["inference_steps"]["description"]
        assert tool.inputSchema.get("required", []) == ([] if mode in AFTERS else [next(iter(controls(mode)))])


def test_a_draft_without_a_planner_is_refused(client: Client):
    with pytest.raises(ValueError, match=r"There is no planner here. Set ACE_PLANNER to have one."):
        client.predict(query="rain", api_name="/write")


def test_mcp_refuses_in_our_words(studio: served.Served):
    answer = with_mcp(studio, lambda session: session.call_tool("generate", {"prompt": "calm piano", "bpm": 7}))
    assert answer.isError
    assert "BPM must be a whole number from 30 to 300, empty = auto; it is 7." in answer.content[0].text


def test_mcp_makes_the_same_song(studio: served.Served, songs: dict[str, Song]):
    answer = with_mcp(studio, lambda session: session.call_tool("generate", SONG))
    assert not answer.isError, answer.content
    link = re.search(r"http://127\.0\.0\.1:[^']+\.wav", answer.content[0].text)
    assert link, "an agent fetches the song by its link"
    assert httpx.get(link.group()).content == songs["first"].wav
