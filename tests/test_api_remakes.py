"""Cover, Extend and Edit as programs meet them: recordings in, songs and receipts out, bad recordings refused."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import served
import soundfile
from gradio_client import Client, handle_file
from test_api import PATIENCE_S, Song, cancels, refusal, upload, with_mcp

import modes
from fields import fields_of
from remakes import MODES
from song import Advanced, LMOptions
from splice import LEVEL_S

RATE = 48_000
SHORT = {"prompt": "calm piano", "inference_steps": 8, "seed": 7}
REPAINT = {"regions": [[0.6, 0.9], [0.1, 0.4]]}
FLOW = {"sub_mode": "flow_edit", "source_caption": "drums", "n_min": 0.2}
ASKED: dict[str, tuple[str, str, dict[str, Any]]] = {  # endpoint, recording, what else
    "cover": ("cover", "wide.wav", {"cover_strength": 0.5}),
    "cover again": ("cover", "wide.wav", {"cover_strength": 0.5}),
    "retake": ("cover", "wide.wav", {"cover_strength": 0.5, "retakes": [[9, 0.5]]}),
    "extension": ("extend", "song.wav", {"extra_duration_s": 5, "crossfade_s": 0.5}),
    "beginning": ("extend", "song.mp3", {"extra_duration_s": 5, "side": "before", "crossfade_s": 0.25}),
    "repaint": ("edit", "song.wav", REPAINT),
    "flow": ("edit", "phone.wav", FLOW),
    "flow again": ("edit", "phone.wav", FLOW),
}
CHANGED = {  # seconds of the file
    "extension": [[0.5, 6]],
    "beginning": [[0, 5.25]],
    "repaint": [[0.1, 0.4], [0.6, 0.9]],
}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what visitors bring: a second of song in several files, and what cannot be used."""
    folder, rng = tmp_path_factory.mktemp("recordings"), np.random.default_rng(3)

    def write(name: str, rate: int = RATE, channels: int = 2, seconds: float = 1, peak: float = 0.3) -> None:
        tone = np.sin(np.arange(round(seconds * rate)) * 1382 / rate)
        spread = rng.uniform(0.2, 1, channels)  # no two channels alike
        soundfile.write(folder / name, peak * tone[:, None] * spread, rate)

    write("song.wav")
    write("song.mp3")
    write("wide.wav", channels=8)
    write("phone.wav", rate=8000, channels=1)
    write("nine.wav", channels=9)
    write("short.wav", seconds=0.3)
    write("silent.wav", peak=0)
    write("long.flac", rate=8000, channels=1, seconds=601, peak=0)
    write("nearly.flac", rate=8000, channels=1, seconds=599, peak=0.01)
    (folder / "words.wav").write_text("no music")
    return folder


@pytest.fixture(scope="module")
def songs(client: Client, recordings: Path) -> dict[str, Song]:
    """All of ASKED, asked for at once."""
    jobs = {
        name: client.submit(source_audio=handle_file(recordings / file), **SHORT, **own, api_name=f"/{endpoint}")
        for name, (endpoint, file, own) in ASKED.items()
    }
    made = {}
    for name, job in jobs.items():
        path, metadata = job.result(timeout=PATIENCE_S)
        made[name] = Song(Path(path).read_bytes(), metadata, job.outputs()[:-1])
    return made


def samples(file: Any) -> np.ndarray:
    """Samples [n, 2] as soundfile reads them."""
    return soundfile.read(file, dtype="float32", always_2d=True)[0]


@pytest.fixture
def heard(songs: dict[str, Song], recordings: Path, tmp_path: Path):
    """Makes `(song, source, changed)` of a take: samples [n, 2], and the spans of the song that are told to be new."""

    def of(name: str) -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
        (tmp_path / name).write_bytes(songs[name].wav)
        return (
            samples(tmp_path / name),
            samples(recordings / ASKED[name][1]),
            songs[name].metadata["receipt"]["changed"],
        )

    return of


@pytest.mark.parametrize(
    "name, seconds", [("cover", 1), ("extension", 6), ("beginning", 6), ("repaint", 1), ("flow", 1)]
)
def test_a_song_is_48_khz_stereo_of_the_length_that_the_mode_gives(
    songs: dict[str, Song], tmp_path: Path, name: str, seconds: int
):
    (tmp_path / "song").write_bytes(songs[name].wav)
    info = soundfile.info(tmp_path / "song")
    assert (info.format, info.samplerate, info.channels, info.frames) == ("WAV", RATE, 2, seconds * RATE)
    assert np.abs(samples(tmp_path / "song")).max() > 0.001


def test_progress_tells_of_listening_and_comes_by_step(songs: dict[str, Song]):
    for name, song in songs.items():
        files, told = zip(*song.told, strict=True)
        steps = [event["step"] for event in told if event["of"] == 8]
        skipped = {1} if name.startswith("flow") else set()  # n_min
        assert steps == sorted(steps) and set(steps) == set(range(9)) - skipped
        phases = list(dict.fromkeys(event["phase"] for event in told))
        assert phases[-4:] == ["Reading the words", "Listening to the song", "Denoising", "Decoding"]
        assert set(files) == {None}


@pytest.mark.parametrize("name", ["cover", "extension", "beginning", "repaint", "flow", "retake"])
def test_metadata_holds_everything_that_was_asked(
    songs: dict[str, Song], recordings: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.setenv("ACE_MODEL", "demo")
    endpoint, file, own = ASKED[name]
    mode, told = next(m for m in MODES if m.mode == endpoint), songs[name].metadata
    asked = json.loads(json.dumps(modes.defaults(mode))) | SHORT | own
    source = asked["source_audio"] = told["source_audio"]
    assert (told["mode"], told["seed"]) == (endpoint, 7)
    assert {n: told[n] for n in fields_of(mode)} == {n: asked[n] for n in fields_of(mode)}
    for group, model in (("advanced", Advanced), ("lm", LMOptions)):
        assert told[group] == {n: asked[n] for n in model.model_fields}

    info = soundfile.info(recordings / file)
    assert source["file"] == {
        "sha256": hashlib.sha256((recordings / file).read_bytes()).hexdigest(),
        "format": info.format,
        "sample_rate": info.samplerate,
        "channels": info.channels,
    }
    assert (source["samples"], source["seconds"]) == (RATE, 1.0)


IDLE = {
    "cover": {},
    "extension": {},
    "repaint": dict.fromkeys(("source_caption", "n_min", "n_max", "n_avg"), "for Flow morph alone")
    | {"keep_words": "there are no source lyrics"},
    "flow": {
        **dict.fromkeys(("regions", "repaint_mode", "repaint_strength", "keep_words"), "for Repaint alone"),
        **dict.fromkeys(("infer_method", "use_adg"), "a flow morph has a path of its own"),
    },
}


@pytest.mark.parametrize("name", IDLE)
def test_controls_that_do_nothing_are_named_with_the_reason(songs: dict[str, Song], name: str):
    planner = dict.fromkeys(LMOptions.model_fields, "needs the planner")
    assert songs[name].metadata["inactive"] == planner | IDLE[name]


@pytest.mark.parametrize("name", CHANGED)
def test_what_was_not_asked_to_change_is_the_source_bit_for_bit(songs: dict[str, Song], heard, name: str):
    song, source, changed = heard(name)
    receipt = songs[name].metadata["receipt"]
    assert changed == [[round(a * RATE), round(b * RATE)] for a, b in CHANGED[name]]
    shift = len(song) - len(source) if name == "beginning" else 0
    there = np.zeros(len(song), bool)
    there[shift : shift + len(source)] = True
    for a, b in changed:
        there[a:b] = False
        assert not np.array_equal(song[max(a, shift) : b], source[max(a - shift, 0) : b - shift]), "nothing was changed"

    kept = song[there]
    assert np.array_equal(kept, source[there[shift : shift + len(source)]])
    digest = hashlib.sha256(np.ascontiguousarray(kept, "<f4").tobytes()).hexdigest()
    assert receipt["kept"] == {"samples": len(kept), "sha256": digest, "identical": True}
    whole = hashlib.sha256(np.ascontiguousarray(source, "<f4").tobytes()).hexdigest()
    assert receipt["source"] == songs[name].metadata["source_audio"] and receipt["source"]["sha256"] == whole


@pytest.mark.parametrize("name, seams", [("extension", 1), ("beginning", 1), ("repaint", 4)])
def test_each_seam_is_told_with_the_step_in_level_across_it(songs: dict[str, Song], heard, name: str, seams: int):
    song, _, changed = heard(name)
    told = songs[name].metadata["receipt"]["seams"]
    assert len(told) == seams
    for seam in told:
        a, b = seam["from"], seam["to"]
        assert any(first <= a < b <= last for first, last in changed)
        size = round(LEVEL_S * RATE)
        before, after = song[max(0, a - size) : a], song[b : b + size]
        step = 20 * math.log10(np.sqrt(np.mean(after**2.0)) / np.sqrt(np.mean(before**2.0)))
        assert seam["level_db"] == pytest.approx(step, abs=0.02)


def test_a_cover_promises_to_keep_nothing_and_a_morph_that_it_kept_nothing(songs: dict[str, Song]):
    assert "receipt" not in songs["cover"].metadata
    receipt = songs["flow"].metadata["receipt"]
    assert receipt["changed"] == [[0, RATE]] and receipt["seams"] == []
    assert (receipt["kept"]["samples"], receipt["kept"]["identical"]) == (0, None)


@pytest.mark.parametrize("name", ["cover", "flow"])  # repaint and extension are asked for again further down
def test_the_same_seed_makes_the_same_file(songs: dict[str, Song], name: str):
    assert songs[name].wav == songs[f"{name} again"].wav


def test_a_retake_is_another_song_and_tells_what_it_was_turned_by(songs: dict[str, Song]):
    assert songs["retake"].wav != songs["cover"].wav
    assert (songs["retake"].metadata["seed"], songs["retake"].metadata["retakes"]) == (7, [[9, 0.5]])


TOO_MUCH = "Extra duration (5 s) is too long: the song has 599.00 s, and with it 600 s is the limit."
NO_RETAKES = "Retakes must be up to 16 pairs of a seed and a variance from 0 to 1, such as [[-1, 0.3]]."
BAD_INPUT: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "Song to cover is missing: add a recording first.": ("cover", None, {}),
    "Song to extend is missing: add a recording first.": ("extend", None, {}),
    "Song to edit is missing: add a recording first.": ("edit", None, REPAINT),
    "Shortest is 0.5 s; yours is 0.3 s.": ("extend", "short.wav", {}),
    "Longest is 10 min; yours is 10:01. Cut it first.": ("cover", "long.flac", {}),
    "This recording is silent.": ("edit", "silent.wav", REPAINT),
    "At most 8 channels; yours has 9. Mix it to stereo first.": ("cover", "nine.wav", {}),
    "Not a WAV, FLAC, OGG, MP3 or AIFF file.": ("extend", "words.wav", {}),
    TOO_MUCH: ("extend", "nearly.flac", {"extra_duration_s": 5}),
    "Extra duration (s) must be a number from 5 to 240; it is 4.": ("extend", "song.wav", {"extra_duration_s": 4}),
    "Cover strength must be a number from 0 to 1; it is 2.": ("cover", "song.wav", {"cover_strength": 2}),
    NO_RETAKES: ("cover", "song.wav", {"retakes": [[1, 1.5]]}),
    "n_min (0.8) must not be above n_max (0.2).": ("edit", "song.wav", {**FLOW, "n_min": 0.8, "n_max": 0.2}),
}
REGIONS: dict[str, Any] = {
    "Regions are missing: mark the part of the song to change.": [],
    "Region 0.5 to 0.5 s must end at least 0.1 s after its start.": [[0.5, 0.5]],
    "Region 0.9 to 0.4 s must end at least 0.1 s after its start.": [[0.1, 0.3], [0.9, 0.4]],
    "Region 0.5 to 1.5 s must lie within the song, 0 to 1.00 s.": [[0.5, 1.5]],
    "Region 0.4 to 0.9 s overlaps the one before it, which ends at 0.5 s.": [[0.4, 0.9], [0.1, 0.5]],
    "Regions must be up to 16 pairs of start and end in seconds, such as [[12.5, 20]].": "the chorus",
}
BAD_INPUT |= {sentence: ("edit", "song.wav", {"regions": regions}) for sentence, regions in REGIONS.items()}


@pytest.mark.parametrize("sentence", BAD_INPUT)
def test_bad_input_gets_one_sentence_and_leaves_nothing(
    client: Client, studio: served.Served, recordings: Path, sentence: str
):
    endpoint, file, values = BAD_INPUT[sentence]
    log_before = studio.log.stat().st_size
    with pytest.raises(ValueError) as refused:
        client.predict(
            source_audio=file and handle_file(recordings / file), prompt="x", **values, api_name=f"/{endpoint}"
        )
    assert str(refused.value) == sentence
    assert studio.left_behind() == []
    assert "Traceback" not in studio.log.read_text()[log_before:], "the log is for faults of ours"


@pytest.mark.parametrize("mark", [{}, {"meta": {"_type": "gradio.FileData"}}])
@pytest.mark.parametrize("name", ["source_audio", "reference_audio"])
def test_an_upload_that_vanished_is_asked_for_again(studio: served.Served, recordings: Path, name: str, mark: dict):
    (here,) = upload(studio, "song.wav", (recordings / "song.wav").read_bytes()).json()
    (gone,) = upload(studio, "gone.wav", b"soon gone").json()
    Path(gone).unlink()
    log_before = studio.log.stat().st_size
    files = {"source_audio": {"path": here}, name: {"path": gone, **mark}}
    assert refusal(studio, "cover", **files) == "The upload has expired; please add it again."
    assert studio.left_behind() == [] and "Traceback" not in studio.log.read_text()[log_before:]


def test_a_cancelled_extension_ends_and_the_next_is_served(
    client: Client, studio: served.Served, songs: dict[str, Song], recordings: Path
):
    _, file, own = ASKED["extension"]
    asked = {"source_audio": handle_file(recordings / file), **SHORT, **own}
    cancels(client, studio, "/extend", asked | {"extra_duration_s": 60, "inference_steps": 80})
    path, _ = client.predict(**asked, api_name="/extend")
    assert Path(path).read_bytes() == songs["extension"].wav


def test_an_agent_sends_a_recording_by_mcp_and_gets_the_same_song(
    studio: served.Served, songs: dict[str, Song], recordings: Path
):
    sent = "data:audio/wav;base64," + base64.b64encode((recordings / "song.wav").read_bytes()).decode()
    asked = {"source_audio": sent, **SHORT, **REPAINT}
    answer = with_mcp(studio, lambda session: session.call_tool("edit", asked))
    assert not answer.isError, answer.content
    link = re.search(r"http://127\.0\.0\.1:[^']+\.wav", answer.content[0].text)
    assert httpx.get(link.group()).content == songs["repaint"].wav


def press(studio: served.Served, name: str, **sent: Any) -> list[Any]:
    """What the page is told last when a button is pressed, as its own script asks; `sent` by the widgets' names."""
    config = httpx.get(f"{studio.url}/config").json()
    widgets = {widget["id"]: widget["props"] for widget in config["components"]}
    event = next(known for known in config["dependencies"] if known["api_name"] == name)
    own = [(widgets[i].get("elem_id"), widgets[i].get("value")) for i in event["inputs"]]
    visit, queue = {"session_hash": "a visitor"}, f"{studio.url}/gradio_api/queue"
    asked = {"data": [sent.get(label, value) for label, value in own], "fn_index": event["id"], **visit}
    httpx.post(f"{queue}/join", json=asked).raise_for_status()
    with httpx.stream("GET", f"{queue}/data", params=visit, timeout=PATIENCE_S) as stream:
        told = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
    (done,) = (message["output"] for message in told if message["msg"] == "process_completed")
    assert "data" in done, f"{name}: {done}"
    return done["data"]


def test_the_page_makes_and_retakes_an_edit(studio: served.Served, songs: dict[str, Song], recordings: Path):
    (path,) = upload(studio, "song.wav", (recordings / "song.wav").read_bytes()).json()
    sent = {
        "edit-source_audio": {"path": path, "meta": {"_type": "gradio.FileData"}},
        "edit-regions": {"seconds": 1.0, "peaks": [], **REPAINT},
        "edit-prompt": SHORT["prompt"],
    }
    status, player, download, metadata, *_ = press(studio, "on_edit", **sent, inference_steps=8, seed=7)
    assert "seed 7" in status
    assert httpx.get(download["value"]["url"]).content == songs["repaint"].wav, "page and endpoint share the handler"
    played = httpx.get(f"{studio.url}/gradio_api/file={player['tracks'][0]['path']}")
    assert played.is_success and len(played.content) < len(songs["repaint"].wav), "what is played is small"

    status, _, download, retaken, *_ = press(studio, "retake", variance=0.4)
    assert 'role="alert"' not in status, status
    assert [variance for _, variance in retaken["retakes"]] == [0.4]
    assert retaken["regions"] == metadata["regions"] and retaken["receipt"]["kept"]["identical"]
    assert httpx.get(download["value"]["url"]).content != songs["repaint"].wav
