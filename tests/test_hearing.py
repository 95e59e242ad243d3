"""Tempo and key as measured: of beats and chords whose tempo and key are known, and None of what has none."""

from __future__ import annotations

import time

import numpy as np
import pytest

import fields
import hearing
from sound import SAMPLE_RATE

TONICS = {
    "major": "C Db D Eb E F F# G Ab A Bb B".split(),
    "minor": "C C# D Eb E F F# G G# A Bb B".split(),
}
TRIADS = {"major": (0, 4, 7), "minor": (0, 3, 7)}
# semitones above the tonic, and the mode of the chord
LOOPS = {
    "I-IV-V-I": [(0, "major"), (5, "major"), (7, "major"), (0, "major")],
    "vi-IV-I-V": [(9, "minor"), (5, "major"), (0, "major"), (7, "major")],
    "I-V-vi-IV": [(0, "major"), (7, "major"), (9, "minor"), (5, "major")],
    "i-iv-V-i": [(0, "minor"), (5, "minor"), (7, "major"), (0, "minor")],
    "i-iv-v-i": [(0, "minor"), (5, "minor"), (7, "minor"), (0, "minor")],
}
EIGHTHS = tuple(np.arange(8) / 2)


def stereo(mono: np.ndarray) -> np.ndarray:
    return np.stack([mono, mono]).astype(np.float32)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE))


def placed(seconds: float, times: object, sound: np.ndarray) -> np.ndarray:
    """A sound at each of some times, in seconds."""
    song = np.zeros(round(seconds * SAMPLE_RATE) + len(sound))
    for at in np.round(np.asarray(times) * SAMPLE_RATE).astype(int):
        if at + len(sound) <= len(song):
            song[at : at + len(sound)] += sound
    return song[: round(seconds * SAMPLE_RATE)]


def decaying(seconds: float, rate: float) -> tuple[np.ndarray, np.ndarray]:
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return t, np.exp(-rate * t)


def click() -> np.ndarray:
    t, fall = decaying(0.05, 120)
    return np.sin(2 * np.pi * 1500 * t) * fall * 0.5


def drums() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kick, snare, hi-hat."""
    t, fall = decaying(0.25, 18)
    kick = np.sin(2 * np.pi * (50 * t + 4 * (1 - np.exp(-40 * t)))) * fall
    return kick * 0.4, noise(0.25, 1) * fall**1.4 * 0.15, np.diff(noise(0.25, 2), append=0) * fall**4 * 0.1


def clicks(bpm: float, seconds: float) -> np.ndarray:
    return stereo(placed(seconds, np.arange(0, seconds, 60 / bpm), click()))


def beat(bpm: float, seconds: float, parts: tuple = ((0, 2), (1, 3), EIGHTHS), bar: int = 4) -> np.ndarray:
    """Kick, snare and hi-hat where `parts` has them, in beats of a bar."""
    starts = np.arange(0, seconds * bpm / 60, bar)
    song = 0.0
    for sound, part in zip(drums(), parts, strict=True):
        song = song + placed(seconds, np.add.outer(starts, np.array(part, float)).ravel() * 60 / bpm, sound)
    return stereo(song)


def tone(midi: float, seconds: float, loud: float) -> np.ndarray:
    t, fall = decaying(seconds, 1.5)
    hz = 440 * 2 ** ((midi - 69) / 12)
    edges = np.minimum(1, t / 0.01) * np.minimum(1, (seconds - t) / 0.02)
    return loud * fall * edges * sum(np.sin(2 * np.pi * hz * k * t) / k**1.3 for k in range(1, 6))


def chords(loop: str, tonic: int, cents: float = 0, seconds: float = 0.5, times: int = 2) -> np.ndarray:
    """A chord progression over a bass that walks from the root of each chord to its fifth."""
    song = []
    for root, mode in LOOPS[loop] * times:
        chord = sum(tone(60 + (tonic + root + note) % 12 + cents / 100, seconds, 0.15) for note in TRIADS[mode])
        bass = [
            tone(36 + (tonic + root) % 12 + step + cents / 100, seconds / 2, loud)
            for step, loud in ((0, 0.3), (7, 0.2))
        ]
        song.append(chord)
        song[-1][: 2 * len(bass[0])] += np.concatenate(bass)[: len(chord)]
    return stereo(np.concatenate(song))


# Tempo


@pytest.mark.parametrize("bpm", [30, 41.3, 60, 97.3, 118, 133.7, 170, 222.2, 300])
@pytest.mark.parametrize("seconds, off", [(20, 0.11), (8, 0.3)])
def test_clicks_are_measured_to_a_tenth(bpm: float, seconds: float, off: float):
    assert hearing.tempo(clicks(bpm, seconds), near=bpm * 1.04) == pytest.approx(bpm, abs=off)


@pytest.mark.parametrize("bpm", [80.7, 97.3, 118, 133.7])
@pytest.mark.parametrize("seconds, off", [(20, 0.11), (8, 0.3)])
def test_drums_are_measured_unasked(bpm: float, seconds: float, off: float):
    assert hearing.tempo(beat(bpm, seconds)) == pytest.approx(bpm, abs=off)


@pytest.mark.parametrize("bpm", [97.3, 118, 133.7])
def test_chords_have_a_tempo_too(bpm: float):
    assert hearing.tempo(chords("I-IV-V-I", 2, seconds=60 / bpm, times=10), bpm) == pytest.approx(bpm, abs=0.2)


def test_it_never_just_repeats_what_was_asked():
    song = beat(100, 12)
    for near in (85, 92, 96, 108, 110, 120, 130, 140):
        assert hearing.tempo(song, near) == 100.0, near
    assert hearing.tempo(clicks(100, 12), near=120) == 100.0
    assert hearing.tempo(clicks(100, 12), near=200) == 100.0, "nothing falls between the clicks"


@pytest.mark.parametrize(
    "near, bpm", [(140, 140), (70, 70), (None, 140), (0, 140), (-3, 140), (float("nan"), 140), (float("inf"), 140)]
)
def test_half_time_drums_have_both_tempos(near: float | None, bpm: float):
    assert hearing.tempo(beat(140, 12, ((0,), (2,), (0, 1, 2, 3))), near) == bpm


def test_doubles_are_heard_where_something_falls_between_the_beats():
    song = beat(80, 12, ((0, 2), (1, 3), tuple(np.arange(16) / 4)))
    assert [hearing.tempo(song, near) for near in (None, 80, 160, 40)] == [80, 80, 160, 40]
    slow = beat(60, 12, ((0, 2), (1, 3), tuple(np.arange(16) / 4)))
    assert [hearing.tempo(slow, near) for near in (60, 240)] == [60, 240]
    plain = beat(80, 12, ((0, 2), (1, 3), (0, 1, 2, 3)))
    assert hearing.tempo(plain, 160) == 80, "and not where nothing does"


def test_even_clicks_are_not_counted_in_threes():
    assert hearing.tempo(clicks(300, 12)) == 150
    assert hearing.tempo(clicks(200, 12), near=66) in (50, 100)


@pytest.mark.parametrize("bpm, near", [(100, None), (100, 140), (140, 120), (140, None)])
def test_swing_keeps_its_beat(bpm: float, near: float | None):
    song = beat(bpm, 12, ((0, 2), (1, 3), (0, 1, 5 / 3, 2, 3, 11 / 3)))
    assert hearing.tempo(song, near) == bpm


def test_players_who_are_off_the_grid_keep_their_tempo():
    off = np.random.default_rng(3).normal(0, 0.008, 60)
    song = stereo(placed(20, np.arange(60) * 60 / 118 + 0.05 + off, click()))
    assert hearing.tempo(song, 118) == pytest.approx(118, abs=0.2)


@pytest.mark.parametrize("near, bpm", [(150, 150), (None, 150), (50, 50), (120, 150)])
def test_waltz(near: float | None, bpm: float):
    assert hearing.tempo(beat(150, 12, ((0,), (1, 2), (0, 1, 2)), bar=3), near) == bpm


def test_triplets_are_a_level_where_they_are_played():
    song = beat(80, 12, ((0, 2), (1, 3), tuple(np.arange(12) / 3)))
    assert [hearing.tempo(song, near) for near in (None, 80, 240)] == [80, 80, 240]


@pytest.mark.parametrize(
    "parts",
    [
        ((0, 0.75, 1.5, 2.5), (1, 3), EIGHTHS),
        ((0, 0.75, 1.5, 2, 2.75, 3.5), (), ()),
        ((0, 1, 2, 3), (), (0.5, 1.5, 2.5, 3.5)),
    ],
    ids=["syncopated", "tresillo", "offbeats"],
)
@pytest.mark.parametrize("near", [None, 104, 115])
def test_syncopation(parts: tuple, near: float | None):
    assert hearing.tempo(beat(104, 15, parts), near) == 104


def test_a_beat_that_starts_late_and_shifts_between_parts():
    song = np.concatenate([np.zeros((2, 25 * SAMPLE_RATE), np.float32), beat(97.3, 30.2), beat(97.3, 20)], axis=1)
    assert hearing.tempo(song, 97) == pytest.approx(97.3, abs=0.1)


@pytest.mark.parametrize("seconds", [4, 8, 20])
@pytest.mark.parametrize("seed", range(3))
def test_noise_and_clicks_at_random_have_no_tempo(seconds: float, seed: int):
    assert hearing.tempo(stereo(noise(seconds, seed) * 0.1), near=120) is None
    seconds = max(seconds, 8)  # of nine clicks, three in a row may well be even
    at = np.random.default_rng(seed).uniform(0, seconds, round(seconds * 2.3))
    assert hearing.tempo(stereo(placed(seconds, at, click())), near=120) is None


def test_a_held_tone_has_neither():
    t, _ = decaying(12, 0)
    song = stereo(0.5 * np.sin(2 * np.pi * 441.7 * t))
    assert hearing.tempo(song, 120) is None and hearing.key(song, "A major") is None


# Key


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("tonic", range(12))
def test_all_keys(loop: str, tonic: int):
    mode = LOOPS["i-iv-V-i" if loop.startswith("i") else "I-IV-V-I"][0][1]
    name = f"{TONICS[mode][tonic]} {mode}"
    heard = hearing.key(chords(loop, tonic))
    assert heard == name and fields._key(heard) == heard


@pytest.mark.parametrize("cents", [-45, -20, 20, 45])
@pytest.mark.parametrize("loop, key", [("I-IV-V-I", "Eb major"), ("i-iv-V-i", "Eb minor")])
def test_a_song_that_is_out_of_tune_has_its_key(loop: str, key: str, cents: float):
    assert hearing.key(chords(loop, 3, cents)) == key


def test_a_song_halfway_between_two_tunings_is_not_split_between_them():
    song = np.concatenate([chords("I-IV-V-I", 3, 42), chords("I-IV-V-I", 3, 58)], axis=1)
    assert hearing.key(song) in ("Eb major", "E major")


@pytest.mark.parametrize("loop", ["vi-IV-I-V", "i-iv-v-i"])
def test_drums_do_not_hide_the_key(loop: str):
    song = chords(loop, 5, seconds=1)
    assert hearing.key(song + 0.7 * beat(120, song.shape[1] / SAMPLE_RATE)) == (
        "F major" if loop[0] == "v" else "F minor"
    )


def test_what_was_asked_decides_how_the_same_key_is_spelt_and_nothing_else():
    major, minor = chords("I-IV-V-I", 1), chords("i-iv-V-i", 3)
    assert [hearing.key(major, near) for near in ("Db major", "C# major", "C# minor", "C major", "db major", "x")] == [
        "Db major", "C# major", "Db major", "Db major", "Db major", "Db major"
    ]  # fmt: skip
    assert [hearing.key(minor, near) for near in ("D# minor", "Eb minor", "Eb major", "")] == [
        "D# minor", "Eb minor", "Eb minor", "Eb minor"
    ]  # fmt: skip
    assert hearing.key(chords("I-IV-V-I", 11), "Cb major") == "Cb major"


@pytest.mark.parametrize("hz", [45, 55, 61, 98])
def test_drums_have_no_key(hz: float):
    t, fall = decaying(0.4, 6)
    song = beat(120, 12) / 2 + stereo(placed(12, np.arange(0, 12, 0.5), np.sin(2 * np.pi * hz * t) * fall * 0.5))
    assert hearing.key(song, "C minor") is None
    assert hearing.key(beat(118, 12), "C minor") is None


def test_what_has_no_mode_or_all_notes_has_no_key():
    assert hearing.key(stereo(tone(60, 6, 0.2) + tone(67, 6, 0.2)), "C major") is None, "a fifth"
    scale = np.concatenate([tone(48 + note, 0.25, 0.3) for note in range(24)])
    assert hearing.key(stereo(scale), "C major") is None, "a chromatic scale"
    assert hearing.key(stereo(noise(12) * 0.1), "C major") is None
    assert hearing.key(stereo(np.cumsum(noise(12)) * 1e-4), "C major") is None


# Both


def odd() -> dict[str, np.ndarray]:
    loud = np.zeros((2, 6 * SAMPLE_RATE), np.float32)
    return {
        "silence": loud,
        "constant": loud + 0.5,
        "no samples": loud[:, :0],
        "one sample": loud[:, :1] + 1,
        "three samples": np.eye(2, 3),
        "a tenth of a second": beat(120, 0.1),
        "a second of beats": beat(240, 1)[:, : 32768 - 1],
        "one step": np.repeat([0, 1], 3 * SAMPLE_RATE)[None].repeat(2, 0),
        "beyond what float32 holds": stereo(noise(5)).astype(np.float64) * 1e300,
        "as loud as float32 holds": stereo(noise(5)).clip(-1, 1) * np.float32(3e38),
        "whispering": clicks(120, 6) * np.float32(1e-7),
        "endless": loud + np.inf,
        "no channels": loud[:0],
    }


@pytest.mark.parametrize("name", odd())
def test_what_cannot_be_measured_is_none(name: str):
    assert hearing.tempo(odd()[name], 120) is None and hearing.key(odd()[name], "C major") is None


def test_neither_level_nor_channels_nor_number_format_matter():
    song = chords("i-iv-V-i", 9, seconds=60 / 97.3, times=4) / 2
    for other in (
        song * np.float32(1e-3),
        song * np.float32(40),
        song.astype(np.float64)[:, 1:],
        (song * 20000).astype(np.int16),
        song + np.float32(0.3),
        song[:1],
        song * np.array([[1], [0]], np.float32),
        song * np.array([[0.01], [1]], np.float32),
        song * np.array([[1], [-1]], np.float32),
        np.asfortranarray(song),
    ):
        before = other.copy()
        assert hearing.tempo(other, 97) == pytest.approx(97.3, abs=0.3) and hearing.key(other) == "A minor"
        assert np.array_equal(other, before)


def test_four_minutes_take_less_than_a_second_each():
    song = np.tile(beat(118, 240 / 118 * 60 / 60), (1, 118))[:, : 240 * SAMPLE_RATE]
    for measure in (hearing.tempo, hearing.key):
        start = time.process_time()
        first = measure(song)
        assert time.process_time() - start < 2, "twice what an idle core may take"
        assert measure(song) == first
