"""The decoder: reads one untrusted recording in a process of its own, so that a hang, a crash or a bomb ends only that.

    python -I decode.py PATH LIMITS

LIMITS is the JSON that `audio_io` makes. Standard output gets one line of JSON. That is `error` (a sentence) and `hint` when
the recording is refused; otherwise `samples`, `sha256`, `format`, `sample_rate` and `channels`, and after the line the
samples: float32, interleaved, stereo, at the studio's rate. What cannot be decoded at all ends with another exit status.

Nothing of the studio is imported here: -I hides it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import stat
import sys
import threading
from typing import Any

BLOCK = 2**16  # frames read at a time
MISSING_S = 0.1  # what a file may lack of what its header tells: an MP3 that skips a bad frame lacks 0.03 s
UNKNOWN = 2**63 - 1  # frames that libsndfile reports when a stream does not say how many it has
UNRECOGNISED = 1  # SF_ERR_UNRECOGNISED_FORMAT
FORMATS = {"WAV": "WAV", "WAVEX": "WAV", "RF64": "WAV", "FLAC": "FLAC", "OGG": "OGG", "MP3": "MP3", "AIFF": "AIFF"}
# How they begin. libsndfile knows twenty more formats, rarely used and rarely tested: their parsers never see an upload.
BEGINNINGS = (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS", b"FORM", b"ID3", b"\xff")

HALF_POWER = math.sqrt(0.5)
SPEAKERS = {  # what each adds to left and right: ITU-R BS.775, table 2
    "L": (1, 0),
    "R": (0, 1),
    "C": (HALF_POWER, HALF_POWER),
    "LFE": (0, 0),
    "Ls": (HALF_POWER, 0),
    "Rs": (0, HALF_POWER),
    "Lb": (HALF_POWER, 0),
    "Rb": (0, HALF_POWER),
    "Cs": (0.5, 0.5),
}
WAV_ORDER = {
    3: "L R C",
    4: "L R Ls Rs",
    5: "L R C Ls Rs",
    6: "L R C LFE Ls Rs",
    7: "L R C LFE Cs Ls Rs",
    8: "L R C LFE Lb Rb Ls Rs",
}
OGG_ORDER = {  # Vorbis I specification, 4.3.9; Opus (RFC 7845) has the same. libsndfile passes it on unsorted
    3: "L C R",
    4: "L R Ls Rs",
    5: "L C R Ls Rs",
    6: "L C R Ls Rs LFE",
    7: "L C R Ls Rs Cs LFE",
    8: "L C R Ls Rs Lb Rb LFE",
}


class Refused(Exception):
    """A recording that cannot be used: a sentence, and perhaps a hint."""


def fence(memory: int) -> None:
    """Allow this process `memory` bytes of addresses and no core file, where the system knows such limits."""
    try:
        import resource
    except ImportError:
        return
    for limit, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # macOS may refuse; a stricter limit of the owner stays
            resource.setrlimit(limit, (most, most))


def plain_file(path: str) -> int:
    """A descriptor of the regular file at `path`: no link, no device, no pipe that would wait for a writer."""
    wanted = ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
    handle = os.open(path, os.O_RDONLY | sum(getattr(os, name, 0) for name in wanted))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise OSError("not a regular file")
    return handle


def piped(handle: int) -> int:
    """A pipe that carries an MP3 without the tags in front of it, for which libsndfile has little room on a pipe."""
    source, sink = os.pipe()

    def feed() -> None:
        at = 0
        while (head := os.pread(handle, 10, at)).startswith(b"ID3") and len(head) == 10:
            size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]  # ID3v2, 3.1: four times seven bits
            at += 10 + size + (10 if head[5] & 0x10 else 0)
        with contextlib.suppress(OSError), open(sink, "wb", buffering=0) as pipe:
            while part := os.pread(handle, 2**16, at):
                at += pipe.write(part)

    threading.Thread(target=feed, daemon=True).start()
    return source


def opened(handle: int) -> Any:
    """The SoundFile behind a descriptor, which has no name and so no extension. Raises Refused or LibsndfileError."""
    import soundfile

    class Forward(soundfile.SoundFile):
        """Read from start to end. soundfile would seek after each block, which MP3 and unmeasured FLAC do not survive."""

        def seekable(self) -> bool:
            return False

    refusal = Refused("Not a WAV, FLAC, OGG, MP3 or AIFF file.")
    file = open(handle, "rb", buffering=0, closefd=False)  # noqa: SIM115  libsndfile reads it until the process ends
    if not file.read(4).startswith(BEGINNINGS):
        raise refusal
    file.seek(0)
    try:
        sound = Forward(file)
    except soundfile.LibsndfileError as error:
        raise refusal if error.code == UNRECOGNISED else error from None
    if sound.format not in FORMATS:
        raise refusal
    if sound.format == "MP3" and hasattr(os, "pread"):
        # Without a Xing header libsndfile guesses the length from the first frame and the size of the file, and stops
        # there: a song with a loud beginning would lose its end. From a pipe it cannot guess, and reads them all.
        with contextlib.suppress(soundfile.LibsndfileError):
            stream = Forward(piped(handle))
            return stream if stream.frames == UNKNOWN else sound
    return sound


def check_header(sound: Any, limits: dict[str, Any]) -> None:
    """Raise Refused for what the header already tells: nothing is decoded, however much it claims to hold."""
    slowest, fastest = limits["rates"]
    if sound.channels > limits["channels"]:
        raise Refused(
            f"At most {limits['channels']} channels; yours has {sound.channels:,}.", "Mix it to stereo first."
        )
    if not slowest <= sound.samplerate <= fastest:
        raise Refused(f"Sample rates go from {slowest:,} to {fastest:,} Hz; yours is {sound.samplerate:,} Hz.")
    if sound.frames != UNKNOWN:
        check_longest(sound.frames / sound.samplerate, limits)


def check_longest(seconds: float, limits: dict[str, Any]) -> None:
    """Raise Refused over the limit; `seconds` may be infinite, which is a length that nobody counted."""
    longest = limits["range_s"][1]
    if seconds <= longest:
        return
    theirs = "longer"
    if math.isfinite(seconds):
        minutes, rest = divmod(math.ceil(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        theirs = f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
    raise Refused(f"Longest is {longest / 60:g} min; yours is {theirs}.", "Cut it first.")


def downmix(channels: int, kind: str) -> Any:
    """Weights [channels, 2] of a mix to stereo; each side adds up to 1, so that it cannot clip."""
    import numpy as np

    order = OGG_ORDER if kind == "OGG" else WAV_ORDER
    weights = np.array([SPEAKERS[name] for name in order[channels].split()])
    return (weights / weights.sum(axis=0)).astype(np.float32)


def decoded(sound: Any, limits: dict[str, Any]) -> Any:
    """Samples [n, 2] at the studio's rate, read block by block. Raises Refused as soon as a block is damaged or too much."""
    import numpy as np
    import soxr

    rate, studio, channels = sound.samplerate, limits["rate"], sound.channels
    most = int(limits["range_s"][1] * rate)
    weights = downmix(channels, sound.format) if channels > 2 else None
    stream = None
    if rate != studio:
        stream = soxr.ResampleStream(rate, studio, min(channels, 2), dtype="float32", quality="VHQ")
    # Pages of zeros cost nothing until they are written to. soxr may give a sample more.
    out = np.zeros((round(min(sound.frames, most) * studio / rate) + 2, 2), np.float32)
    buffer = np.empty((BLOCK, channels), np.float32)
    frames = filled = 0
    ended = False
    while not ended:
        # Never more than the header has: behind the last frame of a FLAC there may be a tag, which is no audio.
        block = sound.read(out=buffer[: min(BLOCK, sound.frames - frames)], always_2d=True)
        ended = not len(block)
        frames += len(block)
        if frames > most:
            check_longest(math.inf, limits)
        if not np.isfinite(block).all():
            raise Refused("This recording has damaged samples (not a number, or infinite).", "Export it again.")
        block = block if weights is None else block @ weights
        block = block if stream is None else stream.resample_chunk(block, last=ended)
        out[filled : filled + len(block)] = block  # one channel fills both sides
        filled += len(block)
    if sound.frames != UNKNOWN and frames < sound.frames - MISSING_S * rate:
        held, told = frames / rate, sound.frames / rate
        raise Refused(f"Only {held:.1f} of {told:.1f} s can be read; the file may be damaged.")
    wanted = round(frames * studio / rate)
    if filled < wanted - 2:
        raise RuntimeError(f"soxr gave {filled} of {wanted} samples")
    # Lengths can be counted on: soxr rounds halves up, which is one sample too many; were it to round a sample or two away,
    # the zeros of `out` would stand in for them.
    return out[:wanted]


def check_sound(samples: Any, limits: dict[str, Any]) -> None:
    """Raise Refused for what only the samples tell, whatever the header said."""
    shortest, seconds = limits["range_s"][0], len(samples) / limits["rate"]
    if seconds < shortest:
        raise Refused(f"Shortest is {shortest:g} s; yours is {math.floor(seconds * 100) / 100:g} s.")
    peak = max(samples.max(), -samples.min())
    if not math.isfinite(peak):
        raise Refused("This recording is too loud to be mixed or resampled.", "Export it again.")
    if peak < limits["silent"]:
        raise Refused("This recording is silent.")


def main(path: str, limits: dict[str, Any]) -> None:
    """Answer on standard output."""
    fence(limits["memory"])
    sys.path += limits["packages"]  # where the parent has its libraries; -I knows not all of these places
    samples: Any = b""
    try:
        handle = plain_file(path)
        sound = opened(handle)
        check_header(sound, limits)
        samples = decoded(sound, limits)
        check_sound(samples, limits)
        with open(handle, "rb", buffering=0, closefd=False) as file:
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        facts = {"format": FORMATS[sound.format], "sample_rate": sound.samplerate, "channels": sound.channels}
        answer = {"samples": len(samples), "sha256": digest, **facts}
    except (RuntimeError, OSError) as error:  # libsndfile's errors are RuntimeErrors
        sys.exit(str(error))
    except Refused as refusal:
        sentence, *hint = refusal.args
        answer, samples = {"error": sentence, "hint": "".join(hint)}, b""
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.write(samples)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
