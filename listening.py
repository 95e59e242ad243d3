"""What is played of a take: a small MP3 and the outline of its waveform, so that ten minutes do not freeze a phone.

The lossless file stays what is downloaded and worked with.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import audio_io
import formats
from errors import StudioError
from sound import SAMPLE_RATE

log = logging.getLogger("ace.listening")

PEAKS = 400  # of an outline


@dataclass(frozen=True)
class Preview:
    """What a player needs: a file that Gradio may serve, how long it sounds, its outline (0 to 1)."""

    path: str
    seconds: float
    peaks: list[float] = field(hash=False)


def preview(path: str | Path) -> Preview:
    """The preview of a written song, beside it. Where it cannot be written, the song itself is played.

    Raises ExportError when the song is gone.
    """
    samples = audio_io.held(path)
    small = Path(path).with_suffix(".preview.mp3")
    try:
        audio_io.whole(small, memoryview(formats.preview(samples, SAMPLE_RATE)))
    except (StudioError, ImportError) as error:  # a full disk; a machine without lameenc
        log.warning("no preview: %s", error)
        small = Path(path)
    return Preview(str(small), samples.shape[1] / SAMPLE_RATE, audio_io.peaks(samples, PEAKS))
