"""The endpoints as functions: signatures, files of clients, what is asked of a session's last take. Served in test_api*.py."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import test_modes
from gradio.data_classes import FileData
from starlette.applications import Starlette
from starlette.testclient import TestClient
from test_modes import outbox, sound_of, tone

import api
import app
import audio_io
import backend
import modes
from afters import AFTERS, After, Export, Normalise, Separate
from drafts import DRAFTS
from errors import AudioError
from lyrics import Lyrics
from remakes import MODES, Cover, Edit, Extend
from song import KNOBS, Asked, Generate, SongRequest, controls
from sound import Progress, Stems, Take
from tooltips import tip

tiny_studio, upload = test_modes.tiny_studio, test_modes.upload


@pytest.fixture(autouse=True)
def nobody_was_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No session has a take."""
    monkeypatch.setattr(api, "SESSIONS", api.Sessions())


def visitor(name: str = "a visitor") -> gr.Request:
    return gr.Request(session_hash=name)


SIGNATURES = {
    Generate: ("prompt lyrics duration_s instrumental", "retakes plan loras takes"),
    Cover: ("source_audio reference_audio prompt lyrics cover_strength", "retakes plan loras takes"),
    Extend: ("source_audio prompt lyrics extra_duration_s side context_s crossfade_s", "retakes plan loras takes"),
    Edit: (
        "source_audio sub_mode prompt source_caption source_lyrics target_lyrics regions repaint_mode repaint_strength "
        "n_min n_max n_avg",
        "retakes plan loras takes keep_words",
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_the_endpoint_carries_the_controls_names_defaults_and_words(mode: type[SongRequest]) -> None:
    call, (before, after) = api.endpoint(mode), SIGNATURES[mode]
    parameters = inspect.signature(call).parameters
    first, *others = names = [*before.split(), *KNOBS, *after.split()]
    assert list(parameters) == [*names, "request"] and names == list(controls(mode))
    who = parameters["request"]
    assert who.annotation is gr.Request and who.default is None, "gradio fills it in; it is no control"
    assert [n for n, p in parameters.items() if p.default is inspect.Parameter.empty] == [first]
    given = modes.defaults(mode) | {
        n: list(k.default) for n, k in controls(mode).items() if k.kind in ("pairs", "loras")
    }
    assert {name: parameters[name].default for name in others} == {name: given[name] for name in others}
    assert parameters["guidance_scale"].default == 3.0 and parameters["bpm"].annotation == int | None
    assert call.__name__ == mode.mode and call.__doc__.startswith(inspect.getdoc(mode))
    for name, k in controls(mode).items():
        assert f"    {name}: {tip(k)}\n" in call.__doc__ + "\n"
    assert "bpm: Tempo in beats per minute. (30 to 300, empty = auto)" in call.__doc__


@pytest.mark.parametrize("mode", AFTERS)
def test_what_is_asked_of_a_take_takes_its_own_controls_and_no_path(mode: type[After]) -> None:
    call = api.endpoint(mode)
    parameters = inspect.signature(call).parameters
    own = {
        Separate: {},
        Normalise: {"target_lufs": "-14"},
        Export: {
            "format": "mp3",
            "title": "",
            "fade_in_s": 0.0,
            "fade_out_s": 0.0,
            "target_lufs": "",
            "sample_rate": "48000",
        },
    }[mode]
    assert {name: p.default for name, p in parameters.items()} == {**own, "request": None}
    assert call.__name__ == mode.mode and call.__doc__.startswith(inspect.getdoc(mode))
    for name, k in controls(mode).items():
        assert f"    {name}: {tip(k)}\n" in call.__doc__ + "\n"


def test_every_public_mode_answers_with_its_own_shape() -> None:
    shapes = {mode: inspect.signature(api.endpoint(mode)).return_annotation for mode in modes.PUBLIC}
    songs = dict.fromkeys((*MODES, Normalise, Export), tuple[FileData, dict])
    words = dict.fromkeys(DRAFTS, dict) | {Lyrics: tuple[str, dict]}
    assert shapes == songs | words | {Separate: tuple[list[FileData], dict]}


def call(mode: type[Asked] = Generate, who: gr.Request | None = None, **changed: object) -> Iterator[tuple]:
    """An endpoint, called by position as gradio does."""
    words = {} if mode in AFTERS else {"prompt": "slow piano", "inference_steps": 8}
    values = {**modes.defaults(mode), **words, **changed}
    return api.endpoint(mode)(*values.values(), who)


def test_the_endpoint_yields_progress_then_file_and_recipe(tmp_path: Path) -> None:
    outputs = list(call(duration_s=10, seed=3))
    assert {"phase": "Denoising", "step": 3, "of": 8} in [m for f, m in outputs if f is None]
    file, metadata = outputs[-1]
    assert metadata["seed"] == 3 and file["meta"] == {"_type": "gradio.FileData"}
    path = Path(file["path"])
    assert path.is_file() and path.parent.parent == outbox(tmp_path), "it stays for whoever fetches it"
    assert file["orig_name"] == path.name
    assert list((tmp_path / "scratch").iterdir()) == []  # and nothing else does


def test_the_endpoint_raises_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(gr.Error) as caught:
        list(call(inference_steps=27.5))
    assert caught.value.message == "Inference steps must be a whole number from 8 to 80; it is 27.5."
    assert list((tmp_path / "scratch").iterdir()) == [] and not outbox(tmp_path).exists()


def test_a_file_is_known_by_its_place_in_the_upload_folder(upload: str) -> None:
    k = controls(Cover)["reference_audio"]
    assert api.uploaded({"path": upload}, k) == upload
    assert api.uploaded(FileData(path=upload), k) == upload
    assert [api.uploaded(nothing, k) for nothing in (None, "", {})] == [None] * 3
    os.utime(upload, (0, 0))
    api.uploaded({"path": upload}, k)
    assert Path(upload).stat().st_mtime > 0, "a file in use is not swept by its age"
    gone = upload.replace("song", "gone")
    assert api.uploaded({"path": gone}, k) == gone, "that it is gone is said by whoever opens it"


ASTRAY = [
    "/etc/passwd",
    "../../etc/passwd",
    "~/song.wav",
    "file:///etc/passwd",
    "http://127.0.0.1/song.wav",
    ".",
    "a\0b",
    "\ud800",
]


@pytest.mark.parametrize("path", [*ASTRAY, "x" * 5000, 7, None, ["/etc/passwd"]])
def test_no_other_path_is_a_file(upload: str, path: object) -> None:
    for value in ({"path": path}, {"path": path, "meta": {"_type": "gradio.FileData"}}, {"url": path}):
        with pytest.raises(AudioError) as refused:
            api.uploaded(value, controls(Cover)["reference_audio"])
        assert str(refused.value) == "Timbre reference must be an uploaded file."


def test_no_way_out_of_the_upload_folder_is_a_file(upload: str, tmp_path: Path) -> None:
    (tmp_path / "gradio" / "link.wav").symlink_to("/etc/passwd")
    (tmp_path / "gradio-of-others").mkdir()
    outside = [
        f"{upload}/../../scratch",
        str(tmp_path / "gradio" / "link.wav"),
        str(tmp_path / "gradio-of-others" / "x"),
    ]
    for value in (*({"path": path} for path in outside), upload, [upload], [{"path": upload}], 7, True):
        with pytest.raises(AudioError, match="must be an uploaded file"):
            api.uploaded(value, controls(Cover)["reference_audio"])


def test_an_endpoint_reads_the_files_that_clients_uploaded(
    monkeypatch: pytest.MonkeyPatch, upload: str, tmp_path: Path
) -> None:
    monkeypatch.setattr(backend, "answer", lambda request: iter([sound_of(tone(seconds=request.seconds))]))
    *_, (file, told) = call(Cover, source_audio={"path": upload}, reference_audio=FileData(path=upload))
    for name in ("source_audio", "reference_audio"):
        assert told[name] == audio_io.admit(upload).facts
    assert Path(file["path"]).name.endswith(".wav") and "receipt" not in told, "a cover keeps nothing"
    assert list((tmp_path / "scratch").iterdir()) == []
    with pytest.raises(gr.Error) as caught:
        list(call(Cover, source_audio={"path": "/etc/passwd"}))
    assert caught.value.message == "Song to cover must be an uploaded file."


@pytest.mark.parametrize("beside, others", [({}, 12), ({"sub_mode": "flow_edit", "source_caption": "drums"}, 13)])
def test_an_edit_says_which_controls_are_idle_and_what_it_kept(upload: str, beside: dict, others: int) -> None:
    *_, (_, told) = call(Edit, source_audio={"path": upload}, regions=[[0.2, 0.6]], seed=3, **beside)
    values = {"source_audio": audio_io.admit(upload), "regions": [[0.2, 0.6]], **beside}
    idle = Edit.parse(values).idle
    assert told["inactive"] == idle | modes.unavailable() and len(idle) == others
    kept = told["receipt"]["kept"]
    assert (kept["samples"], kept["identical"]) == ((0, None) if beside else (0.6 * 48_000, True))


def ends(outputs: Iterator[tuple]) -> tuple[Any, dict[str, Any]]:
    """The last answer; what comes before is progress."""
    *told, last = outputs
    assert all(file is None and told.keys() == {"phase", "step", "of"} for file, told in told)
    return last


def test_an_export_is_of_the_sessions_own_last_take(tmp_path: Path) -> None:
    anna, ben = visitor("anna"), visitor("ben")
    first, _ = ends(call(who=anna, duration_s=10, seed=3))
    file, told = ends(call(Export, anna, format="flac", title="First of all"))
    assert Path(file["path"]).name == file["orig_name"] == "First of all.flac"
    assert Path(file["path"]).parent.parent == outbox(tmp_path) and list((tmp_path / "scratch").iterdir()) == []
    assert told["after"]["format"] == "flac" and told["bytes"] == Path(file["path"]).stat().st_size
    assert (audio_io.held(file["path"]) == audio_io.held(first["path"])).all(), "24 bits of FLAC lose nothing"
    for who in (ben, visitor(""), None):
        with pytest.raises(gr.Error) as refused:
            list(call(Export, who))
        assert refused.value.message == "There is no take yet. Make a song first."
    second, _ = ends(call(who=anna, duration_s=11, seed=4))
    assert audio_io.held(ends(call(Export, anna, format="wav24"))[0]["path"]).shape[1] == 11 * 48_000
    assert Path(first["path"]).is_file() and first["path"] != second["path"], "the one before stays where it is"


def test_a_song_that_fails_leaves_the_session_its_take() -> None:
    ends(call(who=visitor(), duration_s=10))
    with pytest.raises(gr.Error):
        list(call(who=visitor(), duration_s=7))
    assert ends(call(Normalise, visitor(), target_lufs="-16"))[1]["after"]["target_lufs"] == "-16"


def test_an_export_that_cannot_be_is_refused_in_one_sentence() -> None:
    made, _ = ends(call(who=visitor(), duration_s=10))
    with pytest.raises(gr.Error, match=r"Fade in \(6 s\) and fade out \(5 s\) are longer than the take, 10.00 s\."):
        list(call(Export, visitor(), fade_in_s=6, fade_out_s=5))
    Path(made["path"]).unlink()
    with pytest.raises(gr.Error, match="This take is no longer here: files are kept for an hour"):
        list(call(Export, visitor()))


def test_stems_come_as_a_list_of_files_with_one_zip_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def parted(request: Separate) -> Iterator[Any]:
        yield Progress("Separating", 1, 2)
        parts = dict.fromkeys(("vocals", "drums", "bass", "other"), request.song.samples / 4)
        yield Stems(parts, {"total_s": 1.0}, {"name": "quarters", "rest_db": -30.0})

    ends(call(who=visitor(), duration_s=10))
    monkeypatch.setattr(backend, "answer", parted)
    files, told = ends(call(Separate, visitor()))
    names = [file["orig_name"].removeprefix("slow piano - ") for file in files]
    assert names == ["vocals.wav", "drums.wav", "bass.wav", "other.wav", "stems.zip"]
    assert all(Path(file["path"]).is_file() for file in files) and told["rest_db"] == -30


def test_the_page_lists_the_endpoints_but_does_not_load_their_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACE_MODEL", "demo")
    blocks = app.studio()
    config, public = blocks.get_config_file(), {mode.mode for mode in modes.PUBLIC} | {"restore"}
    kinds = {part["id"]: part["type"] for part in config["components"]}
    by_page = {name: {kinds[part] for part in page["components"]} for name, page in config["page"].items()}
    assert by_page[api.ASIDE] == {"api"} and "api" not in by_page[api.HOME]
    assert {f"/{name}" for name in public} == set(blocks.get_api_info(page=api.HOME)["named_endpoints"])


@pytest.mark.parametrize("path", ["/endpoints", "/endpoints/"])
def test_the_page_of_the_parameters_sends_to_the_studio(path: str) -> None:
    client = TestClient(Starlette(routes=api.routes()), follow_redirects=False)
    assert client.get(path).headers["location"] == "/"
    below = TestClient(Starlette(routes=api.routes()), follow_redirects=False, root_path="/studio")
    assert below.get(path).headers["location"] == "/studio/"


def test_only_so_many_sessions_are_remembered_and_only_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    now, sessions = [0.0], api.Sessions()
    monkeypatch.setattr(api, "time", SimpleNamespace(monotonic=lambda: now[0]))
    takes = [Take(f"{n}.wav", {}) for n in range(api.SESSIONS_MAX + 1)]
    for n, take in enumerate(takes):
        sessions.put(str(n), take)
    assert sessions.get("0") is None and sessions.get("1") is takes[1] and sessions.get(None) is None
    sessions.put("1", takes[0])
    sessions.put("new", takes[0])
    assert sessions.get("1") is takes[0] and sessions.get("2") is None, "who came last is forgotten last"
    now[0] = audio_io.KEPT_S + 1
    sessions.put("later", takes[0])
    assert sessions.get("1") is None and sessions.get("later") is takes[0]


def test_restore_says_what_a_song_was_asked_with(upload: str) -> None:
    made, _ = ends(call(duration_s=10, seed=3, bpm=96))
    found = api.restore({"path": made["path"]})
    assert found["mode"] == "generate" and found["controls"].keys() == controls(Generate).keys()
    asked = {"prompt": "slow piano", "duration_s": 10, "seed": 3, "bpm": 96, "inference_steps": 8}
    assert {name: found["controls"][name] for name in asked} == asked
    again, _ = ends(call(**found["controls"]))
    assert Path(again["path"]).read_bytes() == Path(made["path"]).read_bytes()
    for value, sentence in (
        ({"path": "/etc/passwd"}, "File must be an uploaded file."),
        (None, "File is missing: send a song that this studio made."),
        ({"path": upload}, "This file holds no recipe."),
    ):
        with pytest.raises(gr.Error) as refused:
            api.restore(value)
        assert refused.value.message.startswith(sentence)
