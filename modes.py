"""One handler for each mode: values in at the door, a Take, its Files, a Draft or Written lyrics out. No widgets here, no GPU.

`generate` is what the page and the public endpoint share.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import audio_io
import backend
import finish
import lora_door
import measures
import recipes
import singing
import splice
from afters import AFTERS, After
from drafts import DRAFTS
from errors import InputError, KnobError, StudioError, TextError, in_our_words
from fields import Knob
from formats import FORMATS
from lyrics import LYRICS, Lyrics
from plans import Draft
from remakes import Cover, Edit, Extend
from settings import VERSION, read
from song import KNOBS, Asked, Generate, SongRequest, controls, recipe
from sound import Files, Progress, Sheet, Sound, Take, Written

Request = TypeVar("Request", bound=Asked)
Event = Progress | Take | Files | Draft | Written
Handler = Callable[[Mapping[str, Any], Path], Iterator[Event]]
Join = Callable[[Any, np.ndarray, int], splice.Splice]
KEEPING = (Extend, Edit)  # modes that promise to leave something as it was
PLANNER_KNOBS = tuple(name for name, k in KNOBS.items() if k.group == "5Hz LM")
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
    doors = {
        "audio": lambda path: recipes.signed(audio_io.admit(path), path),
        "loras": lambda entries: lora_door.admitted(entries, backend.model()),
    }
    known, let_in = controls(mode), {}
    at = ""
    try:
        for at in (name for name, k in known.items() if k.kind in doors and values.get(name)):
            let_in[at] = doors[known[at].kind](values[at])
        at = ""
        return mode.parse({**values, **let_in}, defaults(mode))
    except InputError as error:
        error.control = at or _about(error, known)
        raise


def _about(error: InputError, known: Mapping[str, Knob]) -> str:
    """The control that a sentence begins with; words that are missing belong into the first box for words."""
    named = [name for name, k in known.items() if error.message.startswith(k.label)]
    texts = [name for name, k in known.items() if k.kind == "text" and isinstance(error, TextError)]
    return max(named, key=lambda name: len(known[name].label), default=next(iter(texts), ""))


def generate(values: Mapping[str, Any], folder: Path) -> Iterator[Progress | Take]:
    """A song from words. Yields progress, and each Take as it is written into `folder`. Raises StudioError."""
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
PUBLIC = (*SONGS, *DRAFTS, Lyrics, *AFTERS)  # those with an endpoint


def after(mode: type[After], made: Take | None) -> Handler:
    """The handler of what is asked of a take that was made: progress, then the Files."""
    return lambda values, folder: finish.finished(ask(mode, values), made, folder)


def _sung(request: SongRequest, join: Join, folder: Path) -> Iterator[Progress | Take]:
    """A request through the gate, with no more of its source than the engine has to hear; each take joined and written."""
    heard, start = request.heard()
    singles = iter(request.singles())
    for event in backend.answer(heard):
        if isinstance(event, Sound):
            audio_io.guard(event, heard.seconds)
            yield take(next(singles), event, join(request, event.samples, start), folder)
        else:
            yield event


def take(request: SongRequest, sound: Sound, song: splice.Splice, folder: Path) -> Take:
    """A written song with its recipe, and a receipt where a source was to be kept. Raises DiskFull or ExportError."""
    path = folder / f"ace-{request.advanced.seed}-{secrets.token_hex(8)}.wav"
    exact = not audio_io.survives(song.part(song.kept()))
    held = song.samples if exact else audio_io.rounded(song.samples)
    own = recipes.of(request, sound, held)
    finish.write(path, held, own, FORMATS["wav32" if exact else "wav24"])
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
        "take": own["take"],
        "parents": own["parents"],
        **({"together": dict(sound.together)} if sound.together else {}),
        **_asked_and_got(request, sound, held),
        **({"receipt": splice.receipt(song, request.source_audio, path)} if isinstance(request, KEEPING) else {}),
        "warnings": warnings,
        **_signed(),
    }
    return Take(str(path), metadata, own)


def _asked_and_got(request: SongRequest, sound: Sound, held: np.ndarray) -> dict[str, Any]:
    """Tempo, key and length as they were asked for, or planned, and as the finished take has them, with its loudness."""
    plan = (sound.planner or {}).get("plan") or {}
    asked, by = {"seconds": request.seconds}, {}
    for name in ("bpm", "keyscale"):
        asked[name] = getattr(request.advanced, name) or plan.get(name) or None
        if asked[name]:
            by[name] = "asked" if getattr(request.advanced, name) else "planned"
    return {"asked": asked | {"by": by}, "measured": measures.measured(held, asked["bpm"], asked["keyscale"] or "")}


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


def kept(event: Event) -> Event:
    """The event, its files moved to where they stay."""
    outbox = read().outbox
    if isinstance(event, Take):
        return replace(event, path=str(audio_io.keep(event.path, outbox)))
    if isinstance(event, Files):
        paths = {name: str(audio_io.keep(path, outbox)) for name, path in event.paths.items()}
        return replace(event, paths=paths)
    return event


def placed(song: Take) -> tuple[int, int]:
    """Which take of how many that were made together."""
    together = song.metadata.get("together") or {"take": 1, "of": 1}
    return together["take"], together["of"]


def summary(song: Take) -> str:
    """A finished take in one line, with what its maker should know; of several the time since the one before it."""
    made, place = song.metadata, placed(song)
    words = f"{made['audio']['seconds']:g} s in {made['timings']['total_s']:.1f} s · seed {made['seed']}"
    words = f"Take {place[0]} of {place[1]}: {words}" if place[1] > 1 else words
    return " · ".join([words, *made["warnings"]])


def run(handler: Handler, values: Mapping[str, Any]) -> Iterator[Event]:
    """A handler's events, with every error as a StudioError.

    The handler's folder is gone when they end; the files that it finished are kept for an hour.
    """
    try:
        audio_io.sweep(read().outbox)
        with scratch() as folder:
            for event in handler(values, folder):
                yield kept(event)
    except StudioError:
        raise
    except Exception as error:
        raise in_our_words(error) from error
