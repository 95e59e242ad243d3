"""Nothing broken comes in: rows A1 to A16 of the fault table, and the exactness of what is let in."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import audio_io
import finish
from audio_io import DAMAGED, EXPIRED, admit, peaks
from errors import AudioError
from formats import FORMATS
from sound import SAMPLE_RATE, AudioClip

RNG = np.random.default_rng(0)


def sine(hertz: float = 440, seconds: float = 1, rate: int = SAMPLE_RATE, peak: float = 0.5) -> np.ndarray:
    """Samples [n] of one tone."""
    return peak * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def encoded(samples: np.ndarray, rate: int = SAMPLE_RATE, kind: str = "WAV", code: str = "PCM_16", **how) -> bytes:
    """The bytes of samples [n] or [n, channels] as libsndfile writes them."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=code, **how)
    return file.getvalue()


def wav(data: bytes, channels: int = 2, rate: int = SAMPLE_RATE, claim: int | None = None) -> bytes:
    """A 16-bit WAV by hand, so that its header can lie."""
    claim = len(data) if claim is None else claim
    layout = (1, channels, rate, rate * channels * 2 % 2**32, channels * 2, 16)
    fields = (b"RIFF", claim + 36, b"WAVE", b"fmt ", 16, *layout, b"data", claim)
    return struct.pack("<4sI4s4sIHHIIHH4sI", *fields) + data


def flac(samples: np.ndarray, claim: int) -> bytes:
    """A FLAC whose header claims `claim` frames: 36 bits from the middle of byte 21 on."""
    file = bytearray(encoded(samples, kind="FLAC"))
    file[21] = file[21] & 0xF0 | claim >> 32
    file[22:26] = struct.pack(">I", claim & 0xFFFFFFFF)
    return bytes(file)


@pytest.fixture
def decoder(tmp_path: Path, monkeypatch):
    def replace(script: str) -> None:
        (tmp_path / "fake.py").write_text("import json, os, sys, time\n" + script)
        monkeypatch.setattr(audio_io, "DECODER", tmp_path / "fake.py")

    return replace


def sentence(path: Path | str) -> str:
    """Why `path` is refused: one clear sentence, perhaps a hint, and nothing of this machine."""
    with pytest.raises(AudioError) as refused:
        admit(path)
    error = refused.value
    assert error.message.endswith(".") and "\n" not in str(error) and "Traceback" not in str(error)
    assert not error.hint or error.hint.endswith(".")
    assert not [p for p in (str(Path(path).parent), str(audio_io.ROOT), "/tmp", "decode") if p in str(error)]
    return error.message


WHOLE = ["WAV PCM_16", "WAV PCM_24", "WAV FLOAT", "WAVEX PCM_16", "RF64 PCM_16", "FLAC PCM_24", "AIFF PCM_16"]
LOSSY = ["OGG VORBIS", "OGG OPUS", "MP3 MPEG_LAYER_III"]


@pytest.mark.parametrize("how", WHOLE + LOSSY)
def test_a_recording_comes_in_as_libsndfile_reads_it(how: str, upload) -> None:
    samples, (kind, code) = np.stack([sine(), sine(660)], axis=1), how.split()
    content = encoded(samples, kind=kind, code=code)
    clip = admit(upload(content, "song.txt"))
    assert clip.samples.dtype == np.float32 and clip.samples.flags.c_contiguous and clip.samples.flags.writeable
    assert np.array_equal(clip.samples, soundfile.read(io.BytesIO(content), dtype="float32")[0].T)
    middle = slice(4800, -4800)  # libsndfile spoils the last 6 ms of an Opus file when it writes one
    assert np.abs(clip.samples - samples.T)[:, middle].max() < (0.02 if how in LOSSY else 2**-15)
    facts = {"format": {"WAVEX": "WAV", "RF64": "WAV"}.get(kind, kind), "sample_rate": SAMPLE_RATE, "channels": 2}
    assert clip.file == {"sha256": hashlib.sha256(content).hexdigest(), **facts}
    assert clip.facts["samples"] == clip.samples.shape[1] == SAMPLE_RATE


def test_a_song_of_the_studio_comes_back_bit_for_bit(tmp_path: Path) -> None:
    samples = RNG.uniform(-1, 1, (2, 2 * SAMPLE_RATE)).astype(np.float32)
    finish.write(tmp_path / "song.wav", samples, {"title": "A song", "lyrics": "la"}, FORMATS["wav32"])
    assert np.array_equal(admit(str(tmp_path / "song.wav")).samples, samples)


def test_neither_extension_nor_name_nor_folder_matter(upload, tmp_path: Path, monkeypatch) -> None:
    upload(b"raise SystemExit('imported from the upload folder')", "numpy.py")
    monkeypatch.chdir(tmp_path)
    for name in ("-I.wav", "a song.raw", "nœud 歌.flac", "%s{}$(x)"):
        upload(encoded(sine(), kind="MP3", code="MPEG_LAYER_III"), name)
        assert admit(name).file["format"] == "MP3"


def test_a1_an_empty_file(upload) -> None:
    assert sentence(upload(b"")) == "The file is empty."


FOREIGN = {
    "noise": RNG.bytes(5000),
    "html": b"<html><body>not found</body></html>",
    "broken AU": encoded(sine(), kind="AU")[:14],
    "playlist": b"#EXTM3U\n#EXTINF:10,song\nfile:///etc/passwd\n",
    "concat": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "zip": b"PK\3\4" + RNG.bytes(999),
    "m4a": b"\0\0\0 ftypM4A \0\0\0\0M4A mp42isom" + RNG.bytes(999),
    "only a tag": b"ID3\4\0\0\0\0\0\0" + RNG.bytes(999),
    **{kind: encoded(sine(), kind=kind) for kind in ("AU", "W64", "CAF", "SVX", "RAW")},
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a2_and_a14_what_is_not_one_of_the_five_formats(content: bytes, upload) -> None:
    assert sentence(upload(content, "song.wav")) == "Not a WAV, FLAC, OGG, MP3 or AIFF file."


def test_a3_a_header_that_claims_4_gb(upload) -> None:
    claims = 2**32 - 37
    assert sentence(upload(wav(bytes(2000), claim=claims))) == "Shortest is 0.5 s; yours is 0.01 s."
    tone = (sine(seconds=2) * 2**15).astype("<i2").tobytes()
    assert admit(upload(wav(tone, channels=1, claim=claims))).seconds == 2, "what is there can be used"


def test_a3_a_file_that_breaks_off(upload) -> None:
    noise = RNG.uniform(-0.5, 0.5, SAMPLE_RATE * 4)
    mp3 = encoded(noise, kind="MP3", code="MPEG_LAYER_III")
    assert sentence(upload(mp3[: len(mp3) // 2])).endswith("of 4.0 s can be read; the file may be damaged.")
    for kind, code in (("FLAC", "PCM_16"), ("OGG", "VORBIS")):
        assert sentence(upload(encoded(noise, kind=kind, code=code)[:100])) == DAMAGED


def test_a4_a_flac_that_claims_397_hours_or_nothing_or_has_a_tag_behind(upload) -> None:
    assert sentence(upload(flac(sine(), 2**36 - 1))) == "Longest is 10 min; yours is 397:40:56."
    samples = RNG.uniform(-0.5, 0.5, (SAMPLE_RATE * 3, 2))
    plain = encoded(samples, kind="FLAC")
    for content in (flac(samples, 0), plain + b"TAG" + bytes(125)):
        clip = admit(upload(content))
        assert np.array_equal(clip.samples, soundfile.read(io.BytesIO(plain), dtype="float32")[0].T)


def test_a5_an_hour_of_silence_in_half_a_megabyte(upload) -> None:
    silence = np.zeros(SAMPLE_RATE * 3600, np.int16)
    assert sentence(upload(encoded(silence, kind="FLAC"))) == "Longest is 10 min; yours is 1:00:00."
    assert sentence(upload(flac(silence[: SAMPLE_RATE * 660], 0))) == "Longest is 10 min; yours is longer."


def test_a6_a_recording_of_twenty_minutes(upload) -> None:
    silence = np.zeros(8000 * 1200, np.int16)
    assert sentence(upload(encoded(silence, 8000))) == "Longest is 10 min; yours is 20:00."
    assert sentence(upload(encoded(silence[: 8000 * 600 + 1], 8000))) == "Longest is 10 min; yours is 10:01."
    silence[0] = 9999
    assert admit(upload(encoded(silence[: 8000 * 600], 8000))).seconds == 600


def test_a7_a_file_of_251_mb_is_not_opened(upload, decoder) -> None:
    decoder("sys.exit('opened')")
    path = upload(b"")
    os.truncate(path, audio_io.AUDIO_MAX_BYTES + 1)
    assert sentence(path) == "Largest is 250 MB; yours is 251 MB."
    assert 600 * SAMPLE_RATE * 2 * 4 + 4096 < audio_io.AUDIO_MAX_BYTES, "a song of this studio must come back"


def test_a8_too_short(upload) -> None:
    assert sentence(upload(wav(b""))) == "Shortest is 0.5 s; yours is 0 s."
    assert sentence(upload(encoded(sine(seconds=0.4999)))) == "Shortest is 0.5 s; yours is 0.49 s."
    assert admit(upload(encoded(sine(seconds=0.5)))).seconds == 0.5


def test_a9_and_a12_sample_rates(upload) -> None:
    for rate, shown in ((3000, "3,000"), (7999, "7,999"), (384_001, "384,001"), (2 * 10**9, "2,000,000,000")):
        limits = f"Sample rates go from 8,000 to 384,000 Hz; yours is {shown} Hz."
        assert sentence(upload(wav(bytes(9000), rate=rate))) == limits
    for content in (wav(bytes(9000), rate=0), wav(bytes(9000), rate=4 * 10**9), wav(bytes(9000), channels=0)):
        assert sentence(upload(content)) == DAMAGED


def test_a10_damaged_samples(upload) -> None:
    for value in (np.nan, np.inf, -np.inf, 1e300):
        samples = sine(seconds=3)
        samples[100_000] = value
        assert "damaged samples" in sentence(upload(encoded(samples, code="DOUBLE")))
    huge = np.sign(sine(rate=8000)) * np.finfo(np.float32).max  # finite until it is resampled
    assert "too loud" in sentence(upload(encoded(huge, 8000, code="FLOAT")))


def test_a11_mono_is_doubled_bit_for_bit(upload) -> None:
    for rate in (SAMPLE_RATE, 44_100):
        left, right = admit(upload(encoded(sine(rate=rate), rate))).samples
        assert np.array_equal(left, right) and np.abs(left - sine()).max() < 0.02
    assert np.array_equal(admit(upload(encoded(sine(), code="FLOAT"))).samples[0], sine().astype(np.float32))


GAIN = {"L": 1, "C": 0.7071, "Ls": 0.7071, "Lb": 0.7071, "Cs": 0.5}  # of left; of right with L and R exchanged
ORDERS = ("L R C", "L R Ls Rs", "L R C Ls Rs", "L R C LFE Ls Rs", "L R C LFE Cs Ls Rs", "L R C LFE Lb Rb Ls Rs")


@pytest.mark.parametrize("order", ORDERS)
def test_a11_three_to_eight_channels_are_mixed_and_cannot_clip(order: str, upload) -> None:
    names = order.split()
    left = np.array([GAIN.get(name, 0) for name in names])
    right = np.array([GAIN.get(name.translate({ord("L"): "R", ord("R"): "L"}), 0) for name in names])
    samples = RNG.choice([-1.0, 0.999], (SAMPLE_RATE, len(names)))
    samples[:1000] = -1
    clip = admit(upload(encoded(samples, code="FLOAT")))
    expected = np.stack([left, right]) @ samples.T / left.sum()
    assert np.abs(clip.samples - expected).max() < 1e-4 and np.abs(clip.samples).max() <= 1 + 1e-6
    assert clip.file["channels"] == len(names)


def test_a11_ogg_has_its_own_order_of_speakers(upload) -> None:
    """L C R Ls Rs LFE: in the order of a WAV the bass would be heard and the left surround lost."""
    speakers = np.zeros((SAMPLE_RATE, 6))
    speakers[:, 5] = sine(60)
    assert sentence(upload(encoded(speakers, kind="OGG", code="VORBIS"))) == "This recording is silent."
    speakers[:, 3] = sine(440)
    left, right = admit(upload(encoded(speakers, kind="OGG", code="VORBIS"))).samples
    assert np.abs(left).max() == pytest.approx(0.5 * 0.7071 / 2.4142, abs=0.02) and np.abs(right).max() < 0.01


def test_a11_more_channels_are_refused(upload) -> None:
    for channels, shown in ((9, "9"), (1024, "1,024")):
        assert sentence(upload(wav(bytes(channels * 100), channels))) == f"At most 8 channels; yours has {shown}."


def heard(clip: AudioClip) -> float:
    """The frequency of a lone tone in Hz: the vertex of a parabola through the highest bins of the log spectrum."""
    one = clip.samples[0]
    spectrum = np.log(np.abs(np.fft.rfft(one * np.hanning(one.size))) + 1e-12)
    top = int(spectrum.argmax())
    a, b, c = spectrum[top - 1 : top + 2]
    return (top + (a - c) / (2 * (a - 2 * b + c))) * SAMPLE_RATE / one.size


@pytest.mark.parametrize("rate", [8000, 11_025, 32_000, 44_100, 44_101, 96_000, 192_000, 384_000])
def test_a12_resampling_keeps_length_pitch_level_and_place(rate: int, upload) -> None:
    frames = rate * 2 + 7
    samples = sine(seconds=frames / rate, rate=rate)
    clip = admit(upload(encoded(samples, rate, code="FLOAT")))
    assert clip.samples.shape == (2, round(frames * SAMPLE_RATE / rate))
    assert abs(clip.seconds - frames / rate) < 0.001
    assert abs(1200 * np.log2(heard(clip) / 440)) < 1
    middle = slice(SAMPLE_RATE // 2, SAMPLE_RATE)
    assert np.abs(clip.samples[0] - sine(seconds=clip.seconds + 1)[: clip.samples.shape[1]])[middle].max() < 1e-5
    assert clip.file["sample_rate"] == rate


def test_a13_silence(upload) -> None:
    for peak in (0, 0.00099):
        assert sentence(upload(encoded(sine(peak=peak), code="FLOAT"))) == "This recording is silent."
    assert admit(upload(encoded(sine(peak=0.00101), code="FLOAT"))).seconds == 1


def test_an_mp3_without_a_length_keeps_its_end_whatever_its_beginning(upload) -> None:
    """libsndfile alone takes the first frame's bit rate for all: a third of this song, or three times as much."""
    song = RNG.uniform(-0.5, 0.5, SAMPLE_RATE * 8)
    song[: SAMPLE_RATE * 4] = 0
    tag = b"ID3\4\0\0\0\7\0\0" + bytes(7 << 14)
    for samples in (song, song[::-1]):
        whole = encoded(samples, kind="MP3", code="MPEG_LAYER_III", bitrate_mode="VARIABLE", compression_level=0.3)
        bare = whole[whole.index(b"\xff\xfb", 40) :]
        assert b"Xing" in whole and b"Xing" not in bare
        for content in (whole, tag + whole, bare, tag + bare, bare + b"TAG" + bytes(125)):
            assert admit(upload(content)).seconds == pytest.approx(8, abs=0.05)


def test_a15_a_decoder_that_hangs(upload, decoder, monkeypatch) -> None:
    decoder("time.sleep(60)")
    monkeypatch.setattr(audio_io, "DECODE_LIMIT_S", 0.3)
    assert sentence(upload(encoded(sine()))) == "This file took too long to read."


def test_a15_a_decoder_that_dies_or_babbles(upload, decoder) -> None:
    path = upload(encoded(sine()))
    short = "print(json.dumps({'samples': 9}), end='\\n' + 'x' * 71)"
    for script in ("os.abort()", "raise MemoryError", "", "print('{}')", "print('[]')", "print()", short):
        decoder(script)
        assert sentence(path) == DAMAGED, script


@pytest.mark.skipif(sys.platform != "linux", reason="macOS may not limit addresses")
def test_a15_the_decoder_gets_little_memory(upload, monkeypatch) -> None:
    path = upload(encoded(sine()))
    assert admit(path).seconds == 1
    monkeypatch.setattr(audio_io, "DECODE_MEMORY", 50 * 2**20)
    assert sentence(path) == DAMAGED


def test_a15_the_decoder_gets_no_secrets_and_the_log_no_path(upload, decoder, monkeypatch, caplog) -> None:
    monkeypatch.setenv("HF_TOKEN", "hunter2")
    decoder("sys.exit(f'cannot read {sys.argv[1]}\\x1b[2J {sorted(os.environ)}')")
    path = upload(encoded(sine()), "private name")
    with caplog.at_level(logging.WARNING, "ace.audio"):
        assert sentence(path) == DAMAGED
    assert "cannot read the upload" in caplog.text and "OPENBLAS_NUM_THREADS" in caplog.text
    assert not [word for word in ("HF_TOKEN", "private name", "\x1b") if word in caplog.text]


def test_a16_a_file_that_is_gone(upload, decoder) -> None:
    path = upload(encoded(sine()))
    path.unlink()
    assert sentence(path) == EXPIRED == "The upload has expired; please add it again."
    assert sentence(path / "below") == EXPIRED
    path = upload(encoded(sine()))
    decoder("os.unlink(sys.argv[1])\nsys.exit(1)")
    assert sentence(path) == EXPIRED, "between the look and the decoder"


def test_only_plain_files_are_opened(upload, tmp_path: Path, monkeypatch) -> None:
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(upload(encoded(sine())))
    os.mkfifo(pipe)
    for path in (link, pipe, tmp_path):
        assert sentence(path) == "This is not a plain file."
    assert sentence(tmp_path / "a\0b") == DAMAGED
    monkeypatch.setattr(audio_io, "check_file", lambda path: None)  # as if it had been swapped behind the look
    for path in (link, pipe, tmp_path):
        assert sentence(path) == DAMAGED


def test_peaks_are_the_highest_of_equal_parts() -> None:
    samples = np.zeros((2, 1000), np.float32)
    samples[0, 150], samples[1, 151], samples[1, 999] = 0.1, -0.2, 0.4
    assert peaks(samples, 10) == [0, 0.5, 0, 0, 0, 0, 0, 0, 0, 1]
    assert peaks(samples[:, :300], 3) == [0, 1, 0], "the loudest is 1"
    assert peaks(np.array([[0.25, -0.5], [0, 0]], np.float32), 4) == [0.5, 0.5, 1, 1], "fewer samples than parts"
    assert peaks(samples[:, 200:900], 5) == peaks(samples[:, :0], 5) == [0] * 5
    assert json.dumps(peaks(samples, 2)) == "[0.5, 1.0]"
