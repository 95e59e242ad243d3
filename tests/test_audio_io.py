"""Nothing broken leaves the studio: rows G8 to G11, D1 and D2 of the fault table, and the exactness of the file."""

from __future__ import annotations

import errno
import io
import itertools
import os
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

import audio_io
import finish
from errors import BadOutput, DiskFull, ExportError
from formats import FORMATS
from sound import SAMPLE_RATE, Sound, sha256

SECONDS = 10
TIME = np.arange(SECONDS * SAMPLE_RATE) / SAMPLE_RATE


def tone(peak: float = 0.5, seconds: float = SECONDS) -> np.ndarray:
    one = np.sin(2 * np.pi * 220 * TIME[: round(seconds * SAMPLE_RATE)])
    return (peak * np.stack([one, -one])).astype(np.float32)


def sound(samples: np.ndarray, rate: int = SAMPLE_RATE) -> Sound:
    return Sound(samples, rate, {}, {})


def spoiled(value: float) -> np.ndarray:
    samples = tone()
    samples[1, 1234] = value
    return samples


# G8 to G10: what the engine may give


@pytest.mark.parametrize(
    "samples, rate, words",
    [
        (spoiled(np.nan), SAMPLE_RATE, "not finite"),
        (spoiled(-np.inf), SAMPLE_RATE, "not finite"),
        (np.zeros_like(tone()), SAMPLE_RATE, "silence"),
        (tone(peak=0.0009), SAMPLE_RATE, "silence"),
        (np.full_like(tone(), 0.5), SAMPLE_RATE, "silence"),
        (tone()[:, :1], SAMPLE_RATE, "0.00 s of sound; 10 s were asked for"),
        (tone()[:, :0], SAMPLE_RATE, "0.00 s of sound"),
        (tone(seconds=9.4), SAMPLE_RATE, "9.40 s of sound; 10 s were asked for"),
        (np.tile(tone(), 2), SAMPLE_RATE, "20.00 s of sound; 10 s were asked for"),
        (tone(), 44_100, "2 x 480000 samples at 44100 Hz instead of stereo at 48 kHz"),
        (tone()[:1], SAMPLE_RATE, "1 x 480000 samples"),
        (tone()[0], SAMPLE_RATE, "480000 samples"),
        (tone().T, SAMPLE_RATE, "480000 x 2 samples"),
    ],
)
def test_sound_that_is_no_song_is_refused_with_the_reason(samples: np.ndarray, rate: int, words: str) -> None:
    with pytest.raises(BadOutput) as refused:
        audio_io.guard(sound(samples, rate), SECONDS)
    assert words in refused.value.message


@pytest.mark.parametrize(
    "samples",
    [
        tone(),
        tone(peak=0.002),
        tone(seconds=9.5),
        tone(peak=4.0),
        tone() * np.array([[1], [0]], np.float32),
        tone() + 0.4,
    ],
    ids=["plain", "quiet", "half a second short", "clipping", "one silent channel", "off centre"],
)
def test_a_song_passes(samples: np.ndarray) -> None:
    audio_io.guard(sound(samples), SECONDS)


# G11: level


def test_a_take_that_would_clip_is_brought_to_minus_one_decibel_and_says_so() -> None:
    samples, gain = audio_io.level(tone(peak=4.0))
    assert 20 * np.log10(np.abs(samples).max()) == pytest.approx(-1, abs=1e-5)
    assert gain == pytest.approx(-1 - 20 * np.log10(4), abs=0.01)
    assert samples.dtype == np.float32
    assert np.allclose(samples, tone() * samples.max() / 0.5, atol=1e-6), "the shape must stay"


def test_a_take_that_fits_is_left_as_it_is() -> None:
    for peak in (0.01, 1.0):
        samples = tone(peak)
        levelled, gain = audio_io.level(samples)
        assert levelled is samples and gain == 0.0


# Noise texture


def noise(slope: float = 0, low: float = 20, high: float = 24_000, seed: int = 0) -> np.ndarray:
    """Stereo noise whose power falls with frequency ** slope between two edges."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal((2, TIME.size)))
    frequency = np.fft.rfftfreq(TIME.size, 1 / SAMPLE_RATE)
    inside = (frequency >= low) & (frequency <= high)
    spectrum *= np.where(inside, np.maximum(frequency, low) ** (-slope / 2), 0)
    samples = np.fft.irfft(spectrum, TIME.size)
    return (0.5 * samples / np.abs(samples).max()).astype(np.float32)


def chord(*notes: float, overtones: int = 5) -> np.ndarray:
    one = sum(np.sin(2 * np.pi * f * k * TIME) / k for f in notes for k in range(1, overtones + 1))
    return np.stack([one, one]).astype(np.float32) * 0.05


def gong(partials: int = 300) -> np.ndarray:
    """Unrelated tones: no pitch to be found, and yet no noise."""
    rng = np.random.default_rng(3)
    one = sum(np.sin(2 * np.pi * f * TIME + p) for f, p in rng.uniform((150, 0), (5000, 2 * np.pi), (partials, 2)))
    return np.stack([one, one]).astype(np.float32) * 0.01


GUSTS = np.abs(np.sin(2 * np.pi * 0.2 * TIME)).astype(np.float32)


@pytest.mark.parametrize(
    "samples",
    [noise(), noise(1), noise(2), noise(low=200, high=2000), noise(low=300, high=6000), noise(1) * GUSTS, noise() / 99],
    ids=["white", "pink", "brown", "low wind", "wind", "gusts", "soft"],
)
def test_wind_is_heard_as_noise(samples: np.ndarray) -> None:
    assert audio_io.sounds_like_noise(samples)


@pytest.mark.parametrize(
    "samples",
    [
        chord(220, 277.2, 329.6),
        chord(440, overtones=1),
        chord(110, 138.6, 164.8) + 0.1 * noise(),
        gong(),
        np.zeros_like(tone()),
        tone()[:, :1],
        np.full_like(tone(), 0.5),
    ],
    ids=["chord", "sine", "chord on a noisy tape", "gong", "silence", "one sample", "constant"],
)
def test_music_and_silence_are_not_heard_as_noise(samples: np.ndarray) -> None:
    assert not audio_io.sounds_like_noise(samples)


# The file


def write(samples: np.ndarray, path: Path, form: str = "wav24") -> None:
    """A song's file as the studio writes it: the samples, then title and recipe."""
    finish.write(path, samples, {"title": "A song", "lyrics": "la", "schema": "ace-music-studio"}, FORMATS[form])


def test_the_file_is_24_bit_stereo_at_48_khz_and_rounds_each_sample_to_the_nearest(tmp_path: Path) -> None:
    samples = np.random.default_rng(1).uniform(-1, 1, (2, 48_000)).astype(np.float32)
    samples[0, :5] = (1.0, -1.0, 0.0, 2.0**-23, -(2.0**-30))
    write(samples, tmp_path / "a.wav")
    info = soundfile.info(tmp_path / "a.wav")
    assert (info.format, info.subtype, info.samplerate, info.channels) == ("WAV", "PCM_24", 48_000, 2)
    written = soundfile.read(tmp_path / "a.wav", dtype="int32")[0].T >> 8
    assert np.array_equal(written, np.clip(np.rint(samples * 2.0**23), -(2**23), 2**23 - 1))
    held, rounded = audio_io.held(tmp_path / "a.wav"), audio_io.rounded(samples)
    assert held.dtype == rounded.dtype == np.float32
    assert sha256(held) == sha256(rounded), "to the bit: a file holds no -0"


def test_a_song_read_and_written_again_is_the_same_file(tmp_path: Path) -> None:
    write(tone(peak=0.99), tmp_path / "a.wav")
    write(audio_io.held(tmp_path / "a.wav"), tmp_path / "b.wav")
    write(tone(peak=0.99), tmp_path / "c.wav")
    files = [(tmp_path / name).read_bytes() for name in ("a.wav", "b.wav", "c.wav")]
    assert files[0] == files[2], "the same samples must give the same bytes"
    assert files[0] == files[1]


def test_an_exact_file_holds_the_very_samples_and_the_same_bytes_at_any_time(tmp_path: Path) -> None:
    samples = np.random.default_rng(2).uniform(-1.5, 1.5, (2, 4_800)).astype(np.float32)
    samples[0, :4] = (1.0, -2.0, -0.0, 2.0**-140)
    write(samples, tmp_path / "a.wav", "wav32")
    info = soundfile.info(tmp_path / "a.wav")
    assert (info.format, info.subtype, info.samplerate, info.channels) == ("WAV", "FLOAT", 48_000, 2)
    assert soundfile.read(tmp_path / "a.wav", dtype="float32")[0].T.tobytes("F") == samples.tobytes("F")
    stamped = io.BytesIO()
    soundfile.write(stamped, samples.T, 48_000, format="WAV", subtype="FLOAT")
    ours, theirs = (tmp_path / "a.wav").read_bytes(), stamped.getvalue()
    stamp = slice(theirs.index(b"PEAK") + 12, theirs.index(b"PEAK") + 16)  # behind id, size and version: the time
    assert abs(int.from_bytes(theirs[stamp], "little") - time.time()) < 60, "libsndfile tells the time there"
    assert ours[stamp] == bytes(4)
    assert ours[8 : stamp.start] == theirs[8 : stamp.start], "behind RIFF and the size of the file"
    assert ours[stamp.stop : len(theirs)] == theirs[stamp.stop :], "then come the tags"
    write(samples, tmp_path / "b.wav", "wav32")
    assert (tmp_path / "b.wav").read_bytes() == ours


def test_24_bit_samples_come_back_as_they_were(tmp_path: Path) -> None:
    samples = (np.random.default_rng(3).integers(-(2**23), 2**23, (2, 48_000)) / 2.0**23).astype(np.float32)
    samples[:, :2] = (-1.0, 1 - 2.0**-23)
    assert audio_io.survives(samples) and np.array_equal(audio_io.rounded(samples), samples)
    write(samples, tmp_path / "a.wav")
    assert np.array_equal(soundfile.read(tmp_path / "a.wav", dtype="float32")[0].T, samples)


def test_music_that_spells_the_name_of_a_chunk_stays_as_it_is(tmp_path: Path) -> None:
    """Only a float file has libsndfile's time in it; in a 24-bit one those bytes are music."""
    spelt = np.frombuffer(b"PEAK" + bytes(range(1, 45)), np.uint8).reshape(-1, 3)  # 8 frames of 2 x 3 bytes
    values = (spelt.astype(np.int32) << (8, 16, 24)).sum(axis=1, dtype=np.int32)
    samples = (values / 2.0**31).astype(np.float32).reshape(-1, 2).T
    write(samples, tmp_path / "a.wav")
    assert b"PEAK" in (tmp_path / "a.wav").read_bytes()
    assert np.array_equal(soundfile.read(tmp_path / "a.wav", dtype="float32")[0].T, samples)


HELD = [-1.0, 0.0, 1 - 2.0**-23, 2.0**-23]
LOST = [-0.0, 1.0, 1.5, -1 - 2.0**-23, 2.0**-24, 0.5 + 2.0**-24, 2.0**-140, np.nan, np.inf]


@pytest.mark.parametrize("value, fits", [*((v, True) for v in HELD), *((v, False) for v in LOST)])
def test_what_survives_in_24_bits(value: float, fits: bool) -> None:
    samples = np.zeros((2, 100), np.float32)
    assert audio_io.survives(samples) and audio_io.survives(samples[:, :0])
    samples[1, 99] = value
    assert audio_io.survives(samples) is fits


# D1: every call to the disk fails once


class File(io.FileIO):
    """A real file on the failing disk."""

    def __init__(self, path: Path, mode: str, disk: FailingDisk) -> None:
        super().__init__(path, mode)
        self.disk = disk

    def write(self, data: object) -> int:
        self.disk.touch()
        return super().write(data)


class FailingDisk:
    """The real disk up to call number `first`; from then on each call fails with `code`."""

    def __init__(self, first: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.first, self.code, self.calls = first, code, 0
        fsync, replace = os.fsync, os.replace
        monkeypatch.setattr(audio_io, "open", self.open, raising=False)
        monkeypatch.setattr(audio_io.os, "fsync", lambda fd: (self.touch(), fsync(fd)))
        monkeypatch.setattr(audio_io.os, "replace", lambda old, new: (self.touch(), replace(old, new)))

    def touch(self) -> None:
        self.calls += 1
        if self.calls >= self.first:
            raise OSError(self.code, os.strerror(self.code))

    def open(self, path: Path, mode: str) -> File:
        self.touch()
        return File(path, mode, self)


@pytest.mark.parametrize(
    "code, expected",
    [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EIO, ExportError), (errno.EACCES, ExportError)],
)
def test_a_file_appears_whole_or_not_at_all_whichever_call_fails(
    code: int, expected: type[ExportError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, before = tmp_path / "song.wav", b"the take before"
    write(tone(seconds=0.1), path)
    whole = path.read_bytes()
    for first in itertools.count(1):
        path.write_bytes(before)
        refused = None
        with monkeypatch.context() as patch:
            disk = FailingDisk(first, code, patch)
            try:
                write(tone(seconds=0.1), path)
            except ExportError as error:
                refused = type(error)
        assert list(tmp_path.iterdir()) == [path], f"the failing call {first} left something behind"
        if disk.calls < first:
            break
        assert (refused, path.read_bytes()) == (expected, before), f"call {first} failed"
    assert first > 4, "open, write, fsync and replace must each have failed once"
    assert (refused, path.read_bytes()) == (None, whole)


def test_what_libsndfile_refuses_is_an_export_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError):
        write(np.zeros((4, 70_000), np.float32), tmp_path / "a.wav")
    assert not list(tmp_path.iterdir())


# D2: scratch folders


def test_no_scratch_folder_outlives_its_request(tmp_path: Path) -> None:
    root = tmp_path / "made on demand"
    seen = set()
    for run in range(50):
        try:
            with audio_io.scratch(root) as folder:
                (folder / "inside").mkdir()
                (folder / "inside" / "song.wav").write_bytes(b"x")
                seen.add(folder.name)
                if run % 2:
                    raise BadOutput("half of them fail")
        except BadOutput:
            pass
    assert len(seen) == 50 and all(len(name) >= 16 for name in seen)
    assert not list(root.iterdir())


def test_a_request_that_is_given_up_leaves_no_folder(tmp_path: Path) -> None:
    def request():
        with audio_io.scratch(tmp_path) as folder:
            yield folder

    running = request()
    assert next(running).is_dir()
    running.close()
    assert not list(tmp_path.iterdir())


class FullDisk(type(Path())):
    """A folder on a disk without room for another."""

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))


def test_a_scratch_folder_that_cannot_be_made_is_told_in_our_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExportError), audio_io.scratch(tmp_path / "file"):
        pass
    with pytest.raises(DiskFull) as refused, audio_io.scratch(FullDisk(tmp_path)):
        pass
    assert "was made" not in refused.value.message, "no song has been made yet"
