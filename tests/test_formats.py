"""A song becomes a file that every player reads alike: lengths, positions, precision, and the same bytes each time."""

from __future__ import annotations

import hashlib
import io
import struct
import subprocess
import sys
from pathlib import Path

import av
import mutagen
import numpy as np
import pytest
import soundfile

import audio_io
import formats
from errors import ExportError
from formats import BLOCK, FORMATS, crc16, encoded
from settings import ROOT

ALL = list(FORMATS)
LOSSY, WHOLE = ["mp3", "ogg"], ["flac", "wav16", "wav24", "wav32"]
STEP = 2**-15  # of a 16-bit file


def music(length: int, seed: int = 0) -> np.ndarray:
    """Samples [2, length]: chords under an unsteady noise, different on both sides, with no silence at either end."""
    rng, time = np.random.default_rng(seed), np.arange(length) / 48_000
    chord = sum(np.sin(2 * np.pi * hertz * time + hertz) for hertz in (110, 277, 662, 1510, 3310))
    noise = rng.normal(size=(2, length)) * (1.1 + np.sin(2 * np.pi * 3 * time))
    return (0.08 * np.stack([chord, -0.7 * chord]) + 0.02 * noise).astype(np.float32)


SONG = music(150_001)


def as_libsndfile_reads(content: bytes) -> tuple[np.ndarray, int]:
    samples, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    return samples.T, rate


def as_ffmpeg_reads(content: bytes) -> tuple[np.ndarray, int, float]:
    """Samples [2, n], the rate in Hz, and the length in seconds that is told before a frame is decoded."""
    with av.open(io.BytesIO(content)) as file:
        stream = file.streams.audio[0]
        parts = []
        for frame in file.decode(stream):
            part, kind = frame.to_ndarray(), frame.format
            part = part if kind.is_planar else part.reshape(-1, 2).T
            scale = {"s16": 2**15, "s16p": 2**15, "s32": 2**31, "s32p": 2**31}.get(kind.name, 1)
            parts.append((part / scale).astype(np.float32))
        return np.concatenate(parts, axis=1), stream.rate, file.duration / 1e6


def ratio(samples: np.ndarray, wanted: np.ndarray) -> float:
    """How far an error lies below the sound, in dB."""
    return 10 * np.log10((wanted**2).sum() / (((samples - wanted) ** 2).sum() + 1e-12))


def test_the_formats_have_the_names_that_people_know() -> None:
    assert [(key, f.name, f.suffix, f.container) for key, f in FORMATS.items()] == [
        ("mp3", "MP3, 320 kbps", ".mp3", "MP3"),
        ("flac", "FLAC, 24 bit", ".flac", "FLAC"),
        ("wav16", "WAV, 16 bit", ".wav", "WAV"),
        ("wav24", "WAV, 24 bit", ".wav", "WAV"),
        ("wav32", "WAV, 32-bit float", ".wav", "WAV"),
        ("ogg", "OGG Vorbis, quality 8", ".ogg", "OGG"),
    ]
    assert all(key == f.key for key, f in FORMATS.items())


@pytest.mark.parametrize("rate", [48_000, 44_100])
@pytest.mark.parametrize("key", ALL)
def test_every_reader_finds_all_samples_at_their_place(key: str, rate: int) -> None:
    content = encoded(SONG, rate, FORMATS[key])
    read, read_rate = as_libsndfile_reads(content)
    other, other_rate, seconds = as_ffmpeg_reads(content)
    told = mutagen.File(io.BytesIO(content)).info
    assert read.shape == other.shape == SONG.shape
    assert read_rate == other_rate == told.sample_rate == rate and told.channels == 2
    assert told.length == pytest.approx(SONG.shape[1] / rate, abs=1e-9)
    assert seconds == pytest.approx(SONG.shape[1] / rate, abs=1e-4 if key == "mp3" else 2e-6)
    for samples in (read, other):
        spectra = [np.fft.rfft(side, 2**19) for side in (samples[0], SONG[0])]
        assert np.fft.irfft(spectra[0] * spectra[1].conj()).argmax() == 0
        assert ratio(samples, SONG) > (17 if key in LOSSY else 60)
    # LAME's low pass takes some of the noise, so that what is below it is measured by itself
    for samples in (read, other):
        assert ratio(low(samples), low(SONG)) > (30 if key == "mp3" else 20)


def low(samples: np.ndarray) -> np.ndarray:
    """What is below an eighth of the rate."""
    spectrum = np.fft.rfft(samples, axis=1)
    return np.fft.irfft(spectrum * (np.arange(spectrum.shape[1]) < spectrum.shape[1] / 4), samples.shape[1])


@pytest.mark.parametrize("key", ALL)
def test_the_kind_of_file_is_what_its_name_says(key: str) -> None:
    content = encoded(SONG, 48_000, FORMATS[key])
    file = soundfile.info(io.BytesIO(content))
    kinds = {"mp3": "MPEG_LAYER_III", "ogg": "VORBIS", "flac": "PCM_24"}
    kinds |= {"wav16": "PCM_16", "wav24": "PCM_24", "wav32": "FLOAT"}
    assert (file.format, file.subtype) == (FORMATS[key].container, kinds[key])
    seconds = SONG.shape[1] / 48_000
    if key == "mp3":
        assert mutagen.File(io.BytesIO(content)).info.bitrate == 320_000
        assert len(content) == pytest.approx(40_000 * seconds, abs=4 * 960)
    if key == "ogg":  # the nominal bit rate of quality 8
        assert mutagen.File(io.BytesIO(content)).info.bitrate == 256_000


LENGTHS = (1, 2, 575, 576, 577, 1151, 1152, 1153, 47_999, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7)


@pytest.mark.parametrize("key", ALL)
def test_no_length_gains_or_loses_a_sample(key: str) -> None:
    for length in LENGTHS:
        for rate in (44_100, 48_000):
            content = encoded(SONG[:, :length], rate, FORMATS[key])
            assert as_libsndfile_reads(content)[0].shape[1] == length
            if key != "mp3" or rate == 44_100:
                continue
            assert as_ffmpeg_reads(content)[0].shape[1] == length
            assert mutagen.File(io.BytesIO(content)).info.length == pytest.approx(length / rate, abs=1e-9)


@pytest.mark.parametrize("key", ALL)
def test_the_studio_reads_its_own_files(key: str, tmp_path: Path) -> None:
    for rate in (48_000, 44_100):
        path = tmp_path / f"song{rate}{FORMATS[key].suffix}"
        path.write_bytes(encoded(SONG, rate, FORMATS[key]))
        clip = audio_io.admit(path)
        assert clip.samples.shape[1] == round(SONG.shape[1] * 48_000 / rate)
        assert clip.file["format"] == FORMATS[key].container and clip.file["sample_rate"] == rate
    assert np.abs(audio_io.admit(tmp_path / f"song48000{FORMATS[key].suffix}").samples - SONG).max() < 0.1


def test_precision_is_what_the_width_allows() -> None:
    read = {key: as_libsndfile_reads(encoded(SONG, 48_000, FORMATS[key]))[0] for key in WHOLE}
    assert np.array_equal(read["wav32"], SONG)
    assert np.array_equal(read["wav24"], audio_io.rounded(SONG)) and np.array_equal(read["flac"], read["wav24"])
    assert np.abs(read["wav16"] - SONG).max() <= 1.5 * STEP


def test_the_error_of_16_bits_is_a_steady_hiss() -> None:
    for level in (0.1, 0.5, 100.25):  # in steps: rounded alone, 0.1 would be 0 and 0.5 a coin
        flat = np.full((2, 200_000), level * STEP, np.float32)
        steps = as_libsndfile_reads(encoded(flat, 48_000, FORMATS["wav16"]))[0] / STEP
        assert steps.mean() == pytest.approx(level, abs=0.005)
        assert steps.var() == pytest.approx(0.25, abs=0.005)  # 1/12 of rounding and 1/6 of dither
        assert abs(np.corrcoef(steps)[0, 1]) < 0.01  # each side has its own
        assert abs(np.corrcoef(steps[0, :-BLOCK], steps[0, BLOCK:])[0, 1]) < 0.02  # and each block


@pytest.mark.parametrize("key", ALL)
def test_silence_stays_silent(key: str) -> None:
    nothing = np.zeros((2, 100_000), np.float32)
    assert not as_libsndfile_reads(encoded(nothing, 48_000, FORMATS[key]))[0].any()
    if key in WHOLE:
        holed = SONG.copy()
        holed[:, 5000:9000] = 0
        holed[1] = 0
        read = as_libsndfile_reads(encoded(holed, 48_000, FORMATS[key]))[0]
        assert not read[:, 5000:9000].any() and not read[1].any() and read[0, 9000:].any()


@pytest.mark.parametrize("key", ALL)
def test_what_lies_beyond_full_scale_is_clipped_where_it_must_be(key: str) -> None:
    loud = (12 * SONG).astype(np.float32)
    assert np.abs(loud).max() > 2
    content = encoded(loud, 48_000, FORMATS[key])
    if key == "wav32":
        assert np.array_equal(as_libsndfile_reads(content)[0], loud)
    else:  # dither may lift a sample of exactly -1 by a step, but none that lies further out
        most = 1.001 if key in ("mp3", "wav16") else 1
        assert content == encoded(np.clip(loud, -most, most), 48_000, FORMATS[key])
    if key in WHOLE[:3]:
        read = as_libsndfile_reads(content)[0]
        assert read.min() == -1 and 0.9999 < read.max() < 1 and np.abs(read - loud.clip(-1, 1)).max() < 2 * STEP


def test_the_same_samples_give_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    np.save(tmp_path / "song.npy", SONG)
    script = "import sys, hashlib, numpy; sys.path.insert(0, sys.argv[1]); from formats import *\n"
    script += "song = numpy.load(sys.argv[2])\n"
    script += "[print(hashlib.sha256(encoded(song, 48000, f)).hexdigest()) for f in FORMATS.values()]"
    run = [sys.executable, "-c", script, str(ROOT), str(tmp_path / "song.npy")]
    theirs = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    before = SONG.copy()
    contents = [encoded(SONG, 48_000, f) for f in FORMATS.values()]
    assert [hashlib.sha256(content).hexdigest() for content in contents] == theirs
    assert np.array_equal(SONG, before)
    strided = np.repeat(SONG, 2, axis=1)[:, ::2]
    assert contents == [encoded(strided, 48_000, f) for f in FORMATS.values()]


def test_no_file_tells_the_time() -> None:
    content = encoded(SONG, 48_000, FORMATS["wav32"])
    peak = content.index(b"PEAK")
    assert peak < 256 and struct.unpack("<III", content[peak + 4 : peak + 16]) == (24, 1, 0)
    assert struct.unpack("<f", content[peak + 16 : peak + 20])[0] == np.abs(SONG[0]).max()
    ogg = encoded(SONG, 48_000, FORMATS["ogg"])
    starts = [at for at in range(len(ogg)) if ogg.startswith(b"OggS\0", at)]
    assert len(starts) > 5 and {ogg[at + 14 : at + 18] for at in starts} == {b"1ECA"}
    assert [struct.unpack("<I", ogg[at + 18 : at + 22])[0] for at in starts] == list(range(len(starts)))


def test_the_checksum_is_the_one_of_the_catalogue() -> None:
    assert crc16(b"123456789") == 0xBB3D  # CRC-16/ARC, its check value
    assert crc16(b"") == 0 and crc16(b"\1") == 0xC0C1
    content = np.random.default_rng(1).bytes(5000)
    slow = 0
    for byte in content:
        slow ^= byte
        for _ in range(8):
            slow = slow >> 1 ^ (0xA001 if slow & 1 else 0)
    assert crc16(content) == slow


def info_tag(content: bytes) -> dict[str, int | bytes]:
    """The fields of the first frame of an MP3, by the specification's own offsets from the start of a stereo frame."""
    fields = {"id": (36, 4), "flags": (40, 4), "frames": (44, 4), "bytes": (48, 4), "encoder": (156, 9)}
    fields |= {"method": (165, 1), "bitrate": (176, 1), "delays": (177, 3), "music": (184, 4)}
    fields |= {"music_crc": (188, 2), "tag_crc": (190, 2)}
    found = {name: content[at : at + size] for name, (at, size) in fields.items()}
    return {name: b if name in ("id", "encoder") else int.from_bytes(b, "big") for name, b in found.items()}


@pytest.mark.parametrize("rate", [48_000, 44_100, 32_000])
def test_the_info_frame_is_the_one_that_lame_writes(rate: int) -> None:
    file = io.BytesIO()  # libsndfile lets LAME write its own
    how = {"bitrate_mode": "CONSTANT", "compression_level": 0}
    soundfile.write(file, SONG.T, rate, format="MP3", subtype="MPEG_LAYER_III", **how)
    size = 144 * 320_000 // rate
    theirs, ours = file.getvalue(), encoded(SONG, rate, FORMATS["mp3"])
    for content in (theirs, ours):  # the same rules hold for both
        tag = info_tag(content)
        assert tag["id"] == b"Info" and tag["flags"] == 15 and tag["encoder"] == b"LAME3.100" and tag["method"] == 1
        assert tag["bytes"] == tag["music"] == len(content) and tag["bitrate"] == 255
        assert tag["music_crc"] == crc16(content[size:]) and tag["tag_crc"] == crc16(content[:190])
        assert tag["delays"] >> 12 == 576
        assert tag["frames"] * 1152 == 576 + (tag["delays"] & 0xFFF) + SONG.shape[1]
        assert content[size : size + 2] == content[:2] and not any(content[192:size])
    assert info_tag(theirs)["frames"] == info_tag(ours)["frames"]
    places = np.frombuffer(ours[52:152], np.uint8).astype(float)
    assert np.abs(places - np.arange(100) * 2.56).max() <= 1 and (np.diff(places) > 0).all()


def test_a_player_can_jump_into_an_mp3() -> None:
    content = encoded(SONG, 48_000, FORMATS["mp3"])
    whole = as_libsndfile_reads(content)[0]
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        file.seek(100_000)
        assert np.abs(file.read(5000, dtype="float32").T - whole[:, 100_000:105_000]).max() < 0.02


def test_an_encoder_that_refuses_is_an_error_in_our_words(monkeypatch) -> None:
    with pytest.raises(ExportError, match=r"could not be written as MP3 \(ValueError\)"):
        encoded(SONG, 96_000, FORMATS["mp3"])

    def broken(*_, **__):
        raise soundfile.LibsndfileError(1)

    monkeypatch.setattr(soundfile, "SoundFile", broken)
    for key in ("flac", "ogg", "wav16"):
        with pytest.raises(ExportError) as refused:
            encoded(SONG, 48_000, FORMATS[key])
        assert refused.value.message.endswith("(LibsndfileError).") and refused.value.hint == "Try another format."


def test_an_mp3_of_frames_that_do_not_follow_each_other_is_not_handed_out(monkeypatch) -> None:
    with pytest.raises(RuntimeError, match="no frame at byte"):
        formats._frames(b"\xff\xfb\xe4\0" + bytes(2000), 960)
    with pytest.raises(RuntimeError, match="LAME made 1 frames"):
        formats._info_frame(b"\xff\xfb\xe4\0" + bytes(956), 5000, 48_000)
