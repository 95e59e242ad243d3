"""One handler for each mode: values in at the door, a Take out. No widgets here, and no GPU.

`generate` is what the page and the public endpoint share. `endpoint` makes a flat function with the controls' own names
out of a mode, for gradio_client, plain HTTP and MCP.
"""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import audio_io
import backend
from errors import StudioError, in_our_words
from settings import VERSION, read
from song import KNOBS, Generate, Progress, SongRequest, Sound, Take, controls, recipe
from tooltips import tip

NO_PLANNER = "needs the planner"
Handler = Callable[[Mapping[str, Any], Path], Iterator[Progress | Take]]


def defaults(request: type[SongRequest] = Generate) -> dict[str, Any]:
    """The default of each control of a mode, with the loaded checkpoint's own."""
    row = backend.checkpoint()
    table = {name: k.default for name, k in controls(request).items()}
    return table | {"duration_s": row.duration_s} | dict(row.knobs)


def unavailable() -> dict[str, str]:
    """The knobs that cannot act here, each with the reason."""
    lm = {name: NO_PLANNER for name, k in KNOBS.items() if k.group == "5Hz LM"}
    return lm | dict(backend.checkpoint().off)


def generate(values: Mapping[str, Any], folder: Path) -> Iterator[Progress | Take]:
    """A song from words. Yields progress, then the Take, written into `folder`. Raises StudioError."""
    request = Generate.parse(values, defaults())
    for event in backend.sing(request):
        yield take(request, event, request.duration_s, folder) if isinstance(event, Sound) else event


def take(request: SongRequest, sound: Sound, seconds: float, folder: Path) -> Take:
    """A guarded, written song with its recipe. Raises BadOutput, DiskFull or ExportError."""
    audio_io.guard(sound, seconds)
    samples, gain_db = audio_io.level(sound.samples)
    warnings = list(sound.warnings)
    if audio_io.sounds_like_noise(samples):
        warnings.append("This take sounds like noise. Try a shorter prompt or another seed.")
    path = folder / f"ace-{request.advanced.seed}-{secrets.token_hex(8)}.wav"
    audio_io.write_wav(samples, path)
    metadata = {
        **recipe(request),
        "planner": None,
        "model": dict(sound.model),
        "timings": dict(sound.timings),
        "audio": {
            "seconds": samples.shape[1] / sound.sample_rate,
            "sample_rate": sound.sample_rate,
            "channels": samples.shape[0],
            "gain_db": gain_db,
        },
        "warnings": warnings,
        "app": VERSION,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return Take(str(path), metadata)


def scratch() -> AbstractContextManager[Path]:
    """A folder for one request's files, gone when the block ends."""
    return audio_io.scratch(read().scratch)


def summary(song: Take) -> str:
    """A finished take in one line, with what its maker should know."""
    made = song.metadata
    words = f"{made['audio']['seconds']:g} s in {made['timings']['total_s']:.1f} s · seed {made['seed']}"
    return " · ".join([words, *made["warnings"]])


def run(handler: Handler, values: Mapping[str, Any]) -> Iterator[Progress | Take]:
    """A handler's events, with a folder that is gone when they end, and with every error as a StudioError."""
    try:
        with scratch() as folder:
            yield from handler(values, folder)
    except StudioError:
        raise
    except Exception as error:
        raise in_our_words(error) from error


def endpoint(mode: type[SongRequest], handler: Handler) -> Callable[..., Iterator[tuple[Any, dict]]]:
    """A flat generator with the controls' names and defaults as its signature.

    It yields `(None, progress)` while the song is made and `(file, metadata)` at the end; clients that wait for the
    result get the last one. Errors are `gr.Error` with our sentence.
    """
    import gradio as gr
    from gradio.data_classes import FileData

    given, known = defaults(mode), controls(mode)

    def call(*values: Any) -> Iterator[tuple[Any, dict]]:
        try:
            for event in run(handler, dict(zip(known, values, strict=True))):
                if isinstance(event, Take):
                    file = FileData(path=event.path, meta={"_type": "gradio.FileData"})
                    yield file.model_dump(), dict(event.metadata)
                else:
                    yield None, {"phase": event.phase, "step": event.step, "of": event.of}
        except StudioError as error:
            raise gr.Error(str(error), print_exception=False) from None

    required = inspect.Parameter.empty
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=required if name == "prompt" else given[name],
            annotation=k.type,
        )
        for name, k in known.items()
    ]
    returns = tuple[FileData, dict]
    call.__name__ = mode.mode
    call.__signature__ = inspect.Signature(parameters, return_annotation=returns)
    call.__annotations__ = {name: k.type for name, k in known.items()} | {"return": returns}
    lines = [f"    {name}: {tip(k)}" for name, k in known.items()]
    call.__doc__ = "\n".join([inspect.getdoc(mode) or "", "", "Parameters:", *lines])
    return call
