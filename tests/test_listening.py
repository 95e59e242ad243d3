"""What is played of a take: a small MP3 beside it with its outline, or the take itself where no MP3 can be written."""

from __future__ import annotations

import errno
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import audio_io
from errors import DiskFull, ExportError
from listening import PEAKS, preview
from sound import SAMPLE_RATE

SECONDS = 3.7


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """A take: silent in its first half, then a tone that is louder on the left."""
    t = np.arange(round(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    tone = 0.5 * np.sin(2 * np.pi * 440 * t) * (t >= SECONDS / 2)
    path = tmp_path / "ace-7-0123.wav"
    soundfile.write(path, np.stack([tone, tone / 2], axis=1), SAMPLE_RATE, subtype="PCM_24")
    return path


def full(*_: Any) -> None:
    raise DiskFull("The disk is full: the song could not be written.", "Free some space and try again.")


def no_space(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_preview_is_a_small_mp3_beside_the_song_that_plays_all_of_it(song: Path) -> None:
    original = song.read_bytes()
    heard = preview(song)
    small = Path(heard.path)
    assert (small.parent, small.suffix) == (song.parent, ".mp3") and heard.seconds == SECONDS
    assert small.stat().st_size < len(original) / 5 and song.read_bytes() == original
    assert soundfile.info(small).format == "MP3" and soundfile.info(small).channels == 2
    played, rate = soundfile.read(small, dtype="float32")
    assert abs(len(played) / rate - SECONDS) < 0.1
    middle = len(played) // 2
    quiet, loud = played[: middle - 4_800], played[middle + 4_800 : -4_800]
    assert np.abs(quiet).max() < 0.001, "what is silent stays so"
    assert np.abs(loud).max(axis=0) == pytest.approx([0.5, 0.25], rel=0.1)


def test_the_outline_shows_where_it_is_loud(song: Path) -> None:
    peaks = preview(song).peaks
    assert len(peaks) == PEAKS == 400 and all(isinstance(peak, float) and 0 <= peak <= 1 for peak in peaks)
    half = PEAKS // 2
    assert set(peaks[:half]) == {0.0} and min(peaks[half + 1 :]) > 0.98 and max(peaks) == 1


def test_songs_that_stand_side_by_side_have_previews_of_their_own(song: Path) -> None:
    other = song.with_name("ace-7-4567.wav")
    soundfile.write(other, np.full((SAMPLE_RATE, 2), 0.1), SAMPLE_RATE)
    made = [preview(path) for path in (song, other, str(song))]
    assert [heard.seconds for heard in made] == [SECONDS, 1, SECONDS]
    assert made[0] == made[2] != made[1] and made[0].path != made[1].path


@pytest.mark.parametrize("missing", ["room, as it is told", "room, as the system says it", "lameenc"])
def test_where_no_mp3_can_be_written_the_song_itself_is_played(
    missing: str, song: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usual = preview(song)
    Path(usual.path).unlink()
    if missing == "lameenc":
        monkeypatch.setitem(sys.modules, "lameenc", None)
    elif "told" in missing:
        monkeypatch.setattr(audio_io, "whole", full)
    else:
        monkeypatch.setattr(audio_io, "open", no_space, raising=False)
    with caplog.at_level(logging.WARNING, "ace.listening"):
        heard = preview(song)
    assert (heard.path, heard.seconds, heard.peaks) == (str(song), SECONDS, usual.peaks)
    assert list(song.parent.iterdir()) == [song], "no half of an MP3"
    assert "no preview" in caplog.text


def test_of_a_song_that_is_gone_there_is_no_preview(song: Path) -> None:
    song.unlink()
    with pytest.raises(ExportError, match="This take is no longer here: files are kept for an hour"):
        preview(song)
    assert list(song.parent.iterdir()) == []
