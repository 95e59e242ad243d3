"""What tempo and what key a finished song has, measured from its sound.

Tempo: where the spectrum brightens, notes begin. How well that onset curve fits itself when shifted tells which beats repeat,
and a fine search over the curve's Fourier transform tells their rate to a tenth. Key: the peaks of long spectra, folded into
twelve pitch classes, are held against what listeners expect of each key.

A song is read in blocks, as one channel at half the sample rate, so ten minutes need little memory. Constants hold for that
rate. Nothing here is random: the same samples give the same answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cache

import numpy as np

from sound import SAMPLE_RATE

RATE = SAMPLE_RATE // 2  # Hz that all is measured at: hi-hats and cymbals still sound there
BLOCK = 1 << 19  # samples at that rate in memory at a time: 22 s
SILENT = 1e-5  # RMS of what `_mono` yields, about three times the RMS of the song: below, nothing is measured
LEVEL = 0.1  # RMS that a song is brought to before its spectrum is compressed

SHORTEST_S = 4.0  # of song, for a tempo
BPM = (30.0, 300.0)
WINDOW, STEP = 1024, 240  # samples of a spectrum (43 ms) and between two (10 ms)
FRAMES_S = RATE / STEP
CHANNELS_HZ = (200, 800, 3200)  # borders of the bands whose onsets are followed apart: kick, snare, melody, hats
SMOOTH = 2.0  # frames, Gaussian: players and swing are so far from the grid
EVEN_S = 2.0  # the onset curve is taken relative to its mean over so long
ONSETS = 0.05  # the least mean onset: a held tone ripples below
SEGMENT_S = 24.0  # held against itself at once: the beat may shift between parts of a song
LONGEST_S = 8.0  # the longest repetition looked for: four of the slowest beats
TAPPED = (120.0, 0.85)  # BPM that listeners tap by themselves, and octaves around it
# BPM: a beat within is believed; beyond, without a tempo asked for, the level nearest to the tapped one is taken
UNHURRIED = (60.0, 200.0)
STEADY = 0.1  # the least mean fit of a beat and its multiples in 20 s; noise and notes at random stay below. In less
# time more repeats by chance: it grows as the song is shorter
HIGHEST_HZ = 8.0  # of the beat's harmonics in the fine search: above, the smoothed onsets hold little
FINE = 0.03  # the fine search looks so far around the beat

LONG, HOP = 16384, 8192  # samples of a spectrum for pitches (0.68 s) and between two
PITCHED_HZ = (60.0, 2000.0)
ALONE = 3  # bins on either side that a tone is the loudest of: drums' tails have a row of peaks instead
NEIGHBOURS = 68  # bins (100 Hz) whose median a tone stands out from
STANDS_OUT = 16.0  # times the median power (12 dB): of noise, one bin in 60 000 does
DEEPEST = 1e-4  # of the loudest peak's power in a spectrum (-40 dB): below, peaks are not counted
CLEAR, AHEAD = 0.65, 0.04  # the least correlation of a key, and the least that it is ahead of the next one by
FEWEST_TONES = 0.25  # share of the spectra that must hold tones
FEWEST_NOTES = 2.5  # pitch classes in use, counted by their weight: one or two make no key

KEYS = {
    "major": "C Db D Eb E F F# G Ab A Bb B".split(),
    "minor": "C C# D Eb E F F# G G# A Bb B".split(),
}
PROFILES = {
    "major": (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081),
    "minor": (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052),
}
_KEY = re.compile(r"([A-G])([#b]?) (major|minor)")


def tempo(samples: np.ndarray, near: float | None = None) -> float | None:
    """Beats per minute (30 to 300, to a tenth) of samples [2, n] at 48 kHz; None where nothing repeats steadily or under 4 s.

    Whether a listener taps every beat or every second is open in most music. Of the levels of the metre that are heard,
    this takes the one nearest to `near` (BPM asked for), or the one that most listeners would tap.

    Onsets are the spectral flux of a log-compressed spectrogram (Grosche and Müller, "Extracting predominant local pulse
    information from music recordings", 2011); beats are peaks of their autocorrelation that have peaks at their multiples
    too (Davies and Plumbley, "Context-dependent beat tracking of musical audio", 2007), weighted log-normally around 120
    BPM (Ellis, "Beat tracking by dynamic programming", 2007); their rate is where the harmonics of the Fourier tempogram
    sum highest (Peeters, "Template-based estimation of time-varying tempo", 2007).
    """
    gain = _gain(samples)
    if gain is None or samples.shape[1] < SHORTEST_S * SAMPLE_RATE:
        return None
    onsets = _onsets(samples, gain)
    if onsets.mean() < ONSETS:
        return None
    segments = _segments(_evened(onsets))
    fit = _fit(segments)
    beat = _beat(fit, max(STEADY, STEADY * 20 * FRAMES_S / onsets.shape[1]))
    if beat is None:
        return None
    bpm = _refined(segments, 60 * FRAMES_S / beat)
    levels = [bpm * ratio for ratio in _levels(fit, 60 * FRAMES_S / bpm)]
    levels = [level for level in levels if BPM[0] <= round(level, 1) <= BPM[1]]
    if near is None or not 0 < near < math.inf:
        near = bpm if UNHURRIED[0] <= bpm <= UNHURRIED[1] else TAPPED[0]
    return round(float(min(levels, key=lambda level: abs(math.log2(level / near)), default=bpm)), 1)


def key(samples: np.ndarray, near: str = "") -> str | None:
    """The key of samples [2, n] at 48 kHz, such as "C# minor" or "Bb major"; None where none is clear, or under 0.7 s.

    `near` is the key asked for: it decides how the same key is spelt, and nothing else.

    Peaks of the spectrum are folded into pitch classes around the song's own tuning (Gómez, "Tonal description of music
    audio signals", 2006). The key is the one whose profile correlates best with them (Krumhansl, "Cognitive
    Foundations of Musical Pitch", 1990); the profiles are those of Albrecht and Shanahan ("The use of large corpora to train
    a new type of key-finding algorithm", 2013), which tell minor keys and chord loops apart better than probe-tone ratings.
    """
    gain = _gain(samples)
    if gain is None or samples.shape[1] < 2 * LONG:
        return None
    chroma = _chroma(samples, gain)
    if chroma is None:
        return None
    names = [(tonic, mode) for mode in KEYS for tonic in range(12)]
    scores = np.array([np.corrcoef(np.roll(PROFILES[mode], tonic), chroma)[0, 1] for tonic, mode in names])
    best, next_best = np.argsort(scores)[::-1][:2]
    if scores[best] < CLEAR or scores[best] - scores[next_best] < AHEAD:
        return None
    tonic, mode = names[best]
    asked = _KEY.fullmatch(near)
    if (
        asked
        and asked[3] == mode
        and tonic == ("C D EF G A B".index(asked[1]) + {"#": 1, "b": -1, "": 0}[asked[2]]) % 12
    ):
        return near
    return f"{KEYS[mode][tonic]} {mode}"


def _gain(samples: np.ndarray) -> float | None:
    """What brings a song to `LEVEL`; None for what cannot be measured: silence, a constant, no samples."""
    if samples.ndim != 2 or not len(samples) or samples.shape[1] < 2:
        return None
    power = 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # what is no number shows in the sum
        for block in _mono(samples, 1, 1):
            power += float(block.var(dtype=np.float64)) * len(block)  # a constant offset is no sound
    rms = math.sqrt(power / (samples.shape[1] // 2)) if math.isfinite(power) else 0.0
    return LEVEL / rms if rms > SILENT else None


def _mono(samples: np.ndarray, size: int, step: int) -> Iterator[np.ndarray]:
    """The song as one channel at `RATE`, in stretches that hold whole frames of `size`, `step` apart."""
    have = samples.shape[1] // 2
    per = max(1, BLOCK // step)
    for first in range(0, max(1, (have - size) // step + 1), per):
        stop = min(have, (first + per - 1) * step + size)
        both = samples[:, 2 * first * step : 2 * stop].astype(np.float32)
        mono = both[0] + np.float32(0.8) * both[1:].sum(axis=0)  # not alike: channels of opposite sign must not vanish
        yield mono[0::2] + mono[1::2]


@cache
def _bands() -> tuple[np.ndarray, np.ndarray]:
    """First bins of the onset bands (one bin each up to 400 Hz, then a semitone), and the first band of each channel."""
    edges = [2]
    while edges[-1] < WINDOW // 2 - 32:
        edges.append(max(edges[-1] + 1, round(edges[-1] * 2 ** (1 / 12))))
    channel = np.searchsorted(CHANNELS_HZ, np.array(edges) * RATE / WINDOW)
    return np.array(edges), np.searchsorted(channel, np.arange(len(CHANNELS_HZ) + 1))


def _onsets(samples: np.ndarray, gain: float) -> np.ndarray:
    """How much louder each channel's bands have become within 20 ms: [channels, frames], `FRAMES_S` a second."""
    from scipy.fft import rfft  # here: importing scipy.fft takes longer than a song's tempo

    edges, starts = _bands()
    window = np.hanning(WINDOW).astype(np.float32) * np.float32(gain)
    flux, before = [], None
    for block in _mono(samples, WINDOW, STEP):
        frames = np.lib.stride_tricks.sliding_window_view(block, WINDOW)[::STEP]
        spectrum = rfft(frames * window, axis=1)
        power = np.add.reduceat(spectrum.real**2 + spectrum.imag**2, edges, axis=1)
        loud = np.log1p(np.sqrt(power))
        loud = np.concatenate([loud[:1].repeat(2, axis=0) if before is None else before, loud])
        flux.append(np.add.reduceat(np.maximum(loud[2:] - loud[:-2], 0), starts, axis=1))
        before = loud[-2:]
    return np.concatenate(flux).T


def _evened(onsets: np.ndarray) -> np.ndarray:
    """Onsets relative to their surroundings, smoothed."""
    from scipy.ndimage import gaussian_filter1d, uniform_filter1d

    onsets = onsets.astype(np.float64)
    evened = onsets - uniform_filter1d(onsets, round(EVEN_S * FRAMES_S), axis=1, mode="nearest")
    return gaussian_filter1d(evened, SMOOTH, axis=1, mode="constant")


def _segments(onsets: np.ndarray) -> np.ndarray:
    """Onsets [segments, channels, frames] in stretches that overlap by half and cover the song."""
    size = min(onsets.shape[1], round(SEGMENT_S * FRAMES_S))
    over = onsets.shape[1] - size
    starts = np.linspace(0, over, math.ceil(2 * over / size) + 1).astype(int)
    segments = np.stack([onsets[:, start : start + size] for start in starts])
    return segments - segments.mean(axis=2, keepdims=True)


def _fit(segments: np.ndarray) -> np.ndarray:
    """How well the onsets fit themselves at each shift in frames: 1 at none, about 0 where nothing repeats."""
    from scipy.fft import irfft, next_fast_len, rfft

    size = segments.shape[2]
    longest = int(min(LONGEST_S * FRAMES_S, 0.6 * size)) + 1
    spectrum = rfft(segments, next_fast_len(size + longest, real=True), axis=2)
    power = (spectrum.real**2 + spectrum.imag**2).sum(axis=(0, 1))
    fit = irfft(power, next_fast_len(size + longest, real=True))[:longest] / np.arange(size, size - longest, -1)
    return fit / max(fit[0], 1e-30)


def _at(fit: np.ndarray, shift: float) -> float:
    """The fit at a shift between two frames; 0 beyond the longest."""
    return float(np.interp(shift, np.arange(len(fit)), fit, right=0.0))


def _beat(fit: np.ndarray, least: float) -> float | None:
    """The beat in frames: the shift that repeats best, with its multiples, among those that listeners tap.

    None where the mean fit of a shift and its multiples comes to `least` nowhere.
    """
    slowest, fastest = (60 * FRAMES_S / bpm for bpm in BPM)
    best, beat = 0.0, None
    for shift in range(math.floor(fastest) - 1, min(math.ceil(slowest) + 2, len(fit) - 1)):
        left, here, right = fit[shift - 1 : shift + 2]
        if here < left or here <= right:
            continue
        peak = shift + (left - right) / (2 * (left - 2 * here + right))
        steady = np.mean([_at(fit, peak * times) for times in (1, 2, 3, 4) if peak * times < len(fit)])
        if steady < least or not fastest * 0.999 <= peak <= slowest * 1.001:
            continue
        half, more, twice, thrice, fourfold = (_at(fit, peak * times) for times in (0.5, 1.5, 2, 3, 4))
        if _at(fit, peak / 3) > 0.95 * here and half < 0.5 * here:
            continue  # even beats, counted in threes
        if half > 0.9 * here and more > 1.1 * here and thrice > 1.1 * max(twice, fourfold):
            continue  # triplets, counted in twos
        octaves = math.log2(60 * FRAMES_S / peak / TAPPED[0])
        score = steady * math.exp(-0.5 * (octaves / TAPPED[1]) ** 2)
        if score > best:
            best, beat = score, peak
    return beat


def _refined(segments: np.ndarray, bpm: float) -> float:
    """The tempo near `bpm` whose harmonics sum highest in the Fourier transform of the onsets."""
    from scipy.fft import rfft

    size = segments.shape[2]
    points = 1 << 15  # 0.003 Hz apart: the peaks of 24 s are 0.08 Hz wide
    window = np.hanning(size)
    power = np.zeros(points // 2 + 1)
    for segment in segments:
        spectrum = rfft(segment * window, points, axis=1)
        power += (spectrum.real**2 + spectrum.imag**2).sum(axis=0)
    around = np.arange(bpm * (1 - FINE), bpm * (1 + FINE), 0.01)
    hz = np.outer(np.arange(1, max(2, int(HIGHEST_HZ * 60 / bpm)) + 1), around / 60)
    height = np.interp(hz, np.arange(len(power)) * FRAMES_S / points, power).sum(axis=0)
    best = int(np.argmax(height))
    # the peak is smooth and wide: a parabola over its top finds the middle better than the highest of its points does
    below = np.flatnonzero(height < 0.9 * height[best])
    left, right = below[below < best].max(initial=-1) + 1, below[below > best].min(initial=len(height))
    half = min(best - left, right - 1 - best)
    if half < 2:
        return float(around[best])
    offset = np.arange(-half, half + 1) / half
    curve, slope, _ = np.polyfit(offset, height[best - half : best + half + 1] / height[best], 2)
    return float(around[best] - (0.01 * half * slope / (2 * curve) if curve < 0 else 0))


def _levels(fit: np.ndarray, beat: float) -> list[float]:
    """Rates, in beats, of the levels of the metre that are heard beside the beat; the beat's own, 1, is the first.

    A slower level is heard where its period repeats as the beat does. A faster one is heard where something falls between
    the beats: what falls on halves or odd quarters makes halves, and so on. Threes need more than twos have.
    """

    def repeats(times: float) -> float:
        """The fit's peak at so many beats; 0 where it has no peak within 12 ms."""
        shifts = beat * times + np.arange(-5, 6) * 0.6
        heights = [_at(fit, shift) for shift in shifts]
        return max(heights) if abs(int(np.argmax(heights)) - 5) <= 2 else 0.0

    own = _at(fit, beat)
    eighths = max(repeats(k / 8) for k in (3, 5, 11, 13))
    quarters = max(eighths, *(repeats(k / 4) for k in (1, 3, 5, 7)))
    halves = max(quarters, *(repeats(k / 2) for k in (1, 3)))
    thirds = max(repeats(k / 3) for k in (1, 2))
    heard = {
        2: halves > 0.25 * own,
        4: quarters > 0.25 * own,
        3: thirds > 0.4 * own and thirds > 1.2 * halves,
        1 / 2: repeats(2) > 0.6 * own,
        1 / 4: repeats(4) > 0.6 * own,
        1 / 3: repeats(3) > max(0.6 * own, 1.05 * repeats(2)),
        3 / 2: repeats(2 / 3) > 0.9 * own and repeats(2 / 3) > 1.1 * repeats(1 / 2),
        2 / 3: repeats(3 / 2) > max(0.9 * own, 1.1 * repeats(2)),
    }
    return [1.0, *(ratio for ratio, yes in heard.items() if yes)]


def _chroma(samples: np.ndarray, gain: float) -> np.ndarray | None:
    """How much each pitch class sounds, [12] from C, tuned as the song is; None where too few tones sound."""
    pitches, weights, toned, count = [], [], 0, 0
    for block in _mono(samples, LONG, HOP):
        frames = np.lib.stride_tricks.sliding_window_view(block, LONG)[::HOP]
        frame, pitch, weight = _tones(frames, gain)
        # a loud bar counts for more than a quiet one, but not by as much as it is louder
        loud = np.bincount(frame, weight, len(frames))[frame]
        pitches.append(pitch)
        weights.append(weight / np.sqrt(loud))
        toned += len(np.unique(frame))
        count += len(frames)
    pitch, weight = np.concatenate(pitches), np.concatenate(weights)
    if toned < FEWEST_TONES * count or not weight.sum():
        return None
    # the mean of angles: pitches are off by a part of a semitone, and a half is as far up as down
    off = np.angle(np.sum(weight * np.exp(2j * np.pi * pitch))) / (2 * np.pi)
    nearest = np.round(pitch - off)
    in_tune = np.cos(np.pi * (pitch - off - nearest)) ** 2
    chroma = np.bincount(nearest.astype(int) % 12, weight * in_tune, 12)
    share = chroma[chroma > 0] / chroma.sum()
    return chroma if math.exp(-np.sum(share * np.log(share))) >= FEWEST_NOTES else None


def _tones(frames: np.ndarray, gain: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tones in frames [k, LONG]: frame, pitch (MIDI, 69 is A at 440 Hz, with fractions) and weight of each.

    A tone is a peak that stands out from the spectrum around it. Between bins it lies at the top of the parabola through
    its logarithm (Smith and Serra, "PARSHL", 1987).
    """
    from scipy.fft import rfft
    from scipy.ndimage import maximum_filter1d

    first, last = (round(hz * LONG / RATE) for hz in PITCHED_HZ)
    blocks = math.ceil((last - first) / NEIGHBOURS)
    last = first + blocks * NEIGHBOURS
    window = np.hanning(LONG).astype(np.float32) * np.float32(gain)
    spectrum = rfft(frames * window, axis=1)[:, first - ALONE : last + ALONE]
    power = spectrum.real**2 + spectrum.imag**2 + np.float32(1e-12)
    here = power[:, ALONE:-ALONE]
    floor = np.median(here.reshape(len(here), blocks, NEIGHBOURS), axis=2).repeat(NEIGHBOURS, axis=1)
    least = np.maximum(floor * STANDS_OUT, here.max(axis=1, keepdims=True) * DEEPEST)
    loudest = maximum_filter1d(power, 2 * ALONE + 1, axis=1)[:, ALONE:-ALONE]
    frame, bin_ = np.nonzero((here == loudest) & (here > least))
    left, top, right = (np.log(power[frame, bin_ + ALONE + side]) for side in (-1, 0, 1))
    at = bin_ + first + (left - right) / (2 * (left - 2 * top + right))
    pitch = 69 + 12 * np.log2(at * RATE / LONG / 440)
    weight = np.sqrt(here[frame, bin_])
    return frame, pitch.astype(np.float64), weight.astype(np.float64)
