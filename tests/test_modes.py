"""The handlers: values in at the door, a guarded and written take out, the same for page and endpoint."""

from __future__ import annotations

import inspect
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import soundfile
import tiny

import audio_io
import backend
import modes
from errors import BadOutput, DiskFull, EngineFault, KnobError, StudioError
from settings import CHECKPOINTS
from song import KNOBS, Generate, Progress, Sound, Take

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
    names = {Path(modes.take(request, sound_of(tone()), 10, tmp_path).path).stem for _ in range(3)}
    assert len(names) == 3
    assert all(len(name.rsplit("-", 1)[1]) >= 16 for name in names)  # 64 bits in hex


def test_bad_values_are_refused_before_the_gate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def never(request: Generate) -> Iterator[Progress]:
        raise AssertionError("a GPU second was spent")

    monkeypatch.setattr(backend, "sing", never)
    with pytest.raises(KnobError, match="BPM must be a whole number from 30 to 300"):
        list(modes.generate({**WORDS, "bpm": 7}, tmp_path))


def test_a_loud_take_is_turned_down_and_says_so(tmp_path: Path) -> None:
    made = modes.take(Generate.parse(WORDS), sound_of(tone(4.0)), 10, tmp_path)
    assert made.metadata["audio"]["gain_db"] == pytest.approx(-13.04, abs=0.01)
    assert np.abs(soundfile.read(made.path)[0]).max() == pytest.approx(10 ** (-1 / 20), abs=1e-5)
    assert modes.take(Generate.parse(WORDS), sound_of(tone()), 10, tmp_path).metadata["audio"]["gain_db"] == 0


def test_a_take_that_sounds_like_noise_says_so(tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, 480_000))
    made = modes.take(Generate.parse(WORDS), sound_of(noise), 10, tmp_path)
    assert made.metadata["warnings"] == ["This take sounds like noise. Try a shorter prompt or another seed."]
    assert "sounds like noise" in modes.summary(made)
    assert modes.take(Generate.parse(WORDS), sound_of(tone()), 10, tmp_path).metadata["warnings"] == []


@pytest.mark.parametrize("samples", [np.full((2, 480_000), np.nan), np.zeros((2, 480_000)), tone(seconds=9)])
def test_unusable_output_leaves_no_file(samples: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(BadOutput):
        modes.take(Generate.parse(WORDS), sound_of(samples), 10, tmp_path)
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
    assert turbo.keys() - lm == {"guidance_scale", "cfg_interval_start", "cfg_interval_end", "use_adg"}


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


def test_the_endpoint_carries_the_controls_names_defaults_and_words() -> None:
    call = modes.endpoint(Generate, modes.generate)
    parameters = inspect.signature(call).parameters
    assert list(parameters) == ["prompt", "lyrics", "duration_s", "instrumental", *KNOBS]
    assert [n for n, p in parameters.items() if p.default is inspect.Parameter.empty] == ["prompt"]
    assert parameters["guidance_scale"].default == 3.0 and parameters["bpm"].annotation == int | None
    assert call.__name__ == "generate"
    assert "bpm: Tempo in beats per minute. (30 to 300, empty = auto)" in call.__doc__


def call(**changed: object) -> Iterator[tuple]:
    """The endpoint, called by position as gradio does."""
    function = modes.endpoint(Generate, modes.generate)
    values = {**modes.defaults(), **WORDS, **changed}
    return function(*[values[name] for name in inspect.signature(function).parameters])


def test_the_endpoint_yields_progress_then_file_and_recipe(tmp_path: Path) -> None:
    outputs = []
    for file, metadata in call():
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


def test_a_full_disk_costs_the_file_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(samples: np.ndarray, path: Path) -> None:
        path.with_suffix(".part").write_bytes(b"half")
        raise DiskFull("The disk is full.")

    with monkeypatch.context() as during:
        during.setattr(audio_io, "write_wav", full)
        with pytest.raises(StudioError, match="disk is full"):
            list(modes.run(modes.generate, WORDS))
    assert list((tmp_path / "scratch").iterdir()) == []
    assert isinstance(list(modes.generate(WORDS, tmp_path))[-1], Take)
