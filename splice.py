"""New sound into old: what nobody asked to change stays as it is, bit for bit, and a receipt measures that on the file.

Samples are float32 [2, n] at 48 kHz; spans are pairs of positions in samples.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audio_io import CEILING, SILENT_BELOW, level
from remakes import RAMP_S, Edit, Extend, Span
from song import SongRequest
from sound import SAMPLE_RATE, AudioClip, sha256

log = logging.getLogger("ace.splice")

MATCH_MAX = 10 ** (3 / 20)  # the most that new sound is turned up or down to sit level with the old: 3 dB
MATCH_S = 1.0  # heard on each side of a region to tell the two levels
LEVEL_S = 3.0  # what is compared on each side of a seam: the window of short-term loudness (EBU R 128), longer than a bar's notes
DECLICK_S = 0.005  # the shortest ramp into and out of a region


@dataclass(frozen=True)
class Splice:
    """A song with new parts: `changed` spans hold new sound, the `seams` in them blend it with the old.

    The source's first sample lies at `shift`. `gain_db` is what the new sound was turned by.
    """

    samples: np.ndarray
    changed: list[Span]
    seams: list[Span]
    shift: int
    gain_db: float

    def kept(self) -> list[Span]:
        """What lies between the changed spans."""
        edges = [0, *(edge for span in self.changed for edge in span), self.samples.shape[1]]
        return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]

    def part(self, spans: list[Span]) -> np.ndarray:
        """The samples of some spans, one after the other."""
        return joined(self.samples, spans)


def whole(request: SongRequest, made: np.ndarray, start: int) -> Splice:
    """A song that is new throughout, turned down only if it would clip."""
    samples, gain_db = level(made)
    return Splice(samples, [(0, made.shape[1])], [], 0, gain_db)


def extend(request: Extend, made: np.ndarray, start: int) -> Splice:
    """A song and its extension, from the engine's rendering `made` of the heard part and the new one.

    Over the crossfade the song turns into the engine's rendering of the same music, so both ends of the seam go on
    smoothly.
    """
    song, new, after = request.source_audio.samples, request.added, request.side == "after"
    have, heard = song.shape[1], made.shape[1] - new
    fade = min(round(request.crossfade_s * SAMPLE_RATE), heard)
    again, fresh = (made[:, :heard], made[:, heard:]) if after else (made[:, new:], made[:, :new])
    gain = matching(song[:, start : start + heard], again, fresh)
    if after:
        seam, changed = (have - fade, have), (have - fade, have + new)
        blended = blend(song[:, have - fade :], again[:, heard - fade :] * gain)
        parts = [song[:, : have - fade], blended, fresh * gain]
    else:
        seam, changed = (new, new + fade), (0, new + fade)
        blended = blend(again[:, :fade] * gain, song[:, :fade])
        parts = [fresh * gain, blended, song[:, fade:]]
    samples = within(song, np.concatenate(parts, axis=1), [changed])
    return Splice(samples, [changed], [seam], 0 if after else new, _db(gain))


def repaint(request: Edit, made: np.ndarray, start: int) -> Splice:
    """A song with its regions made anew, from the engine's rendering `made` of what it heard from `start` on.

    Ramps lie inside the regions. At the song's own beginning and end there is nothing to blend with.
    """
    song, spans = request.source_audio.samples, request.spans
    ramp = round(max(RAMP_S * (1 - request.strength), DECLICK_S) * SAMPLE_RATE)
    stop = start + made.shape[1]
    near = beside(spans, start, stop)
    fresh = joined(made, [(a - start, b - start) for a, b in spans])
    gain = matching(song[:, start:stop][:, near], made[:, near], fresh)
    samples, seams = song.copy(), []
    for a, b in spans:
        width = min(ramp, (b - a) // 2)
        samples[:, a:b] = made[:, a - start : b - start] * gain
        if a > 0:
            seams.append((a, a + width))
            samples[:, a : a + width] = blend(song[:, a : a + width], samples[:, a : a + width])
        if b < song.shape[1]:
            seams.append((b - width, b))
            samples[:, b - width : b] = blend(samples[:, b - width : b], song[:, b - width : b])
    return Splice(within(song, samples, spans), spans, seams, 0, _db(gain))


def beside(spans: list[Span], start: int, stop: int) -> np.ndarray:
    """Which of the samples from `start` to `stop` lie within a second of a span and in none: bool [stop - start]."""
    near, size = np.zeros(stop - start, bool), round(MATCH_S * SAMPLE_RATE)
    for a, b in spans:
        near[max(0, a - size - start) : b + size - start] = True
    for a, b in spans:
        near[a - start : b - start] = False
    return near


def blend(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """From `old` to `new`, sounds [2, n], at a level that neither dips nor bulges.

    The gains are those of a linear blend over the power that it has between sounds as alike as these: it is linear for
    equal sounds and keeps the power between strangers.
    """
    count = old.shape[1]
    share = ((np.arange(count) + 0.5) / max(count, 1)).astype(np.float32)
    power = rms(old) * rms(new)
    alike = float(np.clip(np.mean(old * new, dtype=np.float64) / power, 0, 1)) if power else 0.0
    dip = np.sqrt((1 - share) ** 2 + share**2 + 2 * alike * share * (1 - share))
    return ((1 - share) * old + share * new) / dip


def within(song: np.ndarray, samples: np.ndarray, changed: list[Span]) -> np.ndarray:
    """Samples whose changed spans stay within full scale, or within what the song itself has: a peak where old and new
    happen to add up is cut.
    """
    top = max(1.0, float(np.abs(song).max()))
    for a, b in changed:
        np.clip(samples[:, a:b], -top, top, out=samples[:, a:b])
    return samples


def matching(old: np.ndarray, again: np.ndarray, fresh: np.ndarray) -> np.float32:
    """The gain that brings new sound level with the old, where `again` is the engine's rendering of `old`.

    Within 3 dB either way, and never so high that `fresh` would clip.
    """
    gain, loud = 1.0, rms(again)
    if loud > SILENT_BELOW and rms(old) > SILENT_BELOW:
        gain = min(max(rms(old) / loud, 1 / MATCH_MAX), MATCH_MAX)
    peak = float(np.abs(fresh).max(initial=0.0))
    return np.float32(CEILING / peak if peak * gain > 1 else gain)


def rms(samples: np.ndarray) -> float:
    """Root mean square over both channels; 0 for no samples."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if samples.size else 0.0


def receipt(splice: Splice, source: AudioClip, path: Path) -> dict[str, Any]:
    """What was kept and what was changed, measured on the written file.

    `changed` and the seams are in samples of the file. A seam's `level_db` is the level of the 3 s after it over that of
    the 3 s before it; None where one of the two is silent or missing.
    """
    import soundfile

    written = soundfile.read(path, dtype="float32")[0].T
    kept = splice.kept()
    before = sha256(joined(source.samples, [(a - splice.shift, b - splice.shift) for a, b in kept]))
    after = sha256(joined(written, kept))
    if before != after:
        log.error("kept samples differ from the source after writing")
    return {
        "source": source.facts,
        "changed": [list(span) for span in splice.changed],
        "kept": {
            "samples": sum(b - a for a, b in kept),
            "sha256": after,
            "identical": before == after if kept else None,
        },
        "seams": [{"from": a, "to": b, "level_db": step(written, (a, b))} for a, b in splice.seams],
        "gain_db": splice.gain_db,
    }


def step(samples: np.ndarray, seam: Span) -> float | None:
    """The level after a seam over that before it, in dB; None where one of the two is silent or missing."""
    size = round(LEVEL_S * SAMPLE_RATE)
    before, after = (rms(samples[:, max(0, a) : b]) for a, b in ((seam[0] - size, seam[0]), (seam[1], seam[1] + size)))
    return _db(after / before) if min(before, after) > SILENT_BELOW else None


def joined(samples: np.ndarray, spans: list[Span]) -> np.ndarray:
    """The samples of some spans, one after the other."""
    return np.concatenate([samples[:, a:b] for a, b in spans], axis=1) if spans else samples[:, :0]


def _db(gain: float) -> float:
    return round(20 * math.log10(gain), 2)
