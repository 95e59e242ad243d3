"""Recordings in and songs out, guarded on both sides.

What is let in is stereo at 48 kHz, finite, audible and of a length the studio can use; `decode.py` reads it in a process of
its own. What leaves is finite, audible, of the asked length, and whole on disk.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import secrets
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from errors import AudioError, BadOutput, DiskFull, ExportError
from fields import AUDIO_RANGE_S
from settings import ROOT
from sound import SAMPLE_RATE, AudioClip, Sound

log = logging.getLogger("ace.audio")

# What is let in. A song of this studio has to be able to come back: 600 s of 32-bit float stereo are 230 MB.
AUDIO_MAX_BYTES = 250_000_000
SOURCE_RATES = (8_000, 384_000)  # Hz, from telephones to the fastest converters sold
SOURCE_CHANNELS = 8  # 7.1, the widest layout that the mix to stereo knows
DECODE_LIMIT_S = 20  # ten minutes of CD or Opus take 3 to 5 s on an idle core, of 8 channels at 384 kHz 11 s
DECODE_MEMORY = 2 * 2**30  # bytes of addresses; ten minutes of sound are 230 MB
DECODER = ROOT / "decode.py"
DAMAGED = "This file could not be read; it may be damaged."
KEPT_S = 3600  # how long a finished file lives; the page's own delete_cache is the same
EXPIRED = "The upload has expired; please add it again."

SILENT_BELOW = 10 ** (-60 / 20)  # peak, -60 dBFS
CEILING = 10 ** (-1 / 20)  # -1 dBFS: where a take that would clip is brought down to
LENGTH_TOLERANCE_S = 0.5
PCM_TOP = 2**23  # one more than the highest 24-bit sample
NOISE_FLATNESS = 0.55  # noise of any colour measures 0.57 to 0.68, music of the demo model 0.27
NOISE_SALIENCE = 0.3  # noise measures 0.09 to 0.25, music of the demo model 0.50


def admit(path: str | Path) -> AudioClip:
    """The recording in an upload that nobody vouches for. Raises AudioError, whose words never hold the path."""
    check_file(path)
    output = run_decoder(path)
    end = output.find(b"\n") + 1  # not partition, which would copy all samples
    try:
        answer = json.loads(output[:end])
        if "error" in answer:
            raise AudioError(answer["error"], answer["hint"])
        samples = np.frombuffer(output, np.float32, offset=end).reshape(answer.pop("samples"), 2)
    except (ValueError, KeyError, TypeError) as error:
        log.warning("decoder answered %r: %s", output[:end][:200], error)
        raise AudioError(DAMAGED) from None
    return AudioClip(samples.T.copy(), answer)


def check_file(path: str | Path) -> None:
    """Raise AudioError for what is known of a file without opening it."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise AudioError(EXPIRED) from None
    except (OSError, ValueError) as error:
        log.warning("upload: %s", type(error).__name__)
        raise AudioError(DAMAGED) from None
    if not stat.S_ISREG(found.st_mode):
        raise AudioError("This is not a plain file.")
    if found.st_size == 0:
        raise AudioError("The file is empty.")
    if found.st_size > AUDIO_MAX_BYTES:
        most, size = AUDIO_MAX_BYTES // 10**6, math.ceil(found.st_size / 10**6)
        raise AudioError(f"Largest is {most} MB; yours is {size:,} MB.", "Save it as FLAC or MP3.")


def run_decoder(path: str | Path) -> bytes:
    """What `decode.py` answers of a recording."""
    limits = {
        "rate": SAMPLE_RATE,
        "range_s": AUDIO_RANGE_S,
        "rates": SOURCE_RATES,
        "channels": SOURCE_CHANNELS,
        "silent": SILENT_BELOW,
        "memory": DECODE_MEMORY,
    }
    return in_child(DECODER, path, limits, DECODE_LIMIT_S)


def in_child(script: Path, path: str | Path, limits: Mapping[str, Any], seconds: float) -> bytes:
    """What a script answers about an upload, in a process that has no secrets of ours, little time and little memory.

    The script bounds its own memory by `limits`. Raises AudioError when it does not answer within `seconds`, or dies.
    """
    told = {**limits, "packages": [folder for folder in sys.path if folder.endswith("-packages")]}
    kept = {name: os.environ[name] for name in ("SYSTEMROOT", "LD_LIBRARY_PATH") if name in os.environ}
    try:
        run = subprocess.run(
            [sys.executable, "-I", str(script), os.fspath(path), json.dumps(told)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            env={"OPENBLAS_NUM_THREADS": "1", **kept},  # each thread of OpenBLAS would claim addresses
        )
    except subprocess.TimeoutExpired:
        log.warning("%s: over %g s", script.stem, seconds)
        raise AudioError("This file took too long to read.", "Save it as WAV and add it again.") from None
    if words := run.stderr.decode(errors="replace").replace(os.fspath(path), "the upload").strip():
        log.warning("%s: %r", script.stem, words[-1000:])
    if run.returncode:
        log.warning("%s: exit status %d", script.stem, run.returncode)
        raise AudioError(DAMAGED if os.path.lexists(path) else EXPIRED)
    return run.stdout


def peaks(clip_samples: np.ndarray, bins: int) -> list[float]:
    """The outline of samples [2, n]: the highest of each of `bins` equal parts, of 1.0 for the loudest, to 3 digits."""
    length = clip_samples.shape[1]
    if not length:
        return [0.0] * bins
    starts = np.arange(bins) * length // bins  # an empty part, of fewer samples than bins, takes the next sample
    high = np.maximum.reduceat(clip_samples, starts, axis=1).max(axis=0)
    low = np.minimum.reduceat(clip_samples, starts, axis=1).min(axis=0)
    outline = np.maximum(high, -low).astype(float)
    return (outline / (outline.max() or 1.0)).round(3).tolist()


def guard(sound: Sound, seconds: float) -> None:
    """Raise BadOutput unless `sound` is finite, 48 kHz stereo, `seconds` long, neither silent nor constant."""
    x = sound.samples
    if sound.sample_rate != SAMPLE_RATE or x.ndim != 2 or x.shape[0] != 2:
        shape = " x ".join(map(str, x.shape))
        raise BadOutput(f"The engine gave {shape} samples at {sound.sample_rate} Hz instead of stereo at 48 kHz.")
    made = x.shape[1] / SAMPLE_RATE
    if abs(made - seconds) > LENGTH_TOLERANCE_S:
        raise BadOutput(f"The engine made {made:.2f} s of sound; {seconds:g} s were asked for.")
    if not np.isfinite(x).all():
        raise BadOutput(
            "The model lost its way (samples that are not finite).", "Try another seed or a lower guidance."
        )
    if np.abs(x).max() < SILENT_BELOW or np.ptp(x, axis=1).max() < SILENT_BELOW:
        raise BadOutput("The model made silence.", "Try another seed or other words.")


def sounds_like_noise(samples: np.ndarray) -> bool:
    """Whether samples [2, n] have the texture of wind: a spectrum flat in every band, and nothing that repeats.

    Guided XL checkpoints can collapse so on long prompts. Flatness is the ratio of geometric to arithmetic mean of the
    power in bands of 125 Hz, so that the colour of the noise does not matter; salience is the highest autocorrelation
    between 50 and 500 Hz of the whitened spectrum. Both are medians over frames of 2,048 samples at 16 kHz.
    """
    hop, size, first, bands, width = 3, 2048, 24, 43, 32
    mono = samples.mean(axis=0)
    mono = mono[: len(mono) // (hop * size) * hop * size].reshape(-1, hop).mean(axis=1)
    power = np.abs(np.fft.rfft(mono.reshape(-1, size) * np.hanning(size), n=2 * size)) ** 2
    used = slice(first, first + bands * width)
    band = power[:, used].reshape(-1, bands, width) + 1e-12
    mean = band.mean(axis=2)
    loud = mean > 1e-4 * mean.max(axis=1, keepdims=True, initial=SILENT_BELOW)
    if not loud.any():
        return False
    flatness = np.median((np.exp(np.log(band).mean(axis=2)) / mean)[loud])
    white = np.zeros_like(power)
    white[:, used] = (band / mean[..., None] * loud[..., None]).reshape(len(power), -1)
    correlation = np.fft.irfft(white[loud.any(axis=1)])[:, :size]
    salience = np.median(correlation[:, 32:320].max(axis=1) / correlation[:, 0])
    return bool(flatness > NOISE_FLATNESS and salience < NOISE_SALIENCE)


def level(samples: np.ndarray) -> tuple[np.ndarray, float]:
    """Samples that do not clip, and the gain in dB that was needed: 0 unless the peak passed full scale."""
    peak = float(np.abs(samples).max())
    if peak <= 1.0:
        return samples, 0.0
    return samples * np.float32(CEILING / peak), round(20 * float(np.log10(CEILING / peak)), 2)


def survives(samples: np.ndarray) -> bool:
    """Whether a 24-bit file can hold these very samples."""
    steps = samples * np.float32(PCM_TOP)
    whole_steps = (steps == np.rint(steps)).all() and (steps >= -PCM_TOP).all() and (steps < PCM_TOP).all()
    return bool(whole_steps and not np.signbit(samples[samples == 0]).any())  # -0.0 would come back as 0.0


def rounded(samples: np.ndarray) -> np.ndarray:
    """Samples as a 24-bit file holds them, which has no -0."""
    steps = np.clip(np.rint(samples * np.float32(PCM_TOP)), -PCM_TOP, PCM_TOP - 1)
    return (steps / np.float32(PCM_TOP)).astype(np.float32) + np.float32(0)


def held(path: str | Path) -> np.ndarray:
    """The samples [2, n] of a take's own file, and the sign that it is in use. Raises ExportError when it is gone."""
    import soundfile

    try:
        os.utime(path)  # gradio sweeps by age
        return soundfile.read(path, dtype="float32")[0].T
    except (OSError, RuntimeError) as error:  # libsndfile's errors are RuntimeErrors
        log.warning("take: %s", type(error).__name__)
        raise ExportError(
            "This take is no longer here: files are kept for an hour.",
            "Make it again, or restore it from a file of it.",
        ) from None


def keep(path: str | Path, outbox: Path) -> Path:
    """Move a finished file to where it stays for an hour, in a folder with an unguessable name. Raises DiskFull or ExportError."""
    folder = outbox / secrets.token_hex(16)
    try:
        folder.mkdir(parents=True)
        return Path(shutil.move(path, folder / Path(path).name))
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise unwritable(error) from error


def sweep(outbox: Path) -> None:
    """Remove what has lain there for an hour unused, and the folders whose files Gradio has swept."""
    old = time.time() - KEPT_S
    for folder in outbox.iterdir() if outbox.is_dir() else ():
        with contextlib.suppress(OSError):  # another request sweeps, too
            newest = max(entry.lstat().st_ctime for entry in (folder, *folder.iterdir()))
            if newest < old:
                shutil.rmtree(folder, ignore_errors=True)


def whole(path: Path, content: memoryview) -> None:
    """Write a file under a temporary name, then move it into place. Raises DiskFull or ExportError, leaving nothing."""
    draft = path.with_suffix(path.suffix + ".part")
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise unwritable(error) from error


def unwritable(error: BaseException) -> ExportError:
    """An error of the file system in our words."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("The disk is full: the song could not be written.", "Free some space and try again.")
    return ExportError(f"The song could not be written ({type(error).__name__}).", "Check the temporary folder.")


@contextmanager
def scratch(root: Path) -> Iterator[Path]:
    """A folder with an unguessable name, gone when the block ends, whatever happens in it."""
    folder = root / secrets.token_hex(8)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise unwritable(error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
