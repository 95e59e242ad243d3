"""The handlers: values in at the door, a guarded and written take out, the same for page and endpoint."""

from __future__ import annotations

import inspect
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import soundfile
import tiny
from gradio.data_classes import FileData

import audio_io
import backend
import modes
import splice
from errors import AudioError, BadOutput, DiskFull, EngineFault, KnobError, StudioError
from remakes import MODES, Cover, Edit, Extend
from settings import CHECKPOINTS, TURBO_LACKS
from song import KNOBS, Generate, SongRequest, controls
from sound import Progress, Sound, Take
from tooltips import tip

WORDS = {"prompt": "slow piano", "duration_s": 10, "seed": 3, "inference_steps": 8}


@pytest.fixture(autouse=True)
def tiny_studio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The tiny engine behind the real gate, writing below the test's own folder."""
    monkeypatch.setenv("ACE_MODEL", "demo")
    monkeypatch.setattr(backend, "_engine", tiny.engine())
    monkeypatch.setattr(modes, "scratch", lambda: audio_io.scratch(tmp_path / "scratch"))


def sound_of(samples: np.ndarray) -> Sound:
    return Sound(samples.astype(np.float32), 48_000, {"total_s": 1.0}, {"key": "tiny"})


def tone(gain: float = 0.5, seconds: float = 10.0) -> np.ndarray:
    t = np.arange(round(seconds * 48_000)) / 48_000
    return gain * np.stack([np.sin(2 * np.pi * 220 * t), np.sin(2 * np.pi * 330 * t)])


def written(samples: np.ndarray, folder: Path, request: SongRequest | None = None) -> Take:
    """The take of a sound that an engine gave."""
    sound = sound_of(samples)
    request = request or Generate.parse(WORDS)
    return modes.take(request, sound, splice.whole(request, sound.samples, 0), folder)


def test_a_song_is_told_by_step_and_written_with_its_recipe(tmp_path: Path) -> None:
    *told, made = modes.generate({**WORDS, "bpm": 120}, tmp_path)
    assert [e.step for e in told if isinstance(e, Progress) and e.of] == list(range(9))
    info = soundfile.info(made.path)
    assert (info.samplerate, info.channels, info.frames) == (48_000, 2, 480_000)
    recipe = made.metadata
    assert recipe["mode"] == "generate" and recipe["seed"] == 3 and recipe["prompt"] == "slow piano"
    assert len(recipe["advanced"]) == 12 and len(recipe["lm"]) == 9
    assert recipe["advanced"]["bpm"] == 120 and recipe["advanced"]["guidance_scale"] == 3.0  # the demo's own default
    assert recipe["model"] == tiny.engine().describe() and recipe["planner"] is None
    assert {"conditioning_s", "denoise_s", "decode_s", "total_s"} <= recipe["timings"].keys()
    json.dumps(recipe)
    pickle.loads(pickle.dumps(made))


def test_a_recipe_fed_back_gives_the_same_bytes(tmp_path: Path) -> None:
    first = list(modes.generate({"prompt": "slow piano", "duration_s": 10, "inference_steps": 8}, tmp_path))[-1]
    again = first.metadata
    values = {name: again[name] for name in ("prompt", "lyrics", "duration_s", "instrumental")}
    second = list(modes.generate({**values, **again["advanced"], **again["lm"]}, tmp_path))[-1]
    assert Path(first.path).read_bytes() == Path(second.path).read_bytes()
    assert first.path != second.path


def test_two_takes_never_share_a_guessable_name(tmp_path: Path) -> None:
    request = Generate.parse(WORDS)
    names = {Path(written(tone(), tmp_path, request).path).stem for _ in range(3)}
    assert len(names) == 3
    assert all(len(name.rsplit("-", 1)[1]) >= 16 for name in names)  # 64 bits in hex


def test_bad_values_are_refused_before_the_gate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def never(request: Generate) -> Iterator[Progress]:
        raise AssertionError("a GPU second was spent")

    monkeypatch.setattr(backend, "answer", never)
    with pytest.raises(KnobError, match="BPM must be a whole number from 30 to 300"):
        list(modes.generate({**WORDS, "bpm": 7}, tmp_path))


def test_a_loud_take_is_turned_down_and_says_so(tmp_path: Path) -> None:
    made = written(tone(4.0), tmp_path)
    assert made.metadata["audio"]["gain_db"] == pytest.approx(-13.04, abs=0.01)
    assert np.abs(soundfile.read(made.path)[0]).max() == pytest.approx(10 ** (-1 / 20), abs=1e-5)
    assert written(tone(), tmp_path).metadata["audio"]["gain_db"] == 0


def test_a_take_that_sounds_like_noise_says_so(tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, 480_000))
    made = written(noise, tmp_path)
    assert made.metadata["warnings"] == ["This take sounds like noise. Try a shorter prompt or another seed."]
    assert "sounds like noise" in modes.summary(made)
    assert written(tone(), tmp_path).metadata["warnings"] == []


@pytest.mark.parametrize("samples", [np.full((2, 480_000), np.nan), np.zeros((2, 480_000)), tone(seconds=9)])
def test_unusable_output_leaves_no_file(monkeypatch: pytest.MonkeyPatch, samples: np.ndarray, tmp_path: Path) -> None:
    monkeypatch.setattr(backend, "answer", lambda request: iter([sound_of(samples)]))
    with pytest.raises(BadOutput):
        list(modes.generate(WORDS, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_unforeseen_errors_get_an_incident_code() -> None:
    def broken(values: dict, folder: Path) -> Iterator[Progress]:
        yield Progress("Denoising")
        raise ZeroDivisionError("secret path /home/x")

    events = modes.run(broken, WORDS)
    next(events)
    with pytest.raises(EngineFault, match=r"incident [0-9a-f]{8}") as caught:
        next(events)
    assert "secret" not in str(caught.value)


def test_knobs_that_cannot_act_are_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = {name for name, k in KNOBS.items() if k.group == "5Hz LM"}
    assert modes.unavailable() == dict.fromkeys(lm, "needs the planner")
    monkeypatch.setenv("ACE_MODEL", "xl-turbo")
    turbo = modes.unavailable()
    sketch = {"thinking", "lm_cfg_scale", "lm_negative_prompt"}
    assert turbo.keys() == {"guidance_scale", "cfg_interval_start", "cfg_interval_end", "use_adg"} | sketch
    assert all("no audio tokenizer" in turbo[name] for name in sketch)
    monkeypatch.setenv("ACE_PLANNER", "none")
    assert lm <= modes.unavailable().keys()
    monkeypatch.setenv("ACE_MODEL", "xl-sft")
    monkeypatch.delenv("ACE_PLANNER")
    assert modes.unavailable() == {}


@pytest.mark.parametrize("model", CHECKPOINTS)
def test_defaults_follow_the_checkpoint(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    monkeypatch.setenv("ACE_MODEL", model)
    expected = {
        "xl-sft": (27, 1.0, 7.0, 30),
        "xl-turbo": (8, 3.0, 1.0, 30),
        "demo": (27, 1.0, 3.0, 10),
        "random:xl-sft": (27, 1.0, 7.0, 30),
    }[model]
    given = modes.defaults()
    assert tuple(given[n] for n in ("inference_steps", "shift", "guidance_scale", "duration_s")) == expected
    Generate.parse({"prompt": "x"}, given)
    for mode in MODES:
        own = modes.defaults(mode)
        assert own.keys() == controls(mode).keys()
        assert {name: own[name] for name in KNOBS} == {name: given[name] for name in KNOBS}


SIGNATURES = {
    Generate: ("prompt lyrics duration_s instrumental", "retakes plan loras"),
    Cover: ("source_audio reference_audio prompt lyrics cover_strength", "retakes plan loras"),
    Extend: ("source_audio prompt lyrics extra_duration_s side context_s crossfade_s", "retakes plan loras"),
    Edit: (
        "source_audio sub_mode prompt source_caption source_lyrics target_lyrics regions repaint_mode repaint_strength "
        "n_min n_max n_avg",
        "retakes plan loras keep_words",
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_the_endpoint_carries_the_controls_names_defaults_and_words(mode: type[SongRequest]) -> None:
    call, (before, after) = modes.endpoint(mode), SIGNATURES[mode]
    parameters = inspect.signature(call).parameters
    first, *others = names = [*before.split(), *KNOBS, *after.split()]
    assert list(parameters) == names == list(controls(mode))
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


def call(mode: type[SongRequest] = Generate, **changed: object) -> Iterator[tuple]:
    """An endpoint, called by position as gradio does."""
    values = {**modes.defaults(mode), "prompt": "slow piano", "inference_steps": 8, **changed}
    return modes.endpoint(mode)(*values.values())


def test_the_endpoint_yields_progress_then_file_and_recipe(tmp_path: Path) -> None:
    outputs = []
    for file, metadata in call(duration_s=10, seed=3):
        if file:
            assert Path(file["path"]).is_file()  # while the caller has it
        outputs.append((file, metadata))
    assert {"phase": "Denoising", "step": 3, "of": 8} in [m for f, m in outputs if f is None]
    file, metadata = outputs[-1]
    assert metadata["seed"] == 3 and file["meta"] == {"_type": "gradio.FileData"}
    assert list((tmp_path / "scratch").iterdir()) == []  # and gone afterwards


def test_the_endpoint_raises_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(gr.Error) as caught:
        list(call(inference_steps=27.5))
    assert caught.value.message == "Inference steps must be a whole number from 8 to 80; it is 27.5."
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.fixture
def upload(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A second of sound in the upload folder."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    (tmp_path / "gradio").mkdir()
    path = str(tmp_path / "gradio" / "song.wav")
    soundfile.write(path, tone(seconds=1).T, 48_000, subtype="PCM_16")
    return path


def test_a_file_is_known_by_its_place_in_the_upload_folder(upload: str) -> None:
    k = controls(Cover)["reference_audio"]
    assert modes.uploaded({"path": upload}, k) == upload
    assert modes.uploaded(FileData(path=upload), k) == upload
    assert [modes.uploaded(nothing, k) for nothing in (None, "", {})] == [None] * 3
    os.utime(upload, (0, 0))
    modes.uploaded({"path": upload}, k)
    assert Path(upload).stat().st_mtime > 0, "a file in use is not swept by its age"
    gone = upload.replace("song", "gone")
    assert modes.uploaded({"path": gone}, k) == gone, "that it is gone is said by whoever opens it"


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
            modes.uploaded(value, controls(Cover)["reference_audio"])
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
            modes.uploaded(value, controls(Cover)["reference_audio"])


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


@pytest.mark.parametrize(
    "mode, values, sentence",
    [
        (Cover, {}, "Song to cover is missing: add a recording first."),
        (Extend, {}, "Song to extend is missing: add a recording first."),
        (Edit, {}, "Song to edit is missing: add a recording first."),
        (Cover, {"reference_audio": "words.wav"}, "Not a WAV, FLAC, OGG, MP3 or AIFF file."),
        (Extend, {"source_audio": "gone.wav"}, "The upload has expired; please add it again."),
        (Edit, {"source_audio": "song.wav"}, "Regions are missing: mark the part of the song to change."),
        (Edit, {"source_audio": "song.wav", "regions": [[0.5, 1.5]]}, "Region 0.5 to 1.5 s must lie within the song, 0 to 1.00 s."),
    ],
)  # fmt: skip
def test_bad_recordings_and_regions_are_refused_before_the_gate(
    monkeypatch: pytest.MonkeyPatch, upload: str, mode: type[SongRequest], values: dict, sentence: str
) -> None:
    Path(upload).with_name("words.wav").write_text("no music")
    files = {n: str(Path(upload).with_name(v)) for n, v in values.items() if n.endswith("_audio")}
    monkeypatch.setattr(backend, "answer", lambda request: pytest.fail("a GPU second was spent"))
    with pytest.raises(StudioError) as refused:
        list(modes.run(modes.HANDLERS[mode], values | files))
    assert str(refused.value) == sentence


def test_turbo_says_what_it_cannot_do_before_it_reads_a_file(monkeypatch: pytest.MonkeyPatch, upload: str) -> None:
    monkeypatch.setenv("ACE_MODEL", "xl-turbo")
    song, lacks = {"source_audio": upload}, CHECKPOINTS["xl-turbo"].lacks
    assert modes.ask(Extend, song).mode == "extend" and modes.ask(Edit, {**song, "regions": [[0, 1]]}).mode == "edit"
    monkeypatch.setattr(audio_io, "admit", lambda path: pytest.fail("a file was read in vain"))
    for mode, values, reason in (
        (Cover, song, lacks["cover"]),
        (Edit, {**song, "sub_mode": "flow_edit"}, TURBO_LACKS["flow_edit"]),
    ):
        with pytest.raises(KnobError) as refused:
            modes.ask(mode, values)
        assert str(refused.value) == reason


@pytest.mark.parametrize("beside, others", [({}, 12), ({"sub_mode": "flow_edit", "source_caption": "drums"}, 13)])
def test_an_edit_says_which_controls_are_idle_and_what_it_kept(upload: str, beside: dict, others: int) -> None:
    *_, (_, told) = call(Edit, source_audio={"path": upload}, regions=[[0.2, 0.6]], seed=3, **beside)
    values = {"source_audio": audio_io.admit(upload), "regions": [[0.2, 0.6]], **beside}
    idle = Edit.parse(values).idle
    assert told["inactive"] == idle | modes.unavailable() and len(idle) == others
    kept = told["receipt"]["kept"]
    assert (kept["samples"], kept["identical"]) == ((0, None) if beside else (0.6 * 48_000, True))


def test_a_full_disk_costs_the_file_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(samples: np.ndarray, path: Path, exact: bool) -> None:
        path.with_suffix(".part").write_bytes(b"half")
        raise DiskFull("The disk is full.")

    with monkeypatch.context() as during:
        during.setattr(audio_io, "write_wav", full)
        with pytest.raises(StudioError, match="disk is full"):
            list(modes.run(modes.generate, WORDS))
    assert list((tmp_path / "scratch").iterdir()) == []
    assert isinstance(list(modes.generate(WORDS, tmp_path))[-1], Take)
