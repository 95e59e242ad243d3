"""Songs as files: samples become the bytes of an MP3, FLAC, WAV or OGG file, without tags.

The same samples give the same bytes, always: dither is drawn from a fixed seed, and what libsndfile takes from the clock is
overwritten. Everything is made block by block in memory, so that ten minutes need little more than their file.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from errors import ExportError


@dataclass(frozen=True)
class Format:
    """A kind of file: `name` is for people, `suffix` begins with a dot, `container` is "MP3", "FLAC", "WAV" or "OGG"."""

    key: str
    name: str
    suffix: str
    container: str


FORMATS = {
    format.key: format
    for format in (
        Format("mp3", "MP3, 320 kbps", ".mp3", "MP3"),
        Format("flac", "FLAC, 24 bit", ".flac", "FLAC"),
        Format("wav16", "WAV, 16 bit", ".wav", "WAV"),
        Format("wav24", "WAV, 24 bit", ".wav", "WAV"),
        Format("wav32", "WAV, 32-bit float", ".wav", "WAV"),
        Format("ogg", "OGG Vorbis, quality 8", ".ogg", "OGG"),
    )
}
SUBTYPES = {"wav16": "PCM_16", "wav24": "PCM_24", "wav32": "FLOAT", "flac": "PCM_24", "ogg": "VORBIS"}  # libsndfile's
BLOCK = 2**16  # frames; one huge write overflows the stack of libsndfile's Vorbis encoder
VORBIS_QUALITY = 0.8  # of 1: what other programs call quality 8, about 256 kbps
SERIAL = int.from_bytes(b"ACE1")  # of the one stream in an OGG file, which libsndfile would draw at random
DITHER_SEED = 16

MP3_KBPS = 320  # the highest of Layer III
MP3_QUALITY = 3  # LAME's own default; 2 takes longer for no difference anyone has shown at 320 kbps
PREVIEW_KBPS, PREVIEW_QUALITY = 160, 7  # to listen to in a page: made in half the time, 1.2 MB a minute
MP3_VBR_QUALITY = 4  # LAME's default, which goes into its tag though nothing is variable here
MP3_RATES = {32_000: 0, 44_100: 1, 48_000: 2}  # of MPEG-1, with the number that the Info tag has for them as a source
MP3_FRAME = 1152  # samples
MP3_DELAY = 576  # samples of nothing that LAME puts in front
SIDE_INFO = 32  # bytes behind the header of a frame in stereo
LANES = 1024  # parts of a file whose checksums are worked out side by side


def encoded(samples: np.ndarray, rate: int, format: Format) -> bytes:
    """The file of float32 `samples` [2, n], finite, n of 1 or more, at `rate` Hz.

    Full scale is ±1. What lies beyond is clipped, except in 32-bit float. MP3 knows 32,000, 44,100 and 48,000 Hz. Raises
    ExportError when an encoder refuses.
    """
    try:
        if format.key == "mp3":
            return _mp3(samples, rate)
        content = _written(samples, rate, format)
    except (RuntimeError, OSError, ValueError) as error:  # libsndfile's and LAME's own errors are RuntimeErrors
        raise ExportError(
            f"The song could not be written as {format.container} ({type(error).__name__}).", "Try another format."
        ) from error
    return _renumbered(content) if format.key == "ogg" else content.getvalue()


def _written(samples: np.ndarray, rate: int, format: Format) -> io.BytesIO:
    """The file as libsndfile writes it, without the time."""
    import soundfile

    file, how = io.BytesIO(), {"compression_level": 1 - VORBIS_QUALITY} if format.key == "ogg" else {}
    kind = {"format": format.container, "subtype": SUBTYPES[format.key], **how}
    with soundfile.SoundFile(file, "w", rate, 2, **kind) as sound:
        for block in _blocks(samples, format.key):
            sound.write(block)
    if format.key == "wav32":  # the PEAK chunk stands before the samples: id, size, version, time
        file.seek(bytes(file.getbuffer()[:256]).index(b"PEAK") + 12)
        file.write(bytes(4))
    return file


def _blocks(samples: np.ndarray, key: str) -> Iterator[np.ndarray]:
    """Samples [m, 2] in the type that the encoder wants, rounded here, because libsndfile rounds down."""
    noise = np.random.default_rng(DITHER_SEED)
    for start in range(0, samples.shape[1], BLOCK):
        block = samples[:, start : start + BLOCK].T
        if key in ("mp3", "wav16"):
            yield _dithered(block, noise)
        elif key in ("flac", "wav24"):
            yield np.clip(np.rint(block * np.float32(2**23)), -(2**23), 2**23 - 1).astype(np.int32) << 8
        elif key == "ogg":
            yield np.clip(block, -1, 1)
        else:
            yield np.ascontiguousarray(block)


def _dithered(block: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """Float samples as 16-bit ones, with triangular dither of two steps, which makes the error a steady, even hiss.

    S. P. Lipshitz, R. A. Wannamaker, J. Vanderkooy: Quantization and dither, a theoretical survey. J. Audio Eng. Soc. 40
    (5), 1992. A sample of exactly 0 stays 0, so that silence is silent.
    """
    drawn = noise.random((2, *block.shape), np.float32)
    steps = block * np.float32(2**15) + (drawn[0] - drawn[1]) * (block != 0)
    return np.clip(np.rint(steps), -(2**15), 2**15 - 1).astype("<i2")


def _renumbered(content: io.BytesIO) -> bytes:
    """An OGG file whose pages all have our serial number; mutagen works out their checksums."""
    from mutagen.ogg import OggPage

    content.seek(0)
    pages = []
    end = len(content.getbuffer())
    while content.tell() < end:
        page = OggPage(content)
        page.serial = SERIAL
        pages.append(page.write())
    return b"".join(pages)


def preview(samples: np.ndarray, rate: int) -> bytes:
    """A small MP3 of `samples` [2, n] to listen to, without the frame that tells its exact length."""
    return _lame(samples, rate, PREVIEW_KBPS, PREVIEW_QUALITY)


def _mp3(samples: np.ndarray, rate: int) -> bytes:
    """An MP3 of a constant bit rate, of LAME's own frames behind a frame that tells how long the song is."""
    if rate not in MP3_RATES:
        raise ValueError(f"{rate} Hz is no rate of MPEG-1")
    music = _lame(samples, rate, MP3_KBPS, MP3_QUALITY)
    return _info_frame(music, samples.shape[1], rate) + music


def _lame(samples: np.ndarray, rate: int, kbps: int, quality: int) -> bytes:
    """LAME's own frames. `quality` is from 0, the slowest, to 9."""
    import lameenc

    encoder: Any = lameenc.Encoder()
    encoder.silence()
    encoder.set_channels(2)
    encoder.set_in_sample_rate(rate)
    encoder.set_bit_rate(kbps)
    encoder.set_quality(quality)
    parts = [bytes(encoder.encode(block.tobytes())) for block in _blocks(samples, "mp3")]
    return b"".join([*parts, bytes(encoder.flush())])


def _info_frame(music: bytes, length: int, rate: int) -> bytes:
    """The frame in front of an MP3 of `length` samples that lets players cut off what the encoder added at both ends.

    It is silent to a player that does not know it. Gabriel Bouvigne: Mp3 Info Tag revision 1 specifications, draft 0,
    http://gabriel.mp3-tech.org/mp3infotag.html; "Info" instead of "Xing" stands for a constant bit rate. What is 0 here
    means unknown there.
    """
    size = 144_000 * MP3_KBPS // rate
    frames = _frames(music, size)
    padding = frames * MP3_FRAME - MP3_DELAY - length
    if not 0 <= padding < 2**12:
        raise RuntimeError(f"LAME made {frames} frames of {length} samples")
    header = bytes([*music[:2], music[2] & ~2, music[3]])  # as in the first frame, but not padded by a byte
    places = bytes(i * 256 // 100 for i in range(100))  # where in the file each hundredth of the song is, of 256
    total = size + len(music)
    told = (
        header + bytes(SIDE_INFO),
        struct.pack(">4sIII", b"Info", 0b1111, frames, total),  # the four flags: frames, bytes, places, quality
        places + struct.pack(">I", 100 - 10 * MP3_VBR_QUALITY - MP3_QUALITY),
        b"LAME3.100" + struct.pack(">BB8xBB", 0x01, 0, 0, 255),  # constant; low pass; loudness; flags; 255 kbps or more
        struct.pack(">I", MP3_DELAY << 12 | padding)[1:],
        struct.pack(">BBHI", MP3_RATES[rate] << 6 | 0b00101, 0, 0, total),  # stereo, noise shaped; gain; preset
        struct.pack(">H", crc16(music)),
    )
    tag = b"".join(told)
    return (tag + struct.pack(">H", crc16(tag))).ljust(size, b"\0")


def crc16(content: bytes) -> int:
    """The checksum of the LAME tag: 16 bits, polynomial 0x8005, reflected, beginning with 0 (CRC-16/ARC).

    The content is cut into lanes that are worked out side by side, then joined: a CRC is linear, so the sum of what came
    before is pushed through as many zeros as a lane has bytes. Zeros in front change nothing, which makes the lanes equal.
    """
    table = np.arange(256, dtype=np.uint16)
    for _ in range(8):
        table = table >> 1 ^ (table & 1) * np.uint16(0xA001)
    length = -(-len(content) // LANES)
    padded = np.zeros(LANES * length, np.uint8)
    padded[LANES * length - len(content) :] = np.frombuffer(content, np.uint8)
    lanes = padded.reshape(LANES, length).T.copy()
    sums = np.zeros(LANES, np.uint16)
    pushed = np.uint16(1) << np.arange(16, dtype=np.uint16)  # each bit of a sum by itself
    for column in lanes:
        sums = sums >> 8 ^ table[(sums ^ column) & 0xFF]
        pushed = pushed >> 8 ^ table[pushed & 0xFF]
    images, total = pushed.tolist(), 0
    for lane in sums.tolist():
        for bit, image in enumerate(images):
            lane ^= image * (total >> bit & 1)
        total = lane
    return total


def _frames(music: bytes, size: int) -> int:
    """How many frames there are of `size` bytes, or one more where the header says so."""
    at = frames = 0
    while at < len(music):
        if music[at : at + 2] != music[:2]:
            raise RuntimeError(f"no frame at byte {at:,}")
        at += size + (music[at + 2] >> 1 & 1)
        frames += 1
    return frames
