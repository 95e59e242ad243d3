"""The studio as programs meet it: gradio_client, plain HTTP and MCP.

`endpoint` makes a flat function with the controls' own names out of a mode. What is asked of a take is asked of the last one
that the same session made: no path comes from outside.
"""

from __future__ import annotations

import inspect
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import lora_door
import modes
import restoring
from afters import AFTERS, Export, Normalise, Separate
from audio_io import KEPT_S
from drafts import DRAFTS
from errors import AudioError, LoraError, StudioError, in_our_words
from fields import OBJECT, Knob
from lyrics import Lyrics
from modes import HANDLERS, SONGS, defaults, run
from plans import Draft
from song import Asked, Generate, controls
from sound import Files, Take, Written
from tooltips import tip

LORAS = controls(Generate)["loras"]
SESSIONS_MAX = 1_000  # whose last take is remembered
HOME, ASIDE = "", "endpoints"  # pages, by address
BESIDE = (Normalise, Export)  # what asks no GPU
KINDS = {"int": int, "float": float, "bool": bool, OBJECT: dict, "pairs": list[list[float]], "loras": list[dict]}


class Sessions:
    """The last take of each session that made one through an endpoint; the oldest are forgotten with their files."""

    def __init__(self) -> None:
        self._takes: OrderedDict[str, tuple[float, Take]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, session: str | None, take: Take) -> None:
        """Remember a session's take in place of the one before."""
        if session:
            with self._lock:
                self._takes.pop(session, None)
                self._takes[session] = time.monotonic(), take
                while len(self._takes) > SESSIONS_MAX or self._oldest() > KEPT_S:
                    self._takes.popitem(last=False)

    def get(self, session: str | None) -> Take | None:
        """The last take of a session, if there is one. That its file is gone is said by whoever opens it."""
        with self._lock:
            return self._takes.get(session or "", (0, None))[1]

    def _oldest(self) -> float:
        """How long ago the take was made that is remembered longest, in seconds."""
        return time.monotonic() - next(iter(self._takes.values()))[0]


SESSIONS = Sessions()


def endpoint(mode: type[Asked]) -> Callable[..., Iterator[Any]]:
    """A flat generator with the controls' names and defaults as its signature; the first one of a song is required.

    While it works it yields progress, at the end `(file, metadata)` of a song or an export, `(files, metadata)` of stems,
    `(lyrics, metadata)` of lyrics, or the draft; clients that wait for the result get the last one. Of several takes each is
    told as it is finished, with all that there are so far in `metadata["together"]["takes"]`. Errors are `gr.Error` with our
    sentence.
    """
    import gradio as gr

    known = controls(mode)

    def call(*values: Any) -> Iterator[Any]:
        *values, request = values
        takes: list[Take] = []
        try:
            asked = dict(zip(known, values, strict=True))
            session = getattr(request, "session_hash", None)
            handler = HANDLERS.get(mode) or modes.after(mode, SESSIONS.get(session))
            for event in run(handler, asked | uploads(mode, asked)):
                if isinstance(event, Take):
                    SESSIONS.put(session, event)
                    takes.append(event)
                yield _answer(mode, event, takes)
        except StudioError as error:
            raise gr.Error(str(error), print_exception=False) from None

    call.__name__ = mode.mode
    call.__signature__ = _signature(mode)
    call.__annotations__ = {p.name: p.annotation for p in call.__signature__.parameters.values()}
    call.__annotations__["return"] = call.__signature__.return_annotation
    lines = [f"    {name}: {tip(k)}" for name, k in known.items()]
    call.__doc__ = "\n".join([inspect.getdoc(mode) or "", "", "Parameters:", *lines])
    return call


def restore(file: Any) -> dict:
    """What a file of a song was asked with, to be asked again. Nothing in the file is run or shown as markup.

    The answer has the `mode`, the `controls` its endpoint takes, `needs` (the recordings to add again), `after` (how the
    file was exported), `model`, `take`, and `not_restored`, a sentence for each thing that could not be.

    Parameters:
        file: A song that this studio made: WAV, FLAC, OGG or MP3, with its tags.
    """
    import gradio as gr

    try:
        path = uploaded(file, Knob("file", "File", "", "audio", None))
        if path is None:
            raise AudioError("File is missing: send a song that this studio made.")
        return restoring.restore(path, {mode: defaults(mode) for mode in SONGS}).answer()
    except Exception as error:
        raise gr.Error(str(in_our_words(error)), print_exception=False) from error


def joins(blocks: Any, on_gpu: dict[str, Any], beside: dict[str, Any]) -> None:
    """Open all endpoints; `on_gpu` and `beside` are the queues of what needs the GPU and of what does not.

    Gradio draws a node, which is not seen, for each of their parameters; more than all the page has. They stand on a page of
    their own, so that nobody has to load them, and are listed with the studio's.
    """
    import gradio as gr
    from gradio.data_classes import FileData

    restore.__annotations__ = {"file": FileData, "return": dict}
    with blocks.route("Endpoints", ASIDE, show_in_navbar=False):
        for mode in modes.PUBLIC:
            gr.api(endpoint(mode), api_name=mode.mode, **(beside if mode in BESIDE else on_gpu))
        gr.api(restore, api_name="restore", **beside)
    for event in blocks.fns.values():
        event.page = HOME


def routes() -> list[Any]:
    """The page of the endpoints' parameters is empty: whoever finds it is sent to the studio."""
    from starlette.responses import RedirectResponse
    from starlette.routing import Route

    async def home(request: Any) -> RedirectResponse:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/")

    return [Route(f"/{ASIDE}", home), Route(f"/{ASIDE}/", home)]


def _answer(mode: type[Asked], event: modes.Event, takes: Sequence[Take]) -> Any:
    """An event as an endpoint tells it; `takes` are those of its request so far."""
    if isinstance(event, Take):
        told = dict(event.metadata)
        if "together" in told:
            all_of_them = [{"file": _file(take.path), "metadata": dict(take.metadata)} for take in takes]
            told["together"] = {**told["together"], "takes": all_of_them}
        return _file(event.path), told
    if isinstance(event, Files):
        files = [_file(path) for path in event.paths.values()]
        return files if mode is Separate else files[0], dict(event.metadata)
    if isinstance(event, Draft):
        return event.model_dump(mode="json")
    if isinstance(event, Written):
        return event.text, dict(event.metadata)
    progress = {"phase": event.words, "step": event.step, "of": event.of}
    return progress if mode in DRAFTS else (event.text if mode is Lyrics else None, progress)


def _file(path: str) -> dict[str, Any]:
    from gradio.data_classes import FileData

    return FileData(path=path, orig_name=Path(path).name, meta={"_type": "gradio.FileData"}).model_dump()


def _signature(mode: type[Asked]) -> inspect.Signature:
    """The controls of a mode as parameters, with types that gradio and MCP understand, and who asks."""
    import gradio as gr
    from gradio.data_classes import FileData

    given, parameters = defaults(mode), []
    for name, k in controls(mode).items():
        kind = FileData if k.kind == "audio" else KINDS.get(k.kind, str)
        default = list(given[name]) if k.kind in ("pairs", "loras") else given[name]
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=default if parameters or mode in AFTERS else inspect.Parameter.empty,
                annotation=kind | None if k.optional and k.empty else kind,
            )
        )
    who = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=gr.Request)
    file = list[FileData] if mode is Separate else str if mode is Lyrics else FileData
    returns = dict if mode in DRAFTS else tuple[file, dict]
    return inspect.Signature([*parameters, who], return_annotation=returns)


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
