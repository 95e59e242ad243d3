"""Every control of every mode changes the song, on the tiny checkpoint. A control without a row here fails the suite.

The knobs are seen on the latents; a mode's own controls on the samples of the written file, through door, gate and splice.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny
import torch

import audio_io
import backend
import lora_door
import lora_layouts
import modes
from lora_stack import Model
from plans import Plan
from remakes import MODES, Cover, Edit, Extend
from song import KNOBS, Generate, SongRequest, controls

WORDS = "[verse]\nla la la\nlo lo lo"
KNOBS_OF_ALL = {"prompt": "slow piano", "seed": 11, "inference_steps": 8}
FLOW = {"sub_mode": "flow_edit", "source_caption": "drums"}
BASE: dict[type[SongRequest], dict[str, Any]] = {
    Generate: {"lyrics": WORDS, "duration_s": 10},
    Cover: {"source_audio": "chord", "lyrics": WORDS},
    Extend: {"source_audio": "long", "lyrics": WORDS, "extra_duration_s": 5, "context_s": 5, "crossfade_s": 0.5},
    Edit: {"source_audio": "chord", "source_lyrics": WORDS, "target_lyrics": "ah", "regions": [[0.5, 1.2]]},
}
KNOB_ROWS = {  # a value for every knob that can act, other than its default and KNOBS_OF_ALL's
    "inference_steps": 9,
    "guidance_scale": 3.0,
    "infer_method": "sde",
    "seed": 12,
    "cfg_interval_start": 0.5,
    "cfg_interval_end": 0.5,
    "shift": 2.0,
    "use_adg": True,
    "bpm": 90,
    "keyscale": "A minor",
    "timesignature": "3",
    "vocal_language": "fr",
    "retakes": [[5, 0.5]],
    "plan": {"bpm": 90},
    "loras": [{"file": "lora.safetensors", "strength": 0.5}],
}
ROWS: dict[type[SongRequest], dict[str, Any]] = {  # value, or value and what it needs beside it
    Generate: {"prompt": "fast drums", "lyrics": "[verse]\noh", "duration_s": 12, "instrumental": True},
    Cover: {
        "source_audio": "noise",
        "reference_audio": "noise",
        "prompt": "fast drums",
        "lyrics": "[verse]\noh",
        "cover_strength": 0.5,
    },
    Extend: {
        "source_audio": "long noise",
        "prompt": "fast drums",
        "lyrics": "[verse]\noh",
        "extra_duration_s": 6,
        "side": "before",
        "context_s": 6,
        "crossfade_s": 1.0,
    },
    Edit: {
        "source_audio": "noise",
        "sub_mode": "flow_edit",
        "prompt": "fast drums",
        "source_caption": ("flute", FLOW),
        "source_lyrics": "[verse]\noh\nla",
        "target_lyrics": "oh",
        "regions": [[0.5, 1.2], [1.4, 1.8]],
        "repaint_mode": "aggressive",
        "repaint_strength": 0.9,
        "n_min": (0.5, FLOW),
        "n_max": (0.5, FLOW),
        "n_avg": (2, FLOW),
        "keep_words": False,
    },
}
OWN = [(mode, name) for mode in MODES for name in ROWS[mode]]
EVERY_KNOB = [(mode, beside, name) for mode, beside in [*((m, {}) for m in MODES), (Edit, FLOW)] for name in KNOB_ROWS]


def label(value: Any) -> str:
    return value.mode if isinstance(value, type) else value if isinstance(value, str) else "flow" if value else "plain"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files that a visitor might bring: 2 s and 7 s, a chord and noise."""
    folder, paths = tmp_path_factory.mktemp("recordings"), {}
    rng = np.random.default_rng(1)
    for name, seconds in (("chord", 2.0), ("long", 7.0)):
        t = np.arange(round(seconds * 48_000)) / 48_000
        chord = np.stack([np.sin(2 * np.pi * 220 * t), np.sin(2 * np.pi * 330 * t)], axis=1) * 0.3
        noise = rng.standard_normal(chord.shape) * 0.1
        for key, sound in ((name, chord), ("noise" if name == "chord" else "long noise", noise)):
            paths[key] = str(folder / f"{key}.wav")
            soundfile.write(paths[key], sound, 48_000, subtype="PCM_16")
    return paths | {"lora.safetensors": tiny.lora(folder / "lora.safetensors")}


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch, recordings: dict[str, str], tmp_path: Path):
    """Makes the song of a mode: `(samples, metadata)`. Each recording is decoded once, by the real door."""
    monkeypatch.setenv("ACE_MODEL", "demo")
    monkeypatch.setattr(backend, "_engine", tiny.engine())
    monkeypatch.setattr(audio_io, "admit", _admitted)

    def make(mode: type[SongRequest], **values: Any) -> tuple[np.ndarray, dict]:
        given = {**KNOBS_OF_ALL, **BASE[mode], **values}
        given |= {n: recordings[given[n]] for n in ("source_audio", "reference_audio") if given.get(n)}
        *_, take = modes.HANDLERS[mode](given, tmp_path)
        return soundfile.read(take.path, dtype="float32")[0].T, dict(take.metadata)

    return make


_admitted = functools.cache(audio_io.admit)


def latents(mode: type[SongRequest], recordings: dict[str, str], **values: Any) -> torch.Tensor:
    """The latents of a song: what every knob acts on, without the second that decoding takes."""
    given = {**KNOBS_OF_ALL, **BASE[mode], **values}
    given |= {n: _admitted(recordings[given[n]]) for n in ("source_audio",) if given.get(n)}
    engine, stack = tiny.engine(), [{**entry, "file": recordings[entry["file"]]} for entry in given.get("loras", ())]
    model = Model("tiny", lora_layouts.targets(engine.pipe.transformer.config))
    request, _ = mode.parse(given | {"loras": lora_door.admitted(stack, model)}).heard()
    request = request.planned(request.plan or Plan())
    with torch.no_grad(), engine.adapters.attached(request.loras):
        return engine.denoise(engine.conditioner.score(request), request)


def row(mode: type[SongRequest], name: str) -> tuple[Any, dict]:
    value = ROWS[mode][name]
    return value if isinstance(value, tuple) else (value, {})


def test_every_control_that_can_act_has_a_row() -> None:
    planners = {name for name, k in KNOBS.items() if k.group == "5Hz LM"}  # test_controls_planner.py has theirs
    elsewhere = planners | {"takes"}  # which makes several songs: test_takes.py
    for mode in MODES:
        assert ROWS[mode].keys() | KNOB_ROWS.keys() == controls(mode).keys() - elsewhere


@pytest.mark.parametrize("mode, beside, name", EVERY_KNOB, ids=label)
def test_every_knob_changes_the_song_or_says_why_not(recordings, mode, beside, name) -> None:
    if mode is Edit and not beside:
        beside = {"repaint_mode": "aggressive"}
    plain, changed = (latents(mode, recordings, **beside, **v) for v in ({}, {name: KNOB_ROWS[name]}))
    acts = not torch.equal(plain, changed)
    idle = mode.parse(
        {**BASE[mode], **KNOBS_OF_ALL, **beside, **({"source_audio": clip()} if mode is not Generate else {})}
    ).idle
    assert acts == (name not in idle)


def clip():
    from sound import AudioClip

    return AudioClip(np.zeros((2, 96_000), np.float32), {})


@pytest.mark.parametrize("mode, name", OWN, ids=label)
def test_every_control_of_a_mode_changes_the_samples(studio, mode, name) -> None:
    value, beside = row(mode, name)
    (plain, asked), (changed, _) = (studio(mode, **{**beside, **v}) for v in ({}, {name: value}))
    assert name not in asked["inactive"]
    shorter = min(plain.shape[1], changed.shape[1])
    assert not np.array_equal(plain[:, :shorter], changed[:, :shorter])


@pytest.mark.parametrize("side", ["after", "before"])
def test_crossfade_changes_the_seam_and_nothing_else(studio, side) -> None:
    (short, told), (long, wider) = (studio(Extend, side=side, crossfade_s=s) for s in (0.5, 1.0))
    (seam,) = wider["receipt"]["seams"]
    inside = slice(seam["from"], seam["to"])
    assert seam["to"] - seam["from"] == 48_000 and told["receipt"]["kept"]["samples"] == 6.5 * 48_000
    assert not np.array_equal(short[:, inside], long[:, inside])
    short[:, inside] = long[:, inside]
    assert np.array_equal(short, long)


def test_context_changes_what_is_made_and_leaves_what_was_there(studio) -> None:
    (near, told), (far, _) = (studio(Extend, context_s=s) for s in (5, 6))
    ((start, _),) = told["receipt"]["changed"]
    assert np.array_equal(near[:, :start], far[:, :start])
    assert not np.array_equal(near[:, 7 * 48_000 :], far[:, 7 * 48_000 :])


@pytest.mark.parametrize(
    "beside, name, value",
    [(FLOW, name, row(Edit, name)[0]) for name in ("regions", "repaint_mode", "repaint_strength", "keep_words")]
    + [({}, name, row(Edit, name)[0]) for name in ("source_caption", "n_min", "n_max", "n_avg")]
    + [({"repaint_mode": mode}, "repaint_strength", 0.9) for mode in ("conservative", "aggressive")]
    + [({"keep_words": False}, "source_lyrics", "oh"), ({"source_lyrics": ""}, "keep_words", False)],
    ids=label,
)
def test_a_control_said_to_be_idle_is(studio, beside, name, value) -> None:
    (plain, told), (changed, _) = (studio(Edit, **beside, **v) for v in ({}, {name: value}))
    assert name in told["inactive"]
    assert np.array_equal(plain, changed)


@pytest.mark.parametrize("mode", MODES, ids=label)
def test_a_retake_of_variance_one_is_the_take_of_its_seed(studio, mode) -> None:
    beside = {"infer_method": "sde"}
    retaken, told = studio(mode, retakes=[[77, 1]], **beside)
    plain, _ = studio(mode, seed=77, **beside)
    assert told["seed"] == 77 and told["retakes"] == []
    assert np.array_equal(retaken, plain)


@pytest.mark.parametrize("mode", MODES, ids=label)
def test_a_retake_goes_further_the_more_variance_it_has(studio, mode) -> None:
    plain, _ = studio(mode)
    same, _ = studio(mode, retakes=[[77, 0]])
    assert np.array_equal(plain, same)
    far = [np.linalg.norm(studio(mode, retakes=[[77, v]])[0] - plain) for v in (0.05, 0.3, 1)]
    assert 0 < far[0] < far[1] < far[2]
