"""The status line: what is going on, how far it is, or what went wrong with the button that mends it. Words as text, never markup."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from errors import (
    AudioError,
    BadOutput,
    DiskFull,
    EngineError,
    EngineFault,
    EngineMissing,
    EngineRefused,
    ExportError,
    GpuAborted,
    GpuBusy,
    InputError,
    KnobError,
    LoraError,
    OutOfMemory,
    QuotaError,
    StudioError,
    TextError,
    WaitError,
)
from sound import Progress

# What a card is headed with, by the most special class of its error that stands here.
TITLES: dict[type[StudioError], str] = {
    KnobError: "A control needs another value",
    TextError: "These words cannot be used",
    AudioError: "This recording cannot be used",
    LoraError: "This LoRA cannot be used",
    InputError: "Something needs another value",
    QuotaError: "Not enough GPU time",
    GpuBusy: "No GPU is free",
    GpuAborted: "The GPU stopped too early",
    WaitError: "Not now",
    EngineMissing: "The model is not here",
    OutOfMemory: "Not enough memory",
    BadOutput: "No usable sound",
    EngineRefused: "The LoRA has no effect",
    EngineFault: "Something went wrong",
    EngineError: "The model failed",
    DiskFull: "The disk is full",
    ExportError: "No file was made",
    StudioError: "This did not work",
}
TAGS: dict[type[StudioError], str] = {
    InputError: "yours to change",
    WaitError: "wait",
    StudioError: "ours, not yours",
}
# What a card's buttons do, `assets/remedies.js`, and what they say.
REMEDIES = {
    "steps": "Lower the steps",
    "shorten": "Make it shorter",
    "lora": "Remove the LoRA",
    "file": "Pick another file",
    "seed": "Try another seed",
    "again": "Try again",
    "go": "Show the control",
}
MENDS: dict[type[StudioError], tuple[str, ...]] = {
    AudioError: ("file",),
    LoraError: ("lora",),
    QuotaError: ("shorten", "steps"),
    GpuBusy: ("again",),
    GpuAborted: ("steps", "shorten"),
    OutOfMemory: ("shorten",),
    BadOutput: ("seed",),
    EngineRefused: ("lora",),
    EngineFault: ("again",),
}
DROPPED = "loras"  # in place of a mode: a LoRA was refused where it was dropped
STOPPED = "Stopped. Nothing was kept."
SHORTENED = {"generate": "duration_s", "extend": "extra_duration_s"}  # what makes a mode's song shorter


def status(words: str, kind: str = "done", share: float | None = None, if_stopped: str = "") -> str:
    """The status line, with a bar when `share` (0 to 1) is known.

    `kind` is done, running or error; the page knows a running song by it, and says `if_stopped` when it is stopped then.
    """
    role = "alert" if kind == "error" else "status"
    bar = "" if share is None else f'<div class="track"><div class="bar" style="width:{share:.1%}"></div></div>'
    data = f' data-stopped="{html.escape(if_stopped)}"' if if_stopped else ""
    return f'<p role="{role}" class="{kind}"{data}>{html.escape(words)}</p>{bar}'


def stopped(kept: int, of: int) -> str:
    """What is said of a song that was stopped when so many of its takes were finished."""
    return f"Stopped. {kept} of {of} takes {'was' if kept == 1 else 'were'} kept."


def progress(event: Progress, if_stopped: str = "") -> str:
    """The status line of a running song: phase, step, time left."""
    words, share = event.words, None
    if event.of:
        words += f" · step {event.step} of {event.of}"
        share = event.step / event.of
    if event.left_s is not None:
        words += f" · about {math.ceil(event.left_s)} s left"
    return status(words, "running", share, if_stopped)


def refusal(error: StudioError, at: str = "") -> str:
    """A failure as a card: what happened, what to do, and the buttons that do it. `at` is the mode of the tab it befell, or DROPPED."""
    title, tag = _of(TITLES, error), _of(TAGS, error)
    buttons = "".join(_button(remedy, error, at) for remedy in remedies(error, at))
    head = f'<div class="head"><span class="icon" aria-hidden="true">!</span><b>{title}</b><i>{tag}</i></div>'
    acts = f'<div class="acts">{buttons}</div>' if buttons else ""
    return f"{head}{status(str(error), 'error')}{acts}"


def remedies(error: StudioError, at: str) -> Sequence[str]:
    """What can be done about an error on a mode's tab, the likeliest first."""
    if at == DROPPED:
        return ["file"]
    able = [remedy for remedy in _of(MENDS, error) or () if at and (remedy != "shorten" or at in SHORTENED)]
    if isinstance(error, KnobError | TextError) and error.control and at:
        return ["go"]
    return able


def _button(remedy: str, error: StudioError, at: str) -> str:
    about = error.message if remedy == "lora" else error.control
    data = "".join(f' data-{name}="{html.escape(value)}"' for name, value in (("at", at), ("about", about)))
    return f'<button type="button" data-remedy="{remedy}"{data}>{REMEDIES[remedy]}</button>'


def _of(table: dict, error: StudioError):
    """The entry of the nearest class of an error."""
    return next((table[kind] for kind in type(error).__mro__ if kind in table), None)
