"""Asked and got: what was measured on a finished take, beside what was asked for, in plain words."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

import measures
from sound import SAMPLE_RATE

T = np.arange(12 * SAMPLE_RATE) / SAMPLE_RATE


def chords(bpm: float) -> np.ndarray:
    """A minor, D minor, E major, A minor, each struck on two beats of a kick."""
    beat = 60 / bpm
    strike, change = np.exp(-6 * (T % beat)), (T // (2 * beat)).astype(int) % 4
    notes = np.array([(220, 261.63, 329.63), (293.66, 349.23, 220), (329.63, 415.3, 246.94), (220, 261.63, 329.63)])
    sound = sum(np.sin(2 * np.pi * notes[change, i] * T) for i in range(3)) * strike / 8
    kick = np.sin(2 * np.pi * 60 * T) * np.exp(-30 * (T % beat)) / 2
    return np.stack([sound + kick] * 2).astype(np.float32)


def told(asked: dict[str, Any], got: dict[str, Any]) -> list[str]:
    usual = {"bpm": None, "keyscale": None, "seconds": 12.0, "by": {}}
    return measures.lines({"asked": usual | asked, "measured": got})


def test_a_song_is_measured_in_all_that_can_be_asked() -> None:
    got = measures.measured(chords(100), 100, "A minor")
    assert got["bpm"] == pytest.approx(100, abs=0.3) and got["keyscale"] == "A minor"
    assert got["seconds"] == 12.0 and -40 < got["lufs"] < -5 and got["true_peak_db"] < 0.5


def test_what_was_asked_does_not_change_what_is_measured() -> None:
    assert measures.measured(chords(100), 130, "C# major")["bpm"] == pytest.approx(100, abs=0.3)
    assert measures.measured(chords(100), None, "C# major")["keyscale"] == "A minor"


def test_silence_and_scraps_have_no_measures_but_their_length() -> None:
    for samples in (np.zeros((2, SAMPLE_RATE), np.float32), chords(100)[:, :4_800]):
        got = measures.measured(samples)
        assert got["bpm"] is None and got["lufs"] is None and got["seconds"] == samples.shape[1] / SAMPLE_RATE


def test_a_song_does_without_the_package_that_measures_loudness(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyloudnorm" else real(name))
    got = measures.measured(chords(100)[:, : 5 * SAMPLE_RATE])
    assert got["lufs"] is None and got["true_peak_db"] is None and got["seconds"] == 5.0


GOT = {"bpm": 119.8, "keyscale": "C major", "lufs": -12.34, "true_peak_db": -0.81, "seconds": 12.0}
LOUD = "−12.3 LUFS, true peak −0.8 dBTP"


@pytest.mark.parametrize(
    ("asked", "got", "words"),
    [
        ({}, GOT, ["measured 119.8 BPM", "measured C major", "asked 12 s, measured 12", LOUD]),
        (
            {"bpm": 120, "keyscale": "A minor", "by": {"bpm": "asked", "keyscale": "planned"}},
            GOT,
            ["asked 120 BPM, measured 119.8", "planned A minor, measured C major", "asked 12 s, measured 12", LOUD],
        ),
        (
            {"bpm": 120, "keyscale": "A minor", "by": {"bpm": "asked", "keyscale": "asked"}},
            GOT | {"bpm": None, "keyscale": None, "lufs": None, "true_peak_db": None},
            [
                "asked 120 BPM, measured no steady beat",
                "asked A minor, measured no clear key",
                "asked 12 s, measured 12",
            ],
        ),
        ({"seconds": 29.5}, GOT, ["measured 119.8 BPM", "measured C major", "asked 29.5 s, measured 12", LOUD]),
    ],
)
def test_asked_and_got_in_plain_words(asked: dict[str, Any], got: dict[str, Any], words: list[str]) -> None:
    assert told(asked, got) == words
