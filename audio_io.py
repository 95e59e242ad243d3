"""Sound to files, guarded: what leaves the studio is finite, audible, of the asked length, and whole on disk."""

from __future__ import annotations

import errno
import io
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from errors import BadOutput, DiskFull, ExportError
from song import SAMPLE_RATE, Sound

SILENT_BELOW = 10 ** (-60 / 20)  # peak, -60 dBFS
CEILING = 10 ** (-1 / 20)  # -1 dBFS: where a take that would clip is brought down to
LENGTH_TOLERANCE_S = 0.5
NOISE_FLATNESS = 0.55  # noise of any colour measures 0.57 to 0.68, music of the demo model 0.27
NOISE_SALIENCE = 0.3  # noise measures 0.09 to 0.25, music of the demo model 0.50


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


def write_wav(samples: np.ndarray, path: Path) -> None:
    """Samples [2, n] as a 24-bit WAV. The file appears whole or not at all."""
    import soundfile

    # Rounded here, because libsndfile rounds down; and made in memory, because it swallows what a file's write raises.
    top = 2**23
    pcm = np.clip(np.rint(samples.T * np.float32(top)), -top, top - 1).astype(np.int32) << 8
    wav = io.BytesIO()
    try:
        soundfile.write(wav, pcm, SAMPLE_RATE, format="WAV", subtype="PCM_24")
    except RuntimeError as error:
        raise unwritable(error) from error
    whole(path, wav.getbuffer())


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
