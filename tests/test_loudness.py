"""Loudness and the limiter, held against known signals and against a foreign meter: ffmpeg's ebur128, through PyAV."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import av
import numpy as np
import pytest
from pyloudnorm import Meter

import loudness
from errors import AudioError
from loudness import CEILING_DB, Levelled, Loudness, measure, normalise
from sound import SAMPLE_RATE


def foreign(samples: np.ndarray, rate: int = SAMPLE_RATE) -> tuple[float, float]:
    """LUFS and dBTP of samples [2, n], as ffmpeg's ebur128 reads them."""
    graph = av.filter.Graph()
    form = f"sample_rate={rate}:sample_fmt=fltp:channel_layout=stereo:time_base=1/{rate}"
    source, sink = graph.add("abuffer", form), graph.add("abuffersink")
    meter = graph.add("ebur128", "peak=true:metadata=1")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    said: dict[str, str] = {}
    for start in [*range(0, samples.shape[1], rate), None]:
        frame = None
        if start is not None:
            piece = np.ascontiguousarray(samples[:, start : start + rate])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = rate, start
        source.push(frame)
        while True:
            try:
                said = sink.pull().metadata or said
            except (av.BlockingIOError, av.EOFError):
                break
    return float(said["lavfi.r128.I"]), 20 * float(np.log10(float(said["lavfi.r128.true_peak"])))


def tone(frequency: float, seconds: float = 2.0, phase: float = 0.0) -> np.ndarray:
    """A sine of full scale [n]."""
    return np.sin(2 * np.pi * frequency * np.arange(int(SAMPLE_RATE * seconds)) / SAMPLE_RATE + phase)


def both(mono: np.ndarray) -> np.ndarray:
    """The same on both channels."""
    return np.stack([mono, mono]).astype(np.float32)


def noise(slope: float, seconds: float = 3.0, seed: int = 0) -> np.ndarray:
    """Noise [2, n] whose spectrum goes with frequency to the power of `slope`: 0 white, -0.5 pink, -1 brown, 0.5 blue."""
    count = int(SAMPLE_RATE * seconds)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal((2, count)))
    shaped = np.fft.irfft(spectrum * np.maximum(np.fft.rfftfreq(count, 1 / SAMPLE_RATE), 20) ** slope, count)
    return (0.2 * shaped / shaped.std()).astype(np.float32)


def drums(seconds: float = 4.0) -> np.ndarray:
    """A kick and a snare in turn, four a second, and a little hiss [2, n]."""
    rng, time = np.random.default_rng(1), np.arange(SAMPLE_RATE // 4) / SAMPLE_RATE
    kick = np.sin(2 * np.pi * (50 + 100 * np.exp(-40 * time)) * time) * np.exp(-12 * time)
    snare = 0.2 * rng.standard_normal(len(time)) * np.exp(-20 * time)
    beat = np.tile(np.concatenate([kick, snare]), int(seconds * 2))
    return (0.9 * np.stack([beat, 0.7 * beat]) + 0.01 * rng.standard_normal((2, len(beat)))).astype(np.float32)


def music(seconds: float = 4.0) -> np.ndarray:
    """A chord that swells, over the drums [2, n]."""
    pitches = [pitch * part for pitch in (110.0, 138.6, 164.8, 220.0) for part in range(1, 6)]
    chord = sum(tone(pitch, seconds, phase=pitch) * 110 / pitch for pitch in pitches)
    chord = 0.06 * chord * (0.6 + 0.4 * tone(1.5, seconds))
    return (np.stack([chord, np.roll(chord, 37)]) + 0.5 * drums(seconds)).astype(np.float32)


def clicks() -> np.ndarray:
    return both(np.where(np.arange(4 * SAMPLE_RATE) % 9600 == 0, 0.9, 0.1 * tone(440, 4.0)))


def bursts() -> np.ndarray:
    """Noise with bursts at a quarter of the sample rate: their samples stay 3 dB below the peaks between them."""
    hits = (np.arange(3 * SAMPLE_RATE) % 24000 < 600) * tone(SAMPLE_RATE / 4, 3.0, np.pi / 4)
    return np.float32(0.1) * noise(-0.5) + both(0.9 * hits)


CLIPS: dict[str, Callable[[], np.ndarray]] = {
    "997 Hz at an odd phase": lambda: both(0.5 * tone(997, phase=0.3)),
    "60 Hz": lambda: both(0.3 * tone(60, phase=1.0)),
    "a quarter of the rate at 45 degrees": lambda: both(0.9 * tone(12000, phase=np.pi / 4)),
    "bursts of the same": bursts,
    "square wave": lambda: both(0.5 * np.sign(tone(200, phase=0.01))),
    "fast square wave": lambda: both(0.7 * np.sign(tone(3001, phase=0.1))),
    "white noise": lambda: noise(0),
    "pink noise": lambda: noise(-0.5),
    "brown noise": lambda: noise(-1.0),
    "blue noise": lambda: noise(0.5),
    "clicks on a tone": clicks,
    "drums": drums,
    "quiet and loud": lambda: np.concatenate([music() * gain for gain in (0.02, 1.0, 0.05)], axis=1).astype(np.float32),
    "one channel": lambda: music() * np.float32([[1], [0]]),
    "near the Nyquist frequency": lambda: both(0.6 * tone(23000) + 0.2 * tone(1000)),
    "clipped": lambda: np.clip(4 * music(), -1, 1),
    "faint": lambda: music() * np.float32(0.003),
    "tone on an offset": lambda: both(0.3 * tone(330) + 0.1),
    "half a second": lambda: music(0.5),
    "thirty seconds": lambda: music(30.0),
}
TOO_DYNAMIC = {"brown noise", "clicks on a tone", "drums", "quiet and loud", "one channel", "bursts of the same"}


@pytest.mark.parametrize("name", CLIPS)
def test_a_foreign_meter_reads_the_target_and_the_ceiling(name: str) -> None:
    samples = CLIPS[name]()
    lufs, _ = foreign(samples)
    assert abs(measure(samples).lufs - lufs) < 0.05
    for target in (-9, -14, -23):
        done = normalise(samples, target)
        lufs, peak = foreign(done.samples)
        assert peak <= CEILING_DB
        assert abs(done.after.lufs - lufs) < 0.05
        assert (done.samples.shape, done.samples.dtype) == (samples.shape, np.float32)
        assert done.limited_db <= 12.1
        if target == -9 and name in TOO_DYNAMIC:
            assert lufs < -9 + 0.1
            assert done.missed == (abs(done.after.lufs + 9) > 0.5)
        else:
            assert abs(done.after.lufs - target) < 0.1
            assert abs(lufs - target) < 0.5
            assert not done.missed


@pytest.mark.parametrize("name", CLIPS)
def test_where_the_peaks_leave_room_one_gain_is_all(name: str) -> None:
    samples = CLIPS[name]()
    done = normalise(samples, -30)
    assert np.array_equal(done.samples, samples * np.float32(10 ** (done.gain_db / 20)))
    assert done.limited_db == 0
    again = measure(done.samples)
    assert again.lufs == pytest.approx(-30, abs=0.01)
    assert again.true_peak_db == pytest.approx(done.after.true_peak_db, abs=1e-3)


def test_at_full_scale_997_hz_reads_what_the_standard_says() -> None:
    """BS.1770-4: a sine of 0 dBFS at 997 Hz in one front channel reads -3.01 LKFS; on both 3.01 LU more."""
    full = both(tone(997, 5.0))
    left = full * np.float32([[1], [0]])
    assert measure(left).lufs == pytest.approx(-3.01, abs=0.01)
    assert measure(full).lufs == pytest.approx(0.0, abs=0.01)
    assert measure(full).true_peak_db == pytest.approx(0.0, abs=0.01)
    tenth = measure(full * np.float32(0.1))
    assert (tenth.lufs, tenth.true_peak_db) == pytest.approx((-20, -20), abs=0.01)


EBU_CASES = [
    ((-36, -23, -36), (10, 60, 10)),
    ((-72, -36, -23, -36, -72), (10, 10, 60, 10, 10)),
    ((-26, -20, -26), (20, 20.1, 20)),
]


@pytest.mark.parametrize("levels, seconds", EBU_CASES)
def test_cases_3_to_5_of_ebu_tech_3341(levels: tuple[int, ...], seconds: tuple[float, ...]) -> None:
    """Sines of 1 kHz at these levels (dBFS) in turn: with the gates right, all read -23 LUFS."""
    gains = np.repeat(10 ** (np.array(levels) / 20), [int(part * SAMPLE_RATE) for part in seconds])
    sine = np.tile(tone(1000, 0.1), len(gains) // 4800)
    assert measure(both(gains * sine)).lufs == pytest.approx(-23, abs=0.1)


def test_integrated_loudness_is_that_of_pyloudnorm() -> None:
    samples = music(3.0)
    assert measure(samples).lufs == pytest.approx(
        Meter(48000, filter_class="DeMan").integrated_loudness(samples.T), abs=1e-9
    )


def test_peaks_between_samples_are_seen() -> None:
    """A quarter of the sample rate at 45 degrees: every sample is 3 dB below the peaks."""
    fade = np.clip(np.minimum(np.arange(96000), np.arange(96000)[::-1]) / 4800, 0, 1)
    samples = both(fade * tone(12000, phase=np.pi / 4))
    assert 20 * np.log10(np.abs(samples).max()) == pytest.approx(-3.01, abs=0.01)
    assert measure(samples).true_peak_db == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("place", [0, 1, 31, 32, 33, 1023 * 32 - 1, 1023 * 32, 47999])
def test_a_peak_is_seen_wherever_it_stands(place: int) -> None:
    """Two samples of the same height have a higher one between them; hops and chunks must not come between."""
    samples = np.zeros((2, 48000), np.float32)
    samples[1, max(0, place - 1) : place + 1] = 0.5
    peak = 10 ** (measure(samples).true_peak_db / 20)
    assert peak == pytest.approx(0.5 if place == 0 else 2 / np.pi, abs=0.01)
    assert measure(samples * np.float32([[0], [-1]])).true_peak_db == measure(samples).true_peak_db


def test_what_rings_into_the_silence_before_is_seen() -> None:
    samples = both(np.linspace(0.5, 0, 48000) * (-1.0) ** np.arange(48000))
    assert measure(samples).true_peak_db > 20 * np.log10(0.65)


def test_the_limiter_turns_both_channels_down_alike_and_never_up() -> None:
    samples = music(6.0) * np.float32([[1], [0.5]])
    done = normalise(samples, -9)
    assert done.limited_db > 1
    heard = np.abs(samples).min(axis=0) > 0.01
    gains = done.samples[:, heard] / samples[:, heard]
    assert np.allclose(gains[0], gains[1], rtol=1e-6)
    steady = 10 ** (done.gain_db / 20)
    assert gains.max() <= steady * (1 + 1e-6)
    assert 20 * np.log10(gains.min() / steady) == pytest.approx(-done.limited_db, abs=0.05)
    steps = np.diff(gains[0])[np.diff(np.flatnonzero(heard)) == 1]
    assert 0 < np.abs(steps).max() < 0.005 * steady


def test_far_from_peaks_the_gain_is_the_steady_one() -> None:
    samples = clicks()
    done = normalise(samples, -14)
    assert done.limited_db > 1
    between = slice(9600 + 1500, 2 * 9600 - 1500)
    assert np.array_equal(done.samples[:, between], samples[:, between] * np.float32(10 ** (done.gain_db / 20)))


def test_what_the_hops_do_not_know_of_frequencies_is_made_up_for() -> None:
    """Noise over a tone: the noise is limited, and weighs more in the loudness than its energy tells."""
    hiss = 1.5 * (np.arange(144000) % 12000 < 2400) * noise(0.5)
    done = normalise(both(0.2 * tone(900, 3.0)) + hiss, -9)
    assert 5 < done.limited_db < 10
    assert done.after.lufs == pytest.approx(-9, abs=0.1)


def test_a_few_clicks_that_stand_too_high_are_a_miss() -> None:
    samples = both(0.002 * tone(440, 3.0))
    samples[:, 48000::24000] = 1.0
    done = normalise(samples, -9)
    assert done.missed
    assert done.facts["missed"] is True
    assert foreign(done.samples)[1] <= CEILING_DB
    assert 11 < done.limited_db <= 12.1


def test_missed_is_half_a_loudness_unit() -> None:
    for lufs, missed in ((-14.4, False), (-13.6, False), (-14.6, True), (-13.4, True), (None, True)):
        assert Levelled(np.zeros((2, 1)), Loudness(-20, -3), Loudness(lufs, -3), 0.0, 0.0, -14).missed == missed


SILENCES = {
    "zeros": np.zeros((2, 48000), np.float32),
    "full-scale offset": np.ones((2, 48000), np.float32),
    "faint tone on an offset": both(0.0005 * tone(330) + 0.2),
    "below -60 dBFS": both(0.0009 * tone(3000)),
    "below the gate": both(1e-5 * tone(1000)),
}


@pytest.mark.parametrize("samples", SILENCES.values(), ids=SILENCES)
def test_silence_is_refused(samples: np.ndarray) -> None:
    with pytest.raises(AudioError, match=r"Nothing to normalise: the take is silent\."):
        normalise(samples, -14)


def test_an_offset_is_not_raised_beyond_half_of_full_scale() -> None:
    done = normalise(both(0.01 * tone(330) + 0.1), -14)
    assert done.missed
    assert np.abs(done.samples.mean(axis=1)).max() < 0.51


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 65, 19199])
def test_less_than_a_gating_block_has_no_loudness(count: int) -> None:
    samples = both(0.5 * tone(997))[:, :count]
    read = measure(samples)
    assert read.lufs is None
    assert (read.true_peak_db is None) == (count < 2)
    with pytest.raises(AudioError, match=r"Too short to normalise: 0\.4 s"):
        normalise(samples, -14)


@pytest.mark.parametrize("rate", [44100, 48000])
def test_one_gating_block_is_enough(rate: int) -> None:
    count = round(0.4 * rate)
    samples = both(0.5 * np.sin(2 * np.pi * 997 * np.arange(count) / rate))
    assert normalise(samples, -14, rate).after.lufs == pytest.approx(-14, abs=0.1)


def test_a_last_block_that_is_not_whole_does_not_count() -> None:
    samples = both(0.5 * tone(997, 1.09))
    samples[:, 48000:] = 0
    assert measure(samples).lufs == measure(samples[:, :48000]).lufs


@pytest.mark.parametrize("target", [-9, -14, -23])
def test_other_rates_are_met_too(target: float) -> None:
    samples = music(3.0)
    done = normalise(samples, target, 44100)
    lufs, peak = foreign(done.samples, 44100)
    assert abs(lufs - target) < 0.5
    assert peak <= CEILING_DB + 0.2  # at 44.1 kHz ffmpeg looks at other points between the samples
    assert done.after.true_peak_db <= CEILING_DB
    assert measure(samples, 44100).lufs == pytest.approx(foreign(samples, 44100)[0], abs=0.05)


def test_silence_measures_as_none() -> None:
    assert measure(np.zeros((2, 48000), np.float32)).facts == {"lufs": None, "true_peak_db": None}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(value: float) -> None:
    samples = both(0.1 * tone(440))
    samples[1, 5000] = value
    for refused in (lambda: measure(samples), lambda: normalise(samples, -14)):
        with pytest.raises(AudioError, match="no numbers"):
            refused()


def test_the_same_input_gives_the_same_bytes() -> None:
    samples = music(6.0)
    takes = [normalise(samples, -9) for _ in range(3)]
    assert len({hashlib.sha256(take.samples.tobytes()).hexdigest() for take in takes}) == 1
    assert takes[0].facts == takes[1].facts == takes[2].facts
    assert np.array_equal(samples, music(6.0))


def test_an_overshoot_of_the_moving_gain_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """With hardly any look-ahead and no margin, a gain that moves within the reach of a peak makes it higher again."""
    monkeypatch.setattr(loudness, "LOOK_S", 0.0)
    monkeypatch.setattr(loudness, "MARGIN_DB", 0.0)
    samples = 0.1 * tone(440, 3.0)
    for centre in range(9600, 140000, 9600):  # the samples that add up to the highest point between two of them
        samples[centre - 16 : centre + 16] = 0.9 * np.sign(np.sinc(np.arange(-16, 16) + 0.5))
    gains = []
    for rounds in (1, 4):  # one leaves no time to go over it: then all is turned down
        monkeypatch.setattr(loudness, "ROUNDS", rounds)
        done = normalise(both(samples), -9)
        gains.append(done.gain_db)
        assert done.limited_db > 11
        assert measure(done.samples).true_peak_db == pytest.approx(done.after.true_peak_db, abs=1e-4)
        assert done.after.true_peak_db < CEILING_DB + 1e-4
    assert gains[1] > gains[0] + 0.005


def test_facts_are_plain_json() -> None:
    done = normalise(music(), -14)
    facts = json.loads(json.dumps(done.facts))
    assert facts == done.facts
    assert set(facts) == {"target_lufs", "gain_db", "limited_db", "before", "after", "missed"}
    assert facts["after"]["lufs"] == pytest.approx(-14, abs=0.1)
    assert facts["target_lufs"] == -14
