"""What is made of a take: files of every format with the recipe inside, other loudness, stems; or one sentence and no file."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny_stems

import audio_io
import backend
import finish
import modes
import recipes
import tags
from afters import AFTERS, Export, Normalise, Separate
from errors import AudioError, DiskFull, EngineMissing, ExportError, KnobError, StudioError
from formats import FORMATS
from settings import read
from song import Generate
from sound import SAMPLE_RATE, Files, Progress, Sound, Take

SECONDS = 6
MODEL = {"key": "demo", "id": "demo", "revision": None, "device": "cpu", "dtype": "float32"}


def song(seconds: float = SECONDS) -> np.ndarray:
    """Chords over a beat, 24 bit."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    chord = sum(np.sin(2 * np.pi * f * t) for f in (220, 277.18, 329.63)) / 12
    beat = np.sin(2 * np.pi * 60 * t) * np.exp(-8 * (t % 0.5)) / 3
    return audio_io.rounded(np.stack([chord + beat, 0.8 * chord + beat]).astype(np.float32))


@pytest.fixture(autouse=True)
def own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = replace(read({"ACE_MODEL": "demo"}), scratch=tmp_path / "scratch", outbox=tmp_path / "outbox")
    monkeypatch.setattr(modes, "read", lambda: own)
    monkeypatch.setenv("ACE_MODEL", "demo")


def taken(folder: Path, samples: np.ndarray) -> Take:
    request = Generate.parse({"prompt": "calm piano, rain", "lyrics": "[verse]\nla", "seed": 7})
    recipe = recipes.of(request, Sound(samples, SAMPLE_RATE, {}, MODEL), samples)
    path = folder / "take.wav"
    finish.write(path, samples, recipe, FORMATS["wav24"])
    return Take(str(path), {}, recipe)


@pytest.fixture
def take(tmp_path: Path) -> Take:
    return taken(tmp_path, song())


def made(mode: type, take: Take, **values: Any) -> Files:
    *told, last = modes.run(modes.after(mode, take), values)
    assert all(isinstance(event, Progress) for event in told)
    return last


def exported(take: Take, **values: Any) -> Path:
    return Path(made(Export, take, **values).paths[values["format"]])


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_an_export_holds_the_song_and_its_recipe(form: Any, take: Take) -> None:
    path = exported(take, format=form.key, title="Rain: a song / part 1")
    assert path.name == f"Rain a song part 1{form.suffix}"
    samples, rate = soundfile.read(path, dtype="float32")
    assert (samples.shape, rate) == ((SECONDS * SAMPLE_RATE, 2), SAMPLE_RATE)
    off = np.abs(samples.T - song()).max()
    assert off < {"mp3": 0.05, "ogg": 0.05, "wav16": 3 / 2**16}.get(form.key, 2**-24)
    found = tags.read(path)
    assert found.title == "Rain: a song / part 1" and abs(found.seconds - SECONDS) < 0.001
    recipe = json.loads(found.recipe)
    assert recipe["controls"] == take.recipe["controls"] and recipe["take"] == take.recipe["take"]
    assert recipe["after"]["format"] == form.key


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_export_gives_the_same_bytes_and_another_does_not(form: str, take: Take) -> None:
    one, same, other = (
        exported(take, format=form, **own).read_bytes() for own in ({}, {"title": ""}, {"title": "Another"})
    )
    assert one == same != other


@pytest.mark.parametrize(
    ("control", "value"), [("fade_in_s", 2.0), ("fade_out_s", 2.0), ("target_lufs", "-23"), ("sample_rate", "44100")]
)
def test_every_control_of_an_export_acts(control: str, value: Any, take: Take) -> None:
    plain, rate = soundfile.read(exported(take, format="wav24"), dtype="float32")
    changed, other = soundfile.read(exported(take, format="wav24", **{control: value}), dtype="float32")
    assert changed.shape != plain.shape or np.abs(changed - plain).max() > 0.01
    assert other == (44_100 if control == "sample_rate" else rate)
    assert abs(len(changed) / other - SECONDS) < 1e-4


def test_fades_come_from_silence_and_leave_the_rest_as_it_is(take: Take) -> None:
    x = soundfile.read(exported(take, format="wav24", fade_in_s=1, fade_out_s=2), dtype="float32")[0].T
    original, second = song(), SAMPLE_RATE
    assert np.array_equal(x[:, second : 4 * second], original[:, second : 4 * second])
    assert np.abs(x[:, :50]).max() < 1e-3 > np.abs(x[:, -50:]).max()
    middle = (
        np.abs(x[:, second // 2 - 600 : second // 2 + 600]).max()
        / np.abs(original[:, second // 2 - 600 : second // 2 + 600]).max()
    )
    assert 0.4 < middle < 0.6


def test_fades_longer_than_the_take_are_refused(take: Take) -> None:
    with pytest.raises(KnobError, match=r"^Fade in \(4 s\) and fade out \(3 s\) are longer than the take, 6\.00 s\.$"):
        made(Export, take, format="mp3", fade_in_s=4, fade_out_s=3)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"format": "exe"}, "Format must be one of mp3, flac, wav16, wav24, wav32, ogg; it is 'exe'."),
        ({"title": "x" * 121}, "Title may hold 120 characters; yours has 121."),
        ({"title": "two\nlines"}, "Title must be one line."),
        ({"fade_in_s": -1}, "Fade in (s) must be a number from 0 to 30; it is -1."),
        ({"fade_out_s": float("nan")}, "Fade out (s) must be a number from 0 to 30; it is nan."),
        (
            {"target_lufs": -10},
            "Loudness (LUFS) must be one of empty, -9, -14, -16, -23, empty = as made; it is '-10'.",
        ),
        ({"sample_rate": 96000}, "Sample rate (Hz) must be one of 48000, 44100; it is '96000'."),
        ({"path": "/etc/passwd"}, "'path' is not a control of Export."),
    ],
)
def test_bad_input_is_one_sentence_and_no_file(values: dict[str, Any], said: str, take: Take, tmp_path: Path) -> None:
    with pytest.raises(StudioError) as refused:
        made(Export, take, **values)
    assert refused.value.message == said
    assert not (tmp_path / "outbox").exists() or not list((tmp_path / "outbox").iterdir())


@pytest.mark.parametrize("target", [-14, "-14", "-14 LUFS", -14.0])
def test_a_loudness_may_be_spelt_as_a_number(target: Any) -> None:
    assert Normalise.parse({"target_lufs": target}).target_lufs == "-14"


@pytest.mark.parametrize("target", ["-9", "-14", "-16", "-23"])
def test_a_take_is_brought_to_its_loudness_and_says_so(target: str, take: Take) -> None:
    before = Path(take.path).read_bytes()
    done = made(Normalise, take, target_lufs=target)
    told = done.metadata["loudness"]
    assert told["after"]["lufs"] == pytest.approx(float(target), abs=0.15) and told["after"]["true_peak_db"] <= -1.0
    assert told["before"]["lufs"] != told["after"]["lufs"]
    assert Path(take.path).read_bytes() == before, "the take itself is as it was"
    again = exported(take, format="wav24", target_lufs=target)
    assert again.read_bytes() == Path(*done.paths.values()).read_bytes(), "an export at that loudness is the same file"


def test_silence_and_scraps_cannot_be_normalised(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="Nothing to normalise: the take is silent"):
        made(Normalise, taken(tmp_path, np.zeros((2, SAMPLE_RATE), np.float32)))
    with pytest.raises(AudioError, match="Too short to normalise"):
        made(Normalise, taken(tmp_path, song(0.3)))


@pytest.mark.parametrize("mode", AFTERS)
def test_without_a_take_there_is_nothing_to_do(mode: type) -> None:
    with pytest.raises(ExportError, match=r"^There is no take yet\. Make a song first\.$"):
        made(mode, None)


@pytest.mark.parametrize(
    ("package", "mode", "values"),
    [("demucs", Separate, {}), ("pyloudnorm", Normalise, {}), ("pyloudnorm", Export, {"target_lufs": -14})],
)
def test_without_its_package_a_thing_is_refused_with_the_reason(
    package: str, mode: type, values: dict[str, Any], take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else real(name))
    assert f"the package {package} is not installed" in finish.unavailable().values()
    with pytest.raises(ExportError, match=f"^This cannot be done here: the package {package} is not installed\\.$"):
        made(mode, take, **values)
    assert exported(take, format="flac").exists(), "the rest works"


@pytest.mark.parametrize("mode", AFTERS)
def test_a_take_that_was_swept_is_told(mode: type, take: Take) -> None:
    Path(take.path).unlink()
    with pytest.raises(ExportError, match="This take is no longer here: files are kept for an hour"):
        made(mode, take)


# Stems


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("ACE_STEMS_MODEL", str(tiny_stems.weights(tmp_path / "tiny")))
    yield
    backend._separators.clear()


def test_stems_are_four_files_and_a_zip_that_add_up_to_the_song(take: Take, tiny: None) -> None:
    done = made(Separate, take)
    names = ["vocals", "drums", "bass", "other"]
    assert list(done.paths) == [*names, "zip"]
    parts = {name: soundfile.read(done.paths[name], dtype="float32")[0].T for name in names}
    off = sum(parts.values()) - song()
    level = 20 * np.log10(np.sqrt(np.mean(off**2)) / np.sqrt(np.mean(song() ** 2)))
    assert level < -40 and done.metadata["sum_db"] == pytest.approx(level, abs=0.1)
    assert isinstance(done.metadata["rest_db"], float)
    assert [soundfile.info(done.paths[name]).samplerate for name in names] == [SAMPLE_RATE] * 4
    with zipfile.ZipFile(done.paths["zip"]) as packed:
        assert packed.namelist() == [Path(done.paths[name]).name for name in names]
        assert [packed.read(name) for name in packed.namelist()] == [Path(done.paths[n]).read_bytes() for n in names]
    assert tags.read(done.paths["bass"]).title == "calm piano, rain (bass)"
    assert json.loads(tags.read(done.paths["bass"]).recipe)["after"] == {"stem": "bass"}


def test_the_same_song_gives_the_same_stems(take: Take, tiny: None) -> None:
    one, again = (made(Separate, take).paths for _ in range(2))
    assert [Path(p).read_bytes() for p in one.values()] == [Path(p).read_bytes() for p in again.values()]


def test_stems_without_weights_are_one_sentence_and_the_song_stays(take: Take) -> None:
    with pytest.raises(EngineMissing) as refused:
        made(Separate, take)
    words = str(refused.value)
    assert words.startswith(
        "The weights of the stems model htdemucs, adefossez/HTDemucs (0.08 GB), could not be loaded"
    )
    assert "hf download adefossez/HTDemucs 955717e8.safetensors --revision" in words
    assert Path(take.path).exists()


def test_stems_too_loud_for_24_bit_are_kept_in_float(tmp_path: Path, tiny: None) -> None:
    done = made(Separate, taken(tmp_path, (song() * 1.6).clip(-1, 1)))
    forms = {soundfile.info(path).subtype for name, path in done.paths.items() if name != "zip"}
    peak = max(np.abs(soundfile.read(path)[0]).max() for name, path in done.paths.items() if name != "zip")
    assert forms == {"FLOAT" if peak > 1 else "PCM_24"}


# D1: a disk that is full at any write


class Full:
    """`open` and `os.replace` that fail at their n-th call together."""

    def __init__(self, at: int) -> None:
        self.left = at

    def wrap(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if not self.left:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args, **kwargs)

        return call


@pytest.mark.parametrize("mode", [Normalise, Export])
def test_a_full_disk_is_one_sentence_and_no_half_file(
    mode: type, take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = 0
    for at in range(1, 10):
        with monkeypatch.context() as patch:
            disk = Full(at)
            patch.setattr(audio_io, "open", disk.wrap(open), raising=False)
            patch.setattr(os, "replace", disk.wrap(os.replace))
            patch.setattr(os, "rename", disk.wrap(os.rename))
            try:
                made(mode, take)
            except DiskFull as error:
                failed += 1
                assert str(error) == "The disk is full: the song could not be written. Free some space and try again."
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert all(path.suffix != ".part" for path in files) and list((tmp_path / "scratch").iterdir()) == []
    assert failed >= 2
    assert Path(take.path).exists()
