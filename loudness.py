"""How loud a song is, and bringing it to a target: LUFS of ITU-R BS.1770-4, true peak, a true-peak limiter.

Loudness is measured by pyloudnorm, with the filters that give the coefficients of BS.1770-4 at 48 kHz. True peak is the
highest of the signal and three points between any two samples (BS.1770-4, annex 2: oversampling by four), interpolated with
a Kaiser-windowed sinc of 32 samples. Four points may all miss a peak: by 0.2 dB at most below a quarter of the sample rate,
by 0.7 dB at half of it.

All else happens in hops of 32 samples (0.67 ms). For each the limiter knows how high the signal comes, and takes the gain
that this leaves room for; a sliding minimum and two sliding means make a smooth gain of it that is never above what any hop
needs. As a hop's share in the loudness is known too, the steady gain is found on the hops alone; the song itself is limited
and measured once or twice, `ROUNDS` times at most.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from errors import AudioError
from sound import SAMPLE_RATE

TARGETS = (-9, -14, -16, -23)  # LUFS: as loud as records are, streaming, podcasts, broadcast (EBU R 128)
CEILING_DB = -1.0  # dBTP: EBU R 128
SHORTEST_S = 0.4  # one gating block of BS.1770
MOST_LIMITED_DB = 12.0  # the limiter turns nothing down further: beyond it a song sounds crushed
MISSED_LU = 0.5  # further from the target than this, it is said
SILENT_DB = -60.0  # dBFS: a take that stays below has nothing to be heard
MOST_OFFSET = 0.5  # of full scale: a constant offset is never raised beyond, it would leave the sound no room

MARGIN_DB = 0.05  # kept below the ceiling: meters differ in the third digit, and a moving gain adds as little
CLOSE_LU = 0.05  # nearer to the target than this nothing is done over
ROUNDS = 4  # how often a song is limited and measured at most
HOP = 32  # samples for which the limiter knows one peak and one power
LOOK_S = 0.0107  # the gain starts to fall so long before a peak, and has risen so long after it
TAPS = 16  # samples on either side of a point between samples
BETA = 9.0  # of the Kaiser window: with 32 taps the filter is ffmpeg's own, which the tests hold it against
BATCH = 32  # hops in one product: small enough that BLAS starts no threads, which cost more than they bring here
CHUNK = 32 * BATCH  # hops at a time: the products stay in the processor's cache

Hops = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Loudness:
    """How loud a recording is.

    `lufs` is its integrated loudness, None for silence and under 0.4 s; `true_peak_db` is in dBTP, None for silence.
    """

    lufs: float | None
    true_peak_db: float | None

    @property
    def facts(self) -> dict[str, float | None]:
        """Both as JSON values, to 0.01."""
        return {"lufs": _rounded(self.lufs), "true_peak_db": _rounded(self.true_peak_db)}


@dataclass(frozen=True, eq=False)
class Levelled:
    """A recording brought to a target: samples float32 [2, n], as long as before.

    `gain_db` is the steady gain, `limited_db` the most that the limiter turned down on top of it (0 or more), `target` is in
    LUFS.
    """

    samples: np.ndarray
    before: Loudness
    after: Loudness
    gain_db: float
    limited_db: float
    target: float

    @property
    def missed(self) -> bool:
        """Whether the loudness differs from the target by more than 0.5 LU, as limiting further would do harm."""
        return self.after.lufs is None or abs(self.after.lufs - self.target) > MISSED_LU

    @property
    def facts(self) -> dict[str, Any]:
        """What a recipe says of it."""
        gains = {"gain_db": _rounded(self.gain_db), "limited_db": _rounded(self.limited_db)}
        seen = {"before": self.before.facts, "after": self.after.facts}
        return {"target_lufs": self.target, **gains, **seen, "missed": self.missed}


def measure(samples: np.ndarray, rate: int = SAMPLE_RATE) -> Loudness:
    """Loudness and true peak of samples float32 [2, n] at `rate` (Hz). AudioError where a sample is no number."""
    blocks, (peaks, *_) = _read(_checked(samples), rate)
    return _loudness(_lufs(blocks), _db(peaks.max(initial=0)))


def normalise(samples: np.ndarray, target: float, rate: int = SAMPLE_RATE) -> Levelled:
    """Samples float32 [2, n] at `rate` (Hz) brought to `target` (LUFS), with a true peak of -1 dBTP at most.

    Where the peaks leave room, one gain is all that happens. Else the limiter makes the room, up to 12 dB; what it cannot
    reach so is `missed`. AudioError for silence, for less than 0.4 s, and where a sample is no number.
    """
    samples = _checked(samples)
    if samples.shape[1] < SHORTEST_S * rate:
        raise AudioError(
            "Too short to normalise: 0.4 s is the least that loudness can be measured on.",
            "Make or choose a longer take.",
        )
    blocks, hops = _read(samples, rate)
    peaks = hops[0]
    before, mean = _loudness(_lufs(blocks), _db(peaks.max())), samples.mean(axis=1, dtype=np.float64)
    swing = max((samples.max(axis=1) - mean).max(), (mean - samples.min(axis=1)).max())
    if before.lufs is None or swing < _ratio(SILENT_DB):
        raise AudioError("Nothing to normalise: the take is silent.")
    most = _db(MOST_OFFSET / max(np.abs(mean).max(), 1e-9))
    gain = min(_steady(blocks, target), most)
    if before.true_peak_db + gain <= CEILING_DB - MARGIN_DB:
        louder = samples * np.float32(_ratio(gain))
        after = _loudness(_lufs(_blocks(louder, rate)), before.true_peak_db + gain)
        return Levelled(louder, before, after, gain, 0.0, target)
    most = min(most, CEILING_DB - MARGIN_DB - before.true_peak_db + MOST_LIMITED_DB)
    return _limited(samples, before, _Limiter(blocks, hops, rate), most, target)


def _limited(samples: np.ndarray, before: Loudness, limiter: _Limiter, most: float, target: float) -> Levelled:
    """The song through the limiter, at the gain (dB, at most `most`) that brings it to the target."""
    gain = limiter.gain(target, most)
    for left in reversed(range(ROUNDS)):
        curve = limiter.curve(gain)
        out = _shaped(samples, curve * _ratio(gain))
        blocks, (peaks, *_) = _read(out, limiter.rate)
        lufs, peak = _lufs(blocks), _db(peaks.max())
        wrong = lufs - limiter.loudness(gain, curve)  # as the hops do not know of frequencies
        better = gain if abs(lufs - target) <= CLOSE_LU else limiter.gain(target - wrong, most)
        if not left or (peak <= CEILING_DB and abs(better - gain) < CLOSE_LU / 5):
            break
        limiter.lower(peaks)
        gain = better
    if peak > CEILING_DB:  # the peak is promised, the loudness is not
        down = CEILING_DB - MARGIN_DB - peak
        out, gain, peak = out * np.float32(_ratio(down)), gain + down, peak + down
        lufs = _lufs(_blocks(out, limiter.rate))
    limited = max(0.0, -_db(curve.min()))
    return Levelled(out, before, _loudness(lufs, peak), gain, limited, target)


class _Limiter:
    """What is known of a song's hops: the gain that each leaves room for, and what becomes of the loudness with it."""

    def __init__(self, blocks: np.ndarray, hops: Hops, rate: int) -> None:
        self.peaks, means, rest = hops
        self.blocks, self.rate = blocks, rate
        self.power = _weighted(means, rest, rate)
        self.look = 2 * max(1, round(LOOK_S * rate / HOP / 2))  # in hops
        self.steps = np.arange(len(blocks) + 3 + 1) * (rate / 10 / HOP)  # the edges of 0.1 s, in hops
        self.energy = self._energy(self.power)

    def curve(self, gain: float) -> np.ndarray:
        """What the limiter multiplies with after a steady gain (dB), at the edges of the hops [hops + 1], up to 1.

        The minimum reaches as far as the two means do together, so that they average nothing but what the hop can bear.
        """
        from scipy.ndimage import minimum_filter1d, uniform_filter1d

        room = _ratio(CEILING_DB - MARGIN_DB - gain)
        bearable = room / np.maximum(self.peaks, room)
        edges = np.append(bearable, bearable[-1])
        edges = minimum_filter1d(edges, 2 * self.look + 2, mode="nearest")  # an edge k stands between hops k - 1 and k
        for _ in range(2):
            edges = uniform_filter1d(edges, self.look + 1, mode="nearest")
        return np.minimum(edges, 1.0)

    def loudness(self, gain: float, curve: np.ndarray) -> float:
        """LUFS after a steady gain (dB) and the curve, as far as the hops can tell."""
        energy = self._energy(self.power * (0.5 * (curve[1:] + curve[:-1])) ** 2)
        kept = np.divide(energy, self.energy, out=np.ones_like(energy), where=self.energy > 0)
        return _lufs(self.blocks + gain + 10 * np.log10(np.maximum(kept, 1e-12)))

    def gain(self, target: float, most: float) -> float:
        """The lowest steady gain (dB) that reaches the target, or comes as near to it as `most` does."""
        low, high = min(_steady(self.blocks, target) - 1, most), most
        target = min(target, self.loudness(most, self.curve(most)) - CLOSE_LU / 5)
        while high - low > CLOSE_LU / 10:
            gain = (low + high) / 2
            low, high = (gain, high) if self.loudness(gain, self.curve(gain)) < target else (low, gain)
        return high

    def lower(self, peaks: np.ndarray) -> None:
        """Leave more room in the hops whose peaks came out over the ceiling."""
        self.peaks = self.peaks * np.maximum(1, peaks / _ratio(CEILING_DB - MARGIN_DB))

    def _energy(self, power: np.ndarray) -> np.ndarray:
        """Energy of each gating block, from that of the hops."""
        summed = np.interp(self.steps, np.arange(len(power) + 1), np.append(0, power.cumsum(dtype=np.float64)))
        return summed[4:] - summed[:-4]


def _shaped(samples: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Samples [2, n] times a gain that runs straight between the edges of the hops, the same on both channels."""
    edges = edges.astype(np.float32)
    gain = np.diff(edges)[:, None] * np.arange(HOP, dtype=np.float32) / HOP
    gain += edges[:-1, None]
    return samples * gain.ravel()[: samples.shape[1]]


def _checked(samples: np.ndarray) -> np.ndarray:
    """Samples as float32. AudioError where one is infinite or no number: it would spoil every figure."""
    samples = np.asarray(samples, dtype=np.float32)
    if not np.isfinite([samples.max(initial=0), samples.min(initial=0)]).all():
        raise AudioError("The take cannot be measured: some of its samples are no numbers.")
    return samples


def _read(samples: np.ndarray, rate: int) -> tuple[np.ndarray, Hops]:
    """What `_blocks` and `_hops` say, worked out side by side: numpy leaves the other core free."""
    with ThreadPoolExecutor(1) as other:
        hops = other.submit(_hops, samples)
        return _blocks(samples, rate), hops.result()


def _blocks(samples: np.ndarray, rate: int) -> np.ndarray:
    """LUFS of each gating block of 0.4 s, every 0.1 s; -inf for digital silence. A last one that is not whole is none."""
    from pyloudnorm import Meter

    count = int((samples.shape[1] / rate - SHORTEST_S) * 10 + 1e-6) + 1 if samples.shape[1] >= SHORTEST_S * rate else 0
    if not count:
        return np.zeros(0)
    meter = Meter(rate, filter_class="DeMan")  # BS.1770-4's own coefficients; the default differs by 0.04 LU at 1 kHz
    meter.integrated_loudness(samples[:, : round((count - 1) * rate / 10 + SHORTEST_S * rate)].T)
    return np.array(meter.blockwise_loudness)


def _lufs(blocks: np.ndarray) -> float:
    """Integrated loudness of gating blocks (BS.1770-4, equations 5 to 7), -inf if all are below the absolute gate."""
    loud = 10 ** (blocks[blocks >= -70] / 10)
    return float(10 * np.log10(loud[loud > loud.mean() / 10].mean())) if len(loud) else -np.inf


def _weighted(means: np.ndarray, rest: np.ndarray, rate: int) -> np.ndarray:
    """Energy of each hop, roughly as BS.1770 weights it: the bass, which is in the means, goes through its high pass.

    What changes within a hop is above the bass; its shelf, 0.7 dB at 1 kHz and 4 dB far above, is taken as 3 dB.
    """
    from pyloudnorm import IIRfilter
    from scipy.signal import lfilter

    curve = IIRfilter(0.0, 0.5003270373253953, 38.13547087613982, rate / HOP, "high_pass_DeMan")
    return HOP * np.square(lfilter(curve.b, curve.a, means)).sum(axis=0) + 2 * rest


def _steady(blocks: np.ndarray, target: float) -> float:
    """The gain (dB) that brings blocks to the target. It lifts some over the absolute gate, and so needs a few tries."""
    gain = target - _lufs(blocks)
    for _ in range(ROUNDS):
        found = _lufs(blocks + gain)
        gain += target - found if found > -np.inf else 0.0
    return gain


def _hops(samples: np.ndarray) -> Hops:
    """Of each hop of samples [2, n]: true peak over both channels (full scale is 1), mean [2, hops], energy about it.

    Nothing comes before the first sample; but ffmpeg's resampler takes the start mirrored, and the higher of both counts.
    """
    peaks, means, rest = _scan(samples)
    if samples.shape[1] > 2 * HOP:
        start = samples[:, : 2 * HOP + 1]
        mirrored, *_ = _scan(np.concatenate([start[:, :0:-1], start], axis=1))
        peaks[1] = max(peaks[1], mirrored[3])
    if len(peaks) > 2:  # what rings between the silence around the song and its first and last samples
        peaks[1], peaks[-2] = max(peaks[:2]), max(peaks[-2:])
    return peaks[1:-1], means[:, 1:-1], rest[1:-1]


def _scan(samples: np.ndarray) -> Hops:
    """As `_hops`, with one hop more before and after.

    A row holds a hop and what the filter sees around it; the points between its samples are one product with `_kernel`.
    """
    total, row = samples.shape[1], HOP + 2 * TAPS - 1
    hops = -(-total // HOP) + 2
    rows = -(-hops // BATCH) * BATCH
    peaks, means, rest = (np.zeros(shape, np.float32) for shape in (rows, (len(samples), rows), rows))
    for channel, mean in zip(samples, means, strict=True):
        for first in range(0, rows, CHUNK):
            here = slice(first, min(first + CHUNK, rows))
            start = (first - 1) * HOP - TAPS + 1
            piece = np.zeros((here.stop - first - 1) * HOP + row, np.float32)
            low, high = max(start, 0), max(min(start + len(piece), total), 0)
            piece[low - start : high - start] = channel[low:high]
            windows = np.lib.stride_tricks.sliding_window_view(piece, row)[::HOP].reshape(-1, BATCH, row)
            between = _kernel() @ windows.transpose(0, 2, 1)
            own = windows[..., TAPS - 1 : TAPS - 1 + HOP]
            for high, low in ((between.max(1), between.min(1)), (own.max(2), own.min(2))):
                np.maximum(peaks[here], np.maximum(high, -low).ravel(), out=peaks[here])
            mean[here] = own.mean(2).ravel()
            rest[here] += np.maximum(np.einsum("bij,bij->bi", own, own).ravel() - HOP * np.square(mean[here]), 0)
    return peaks[:hops], means[:, :hops], rest[:hops]


@cache
def _kernel() -> np.ndarray:
    """The matrix [3 * HOP, HOP + 31] from a row to the points at a quarter, half and three quarters after its samples."""
    taps = np.arange(1 - TAPS, TAPS + 1)
    matrix = np.zeros((3, HOP, HOP + 2 * TAPS - 1), np.float32)
    for quarter in range(3):
        away = taps - (quarter + 1) / 4
        sinc = np.sinc(away) * np.i0(BETA * np.sqrt(1 - (away / TAPS) ** 2))
        for sample in range(HOP):
            matrix[quarter, sample, sample : sample + 2 * TAPS] = sinc / sinc.sum()
    return matrix.reshape(3 * HOP, -1)


def _ratio(db: float) -> float:
    return 10 ** (db / 20)


def _db(ratio: float) -> float:
    return 20 * float(np.log10(ratio)) if ratio > 0 else -np.inf


def _loudness(lufs: float, true_peak_db: float) -> Loudness:
    return Loudness(*(value if value > -np.inf else None for value in (lufs, true_peak_db)))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 2)
