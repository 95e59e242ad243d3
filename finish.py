"""What is done with a finished take: written with its recipe, levelled, exported, taken apart. One handler for each request.

A handler gets the request and the take, writes into a folder of its own, and yields progress, then the Files.
"""

from __future__ import annotations

import importlib.util
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import audio_io
import backend
import loudness
import recipes
from afters import After, Export, Normalise, Separate
from errors import ExportError
from formats import FORMATS, Format, encoded
from sound import SAMPLE_RATE, AudioClip, Files, Progress, Stems, Take
from tags import Card, tagged

ARTIST = "ACE Music Studio"
PACKAGES = {Separate: "demucs", Normalise: "pyloudnorm"}  # without it that one thing cannot be done
NAME_LIMIT = 80  # characters of a title in a file's name
ZIPPED = (1980, 1, 1, 0, 0, 0)  # the time of each file in a zip: the same stems make the same zip


def unavailable() -> dict[type[After], str]:
    """What cannot be done with takes here, each with the reason."""
    return {
        mode: f"the package {name} is not installed"
        for mode, name in PACKAGES.items()
        if not importlib.util.find_spec(name)
    }


def write(path: Path, samples: np.ndarray, recipe: Mapping[str, Any], form: Format, rate: int = SAMPLE_RATE) -> None:
    """A file of samples [2, n] with its recipe inside, whole or not at all. Raises DiskFull or ExportError."""
    card = Card(recipe["title"], ARTIST, recipe["lyrics"], recipes.text(recipe))
    audio_io.whole(path, memoryview(tagged(encoded(samples, rate, form), form, card)))


def normalise(request: Normalise, take: Take, folder: Path) -> Iterator[Progress | Files]:
    """The take at another loudness, as 24-bit WAV. Raises AudioError for a take that has none."""
    yield from export(Export.parse({"format": "wav24", "target_lufs": request.target_lufs}), take, folder)


def export(request: Export, take: Take, folder: Path) -> Iterator[Progress | Files]:
    """The take as a file of the asked format: faded, resampled, levelled, in this order, then encoded."""
    form, rate, told = FORMATS[request.format], int(request.sample_rate), {}
    samples = audio_io.held(take.path)
    request.fits(samples.shape[1] / SAMPLE_RATE)
    samples = resampled(faded(samples, request.fade_in_s, request.fade_out_s), rate)
    warnings: list[str] = []
    if request.target_lufs:
        yield Progress("Measuring the loudness")
        levelled = loudness.normalise(samples, float(request.target_lufs), rate)
        samples, told, warnings = levelled.samples, {"loudness": levelled.facts}, _missed(levelled)
    yield Progress(f"Writing {form.name}")
    done = request.model_dump(mode="json", exclude={"advanced", "lm"})
    recipe = {**take.recipe, "after": done, "title": request.title or take.recipe["title"]}
    path = folder / f"{named(recipe['title'])}{form.suffix}"
    write(path, samples, recipe, form, rate)
    facts = {"after": {**done, "title": recipe["title"]}, **told, "bytes": path.stat().st_size, "warnings": warnings}
    yield Files({request.format: str(path)}, facts)


def stems(request: Separate, take: Take, folder: Path) -> Iterator[Progress | Files]:
    """The stems of the take, four WAV files and a zip of them. Raises EngineMissing without the weights."""
    song = AudioClip(audio_io.held(take.path), {})
    for event in backend.answer(request.model_copy(update={"song": song})):
        if isinstance(event, Stems):
            yield Progress("Writing the stems")
            yield _packed(event, song, take, folder)
        else:
            yield event


FINISHES: dict[type[After], Callable[..., Iterator[Progress | Files]]] = {
    Separate: stems,
    Normalise: normalise,
    Export: export,
}


def finished(request: After, take: Take | None, folder: Path) -> Iterator[Progress | Files]:
    """What a request makes of a take. Raises ExportError where there is none, or where this machine cannot."""
    if take is None:
        raise ExportError("There is no take yet.", "Make a song first.")
    needs = Normalise if isinstance(request, Export) and request.target_lufs else type(request)
    if why := unavailable().get(needs):
        raise ExportError(f"This cannot be done here: {why}.")
    return FINISHES[type(request)](request, take, folder)


def _packed(made: Stems, song: AudioClip, take: Take, folder: Path) -> Files:
    """The files of the stems. They are 24 bit, or 32-bit float where one is too loud for that."""
    loud = max(float(np.abs(part).max(initial=0)) for part in made.samples.values())
    form, title, paths = FORMATS["wav32" if loud > 1 else "wav24"], take.recipe["title"], {}
    for name, part in made.samples.items():
        paths[name] = str(path := folder / f"{named(title)} - {name}.wav")
        write(path, part, {**take.recipe, "after": {"stem": name}, "title": f"{title} ({name})"}, form)
    paths["zip"] = str(bundle := folder / f"{named(title)} - stems.zip")
    _zip(bundle, [Path(path) for path in paths.values() if path.endswith(".wav")])
    off = sum(audio_io.held(paths[name]) for name in made.samples) - song.samples
    level = 20 * np.log10(max(_rms(off) / max(_rms(song.samples), 1e-10), 1e-10))
    model = dict(made.model)
    told = {"rest_db": model.pop("rest_db"), "sum_db": round(float(level), 1)}
    return Files(paths, {"model": model, "timings": dict(made.timings), **told, "warnings": []})


def _zip(bundle: Path, files: list[Path]) -> None:
    """A zip of files, uncompressed, since sound hardly gets smaller; whole or not at all."""
    draft = bundle.with_suffix(".part")
    try:
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as packed:
            for file in files:
                with packed.open(zipfile.ZipInfo(file.name, ZIPPED), "w", force_zip64=True) as entry:
                    entry.write(file.read_bytes())
        draft.replace(bundle)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise audio_io.unwritable(error) from error


def faded(samples: np.ndarray, fade_in_s: float, fade_out_s: float) -> np.ndarray:
    """Samples [2, n] at 48 kHz that come out of silence and go into it along a raised cosine; else as they are."""
    first, last = round(fade_in_s * SAMPLE_RATE), round(fade_out_s * SAMPLE_RATE)
    if not first and not last:
        return samples
    out = samples.copy()
    out[:, :first] *= _ramp(first)
    out[:, samples.shape[1] - last :] *= _ramp(last)[::-1]
    return out


def _ramp(size: int) -> np.ndarray:
    """From 0 towards 1 in `size` samples."""
    return (0.5 - 0.5 * np.cos(np.pi * (np.arange(size) + 0.5) / max(size, 1))).astype(np.float32)


def resampled(samples: np.ndarray, rate: int) -> np.ndarray:
    """Samples [2, n] at 48 kHz as [2, m] at `rate`; the very same at 48 kHz."""
    if rate == SAMPLE_RATE:
        return samples
    import soxr

    return np.ascontiguousarray(soxr.resample(samples.T, SAMPLE_RATE, rate, quality="VHQ").T)


def named(title: str) -> str:
    """A title as the name of a file on any system: no separators, no signs that a shell or Windows reads otherwise."""
    words = re.sub(r'[\x00-\x1f<>:"/\\|?*\x7f]+', " ", title)
    words = " ".join(words.split())[:NAME_LIMIT].strip(" .")
    return words if words and not re.fullmatch(r"(?i:con|prn|aux|nul|com\d|lpt\d)", words) else "song"


def _missed(levelled: loudness.Levelled) -> list[str]:
    """What to say when limiting alone could not reach the target."""
    if not levelled.missed:
        return []
    got = levelled.after.lufs
    return [f"This take reaches {got:.1f} LUFS: more would flatten it, because its peaks stand far above the rest."]


def _rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if samples.size else 0.0
