"""One handler for each mode: values in at the door, a Take, a Draft or Written lyrics out. No widgets here, and no GPU.

`generate` is what the page and the public endpoint share. `endpoint` makes a flat function with the controls' own names
out of a mode, for gradio_client, plain HTTP and MCP.
"""

from __future__ import annotations

import inspect
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import audio_io
import backend
import lora_door
import singing
import splice
from drafts import DRAFTS
from errors import AudioError, KnobError, LoraError, StudioError, in_our_words
from fields import OBJECT, Knob
from lyrics import LYRICS, Lyrics
from plans import Draft
from remakes import Cover, Edit, Extend
from settings import VERSION, read
from song import KNOBS, Asked, Generate, SongRequest, controls, recipe
from sound import Progress, Sheet, Sound, Take, Written
from tooltips import tip

Request = TypeVar("Request", bound=Asked)
Handler = Callable[[Mapping[str, Any], Path], Iterator[Progress | Take | Draft | Written]]
Join = Callable[[Any, np.ndarray, int], splice.Splice]
KEEPING = (Extend, Edit)  # modes that promise to leave something as it was
PLANNER_KNOBS = tuple(name for name, k in KNOBS.items() if k.group == "5Hz LM")
LORAS = controls(Generate)["loras"]
NO_PLANNER = "needs the planner"
_told: set[str] = set()  # why the planner is missing, said once


def defaults(mode: type[Asked] = Generate) -> dict[str, Any]:
    """The default of each control of a mode, with the loaded checkpoint's own."""
    row, known = backend.checkpoint(), controls(mode)
    own = {"duration_s": row.duration_s, **row.knobs, **mode.given}
    return {name: k.default if k.default is None else own.get(name, k.default) for name, k in known.items()}


def unavailable() -> dict[str, str]:
    """The knobs that cannot act here, each with the reason."""
    lm = {} if backend.planner_row() else dict.fromkeys(PLANNER_KNOBS, NO_PLANNER)
    return dict(backend.checkpoint().off) | lm


def ask(mode: type[Request], values: Mapping[str, Any]) -> Request:
    """The request of a mode, its recordings and LoRAs let in. Raises InputError with one sentence."""
    lacks = backend.checkpoint().lacks
    if reason := lacks.get(mode.mode) or lacks.get(str(values.get("sub_mode"))):
        raise KnobError(reason)
    doors = {"audio": audio_io.admit, "loras": lambda entries: lora_door.admitted(entries, backend.model())}
    given = {name: doors[k.kind] for name, k in controls(mode).items() if k.kind in doors and values.get(name)}
    return mode.parse({**values, **{name: door(values[name]) for name, door in given.items()}}, defaults(mode))


def generate(values: Mapping[str, Any], folder: Path) -> Iterator[Progress | Take]:
    """A song from words. Yields progress, then the Take, written into `folder`. Raises StudioError."""
    return _sung(ask(Generate, values), splice.whole, folder)


def cover(values: Mapping[str, Any], folder: Path) -> Iterator[Progress | Take]:
    """A new version of a song, like `generate`."""
    return _sung(ask(Cover, values), splice.whole, folder)


def extend(values: Mapping[str, Any], folder: Path) -> Iterator[Progress | Take]:
    """A song with a new part, like `generate`."""
    return _sung(ask(Extend, values), splice.extend, folder)


def edit(values: Mapping[str, Any], folder: Path) -> Iterator[Progress | Take]:
    """A song changed in places or as a whole, like `generate`."""
    request = ask(Edit, values)
    return _sung(request, splice.whole if request.morphs else splice.repaint, folder)


def draft(mode: type[Asked]) -> Handler:
    """The handler of a request for words: progress, then the Draft."""
    return lambda values, _: backend.answer(ask(mode, values))


def lyrics(mode: type[Lyrics]) -> Handler:
    """The handler of a request for lyrics: progress with the words so far, then the Written lyrics."""
    return lambda values, _: _lettered(ask(mode, values))


SONGS: dict[type[SongRequest], Handler] = {Generate: generate, Cover: cover, Extend: extend, Edit: edit}
HANDLERS: dict[type[Asked], Handler] = SONGS | {mode: draft(mode) for mode in DRAFTS}
HANDLERS |= {mode: lyrics(mode) for mode in LYRICS}
PUBLIC = (*SONGS, *DRAFTS, Lyrics)  # those with an endpoint


def _sung(request: SongRequest, join: Join, folder: Path) -> Iterator[Progress | Take]:
    """A request through the gate, with no more of its source than the engine has to hear, then joined and written."""
    heard, start = request.heard()
    for event in backend.answer(heard):
        if isinstance(event, Sound):
            audio_io.guard(event, heard.seconds)
            yield take(request, event, join(request, event.samples, start), folder)
        else:
            yield event


def take(request: SongRequest, sound: Sound, song: splice.Splice, folder: Path) -> Take:
    """A written song with its recipe, and a receipt where a source was to be kept. Raises DiskFull or ExportError."""
    path = folder / f"ace-{request.advanced.seed}-{secrets.token_hex(8)}.wav"
    audio_io.write_wav(song.samples, path, exact=not audio_io.survives(song.part(song.kept())))
    warnings, lost = list(dict.fromkeys(sound.warnings)), (sound.planner or {}).get("missing")
    if lost and lost not in _told:
        _told.add(lost)
        warnings.append(f"Made without the planner. {lost}")
    if audio_io.sounds_like_noise(song.part(song.changed)):
        warnings.append("This take sounds like noise. Try a shorter prompt or another seed.")
    metadata = {
        **recipe(request),
        "inactive": request.idle | unavailable() | (dict.fromkeys(PLANNER_KNOBS, NO_PLANNER) if lost else {}),
        "planner": sound.planner,
        "model": dict(sound.model),
        "timings": dict(sound.timings),
        "audio": {
            "seconds": song.samples.shape[1] / sound.sample_rate,
            "sample_rate": sound.sample_rate,
            "channels": song.samples.shape[0],
            "gain_db": song.gain_db,
        },
        **({"receipt": splice.receipt(song, request.source_audio, path)} if isinstance(request, KEEPING) else {}),
        "warnings": warnings,
        **_signed(),
    }
    return Take(str(path), metadata)


def _lettered(request: Lyrics) -> Iterator[Progress | Written]:
    """Lyrics through the gate, with their recipe."""
    for event in backend.answer(request):
        if isinstance(event, Sheet):
            metadata = {
                **recipe(request),
                "inactive": request.idle,
                "model": dict(event.model),
                "timings": dict(event.timings),
                "sections": [asdict(section) for section in singing.sung(event.text, request.language)],
                "warnings": list(event.warnings),
                **_signed(),
            }
            yield Written(event.text, {k: v for k, v in metadata.items() if k not in ("advanced", "lm")})
        else:
            yield event


def _signed() -> dict[str, str]:
    """Which studio made it, and when."""
    return {"app": VERSION, "made": datetime.now(UTC).isoformat(timespec="seconds")}


def scratch() -> AbstractContextManager[Path]:
    """A folder for one request's files, gone when the block ends."""
    return audio_io.scratch(read().scratch)


def summary(song: Take) -> str:
    """A finished take in one line, with what its maker should know."""
    made = song.metadata
    words = f"{made['audio']['seconds']:g} s in {made['timings']['total_s']:.1f} s · seed {made['seed']}"
    return " · ".join([words, *made["warnings"]])


def run(handler: Handler, values: Mapping[str, Any]) -> Iterator[Progress | Take | Draft | Written]:
    """A handler's events, with a folder that is gone when they end, and with every error as a StudioError."""
    try:
        with scratch() as folder:
            yield from handler(values, folder)
    except StudioError:
        raise
    except Exception as error:
        raise in_our_words(error) from error


def endpoint(mode: type[Asked]) -> Callable[..., Iterator[Any]]:
    """A flat generator with the controls' names and defaults as its signature; the first one is required.

    While it works it yields progress, at the end `(file, metadata)` of a song, `(lyrics, metadata)` of lyrics, or the draft;
    clients that wait for the result get the last one. Errors are `gr.Error` with our sentence.
    """
    import gradio as gr
    from gradio.data_classes import FileData

    known, handler, single = controls(mode), HANDLERS[mode], mode in DRAFTS
    returns = dict if single else tuple[FileData if mode in SONGS else str, dict]

    def call(*values: Any) -> Iterator[Any]:
        try:
            asked = dict(zip(known, values, strict=True))
            for event in run(handler, asked | uploads(mode, asked)):
                if isinstance(event, Take):
                    file = FileData(path=event.path, meta={"_type": "gradio.FileData"})
                    yield file.model_dump(), dict(event.metadata)
                elif isinstance(event, Draft):
                    yield event.model_dump(mode="json")
                elif isinstance(event, Written):
                    yield event.text, dict(event.metadata)
                else:
                    progress = {"phase": event.phase, "step": event.step, "of": event.of}
                    yield progress if single else (None if mode in SONGS else event.text, progress)
        except StudioError as error:
            raise gr.Error(str(error), print_exception=False) from None

    call.__name__ = mode.mode
    call.__signature__ = _signature(mode, returns)
    call.__annotations__ = {p.name: p.annotation for p in call.__signature__.parameters.values()}
    call.__annotations__["return"] = call.__signature__.return_annotation
    lines = [f"    {name}: {tip(k)}" for name, k in known.items()]
    call.__doc__ = "\n".join([inspect.getdoc(mode) or "", "", "Parameters:", *lines])
    return call


def _signature(mode: type[Asked], returns: Any) -> inspect.Signature:
    """The controls of a mode as parameters, with types that gradio and MCP understand."""
    from gradio.data_classes import FileData

    kinds = {
        "audio": FileData,
        "pairs": list[list[float]],
        "loras": list[dict],
        "int": int,
        "float": float,
        "bool": bool,
        OBJECT: dict,
    }
    given, parameters = defaults(mode), []
    for name, k in controls(mode).items():
        kind = kinds.get(k.kind, str)
        default = list(given[name]) if k.kind in ("pairs", "loras") else given[name]
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=default if parameters else inspect.Parameter.empty,
                annotation=kind | None if k.optional and k.empty else kind,
            )
        )
    return inspect.Signature(parameters, return_annotation=returns)


def uploads(mode: type[Asked], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that hold files, with their paths. Raises AudioError or LoraError for what is nobody's upload."""
    read = {"audio": uploaded, "loras": uploaded_stack}
    return {name: read[k.kind](values[name], k) for name, k in controls(mode).items() if k.kind in read}


def uploaded_stack(entries: Any, control: Knob = LORAS) -> Any:
    """A stack of LoRAs with the paths of its files. Raises LoraError for what is nobody's upload."""
    return lora_door.uploaded(entries, lambda file: uploaded(file, control))


def uploaded(value: Any, control: Knob) -> str | None:
    """The path of a file that a client uploaded, or None for no file.

    Gradio guards the files of its own components; what comes to an endpoint it guards only when it is marked as a file.
    Raises AudioError or LoraError for anything that does not lie in the upload folder.
    """
    from gradio.utils import get_upload_folder

    if not value:
        return None
    path = value.get("path") if isinstance(value, dict) else getattr(value, "path", None)
    folder = Path(get_upload_folder()).resolve()
    with suppress(ValueError):  # a zero byte or half a character is in no path
        if isinstance(path, str) and Path(path).resolve().is_relative_to(folder):
            with suppress(OSError):
                os.utime(path)  # in use: gradio sweeps by age, and a stack of LoRAs may rest on a page for hours
            return path
    if control.kind == "loras":
        raise LoraError("A LoRA must be an uploaded file or a preset.")
    raise AudioError(f"{control.label} must be an uploaded file.")
