"""What can be heard, measured: the bundled demo checkpoint covers, extends and repaints a song of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import audio_io
import backend
import modes
from remakes import Cover
from sound import Take

SONG = {"prompt": "chiptune, 8-bit lead, 8-bit drums, playful", "bpm": 120, "keyscale": "C major"}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory):
    """The handlers on the demo checkpoint, and a folder for their takes."""
    with pytest.MonkeyPatch.context() as during:
        during.setenv("ACE_MODEL", "demo")
        during.setattr(backend, "_engine", None)
        yield tmp_path_factory.mktemp("takes")


@pytest.fixture(scope="module")
def song(studio: Path) -> str:
    """Fifteen seconds at 120 beats a minute."""
    return made(modes.generate, studio, **SONG, duration_s=15, seed=3).path


def made(handler: Callable, folder: Path, **values) -> Take:
    *_, take = handler(values, folder)
    return take


def samples(path: str) -> np.ndarray:
    return soundfile.read(path, dtype="float32")[0].T


def tempo(sound: np.ndarray) -> float:
    """Beats a minute between 70 and 180: the strongest autocorrelation of the rises of loudness, at 100 frames a second."""
    mono = sound.mean(axis=0)[: sound.shape[1] // 480 * 480]
    loud = np.log(np.sqrt(np.square(mono.reshape(-1, 480)).mean(axis=1)) + 1e-4)
    rises = np.maximum(np.diff(loud), 0)
    rises -= rises.mean()
    alike = np.correlate(rises, rises, "full")[len(rises) - 1 :]
    lags = np.arange(34, 86)
    return 6000 / lags[np.argmax(alike[lags])]


def centroid(sound: np.ndarray) -> float:
    """Where the middle of the spectrum lies, in Hz."""
    mono = sound.mean(axis=0)
    power = np.abs(np.fft.rfft(mono * np.hanning(len(mono)))) ** 2
    return float((np.fft.rfftfreq(len(mono), 1 / 48_000) * power).sum() / power.sum())


def test_an_extension_is_as_long_as_asked_level_and_in_time(studio, song) -> None:
    take = made(modes.extend, studio, **SONG, source_audio=song, extra_duration_s=10, seed=1)
    longer, source, told = samples(take.path), samples(song), take.metadata["receipt"]
    assert longer.shape[1] == source.shape[1] + 480_000
    assert np.array_equal(longer[:, : 13 * 48_000], source[:, : 13 * 48_000])  # all but the crossfade of 2 s
    assert told["kept"]["identical"] is True and told["kept"]["samples"] == 13 * 48_000
    assert abs(told["seams"][0]["level_db"]) < 1
    assert tempo(source) == pytest.approx(120, rel=0.05)
    assert tempo(longer[:, 15 * 48_000 :]) == pytest.approx(tempo(source), rel=0.05)
    assert take.metadata["warnings"] == []


def test_a_repainted_region_follows_its_prompt_and_the_rest_stays(studio, song) -> None:
    part = str(studio / "part.wav")
    soundfile.write(part, samples(song)[:, : 8 * 48_000].T, 48_000, subtype="PCM_24")
    regions, asked = [[2, 6]], {"source_audio": part, "seed": 1, "inference_steps": 12}
    low, high = (
        made(modes.edit, studio, **asked, prompt=prompt, regions=regions).path
        for prompt in ("sub bass, dark, low", "music box, bright, high")
    )
    inside, source = slice(2 * 48_000, 6 * 48_000), samples(part)
    assert centroid(samples(high)[:, inside]) > 1.5 * centroid(samples(low)[:, inside])
    for path in (low, high):
        rest = samples(path)
        rest[:, inside] = source[:, inside]
        assert np.array_equal(rest, source)


def test_a_cover_leaves_its_song_the_more_the_lower_its_strength(studio, song) -> None:
    """The demo model's tokenizer is too coarse to follow a melody, as the page says; what can be seen is the distance."""
    clip, engine = audio_io.admit(song).cut(0, 4 * 48_000), backend.get_backend()

    def latents(strength: float) -> torch.Tensor:
        request = Cover.parse(
            {
                "source_audio": clip,
                "prompt": "piano ballad",
                "cover_strength": strength,
                "seed": 4,
                "inference_steps": 10,
            },
            modes.defaults(Cover),
        )
        with torch.no_grad():
            return engine.denoise(engine.conditioner.score(request), request)

    close = latents(1.0)
    distances = [(latents(strength) - close).norm().item() for strength in (0.8, 0.6, 0.4, 0.2, 0.0)]
    assert distances[0] > 0 and distances == sorted(distances)
