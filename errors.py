"""Every way a song can fail, as a sentence for a person.

    StudioError
    ├─ InputError        the user can fix it
    │  ├─ KnobError      a control holds a value it cannot hold
    │  ├─ TextError      a prompt or lyrics that cannot be used
    │  ├─ AudioError     a recording that cannot be used
    │  └─ LoraError      a LoRA that cannot be used
    ├─ WaitError         the user can wait
    │  ├─ QuotaError     no GPU time left, or more asked for than allowed
    │  ├─ GpuBusy        no GPU came free, or the queue is full
    │  └─ GpuAborted     the GPU worker died under the song
    ├─ EngineError       ours
    │  ├─ EngineMissing  the weights cannot be had
    │  ├─ OutOfMemory    the song does not fit
    │  ├─ BadOutput      the engine made no usable sound
    │  ├─ EngineRefused  a LoRA was taken and has no effect
    │  └─ EngineFault    anything unforeseen; the log has the incident code
    ├─ ExportError       ours
    │  └─ DiskFull       nothing could be written
    └─ Stopped           the user pressed Stop

Inside a GPU worker an error becomes a `Failure`, a plain value: ZeroGPU carries only the class name of an exception
across the process boundary, and ends the worker with it.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass

log = logging.getLogger("ace.errors")


class StudioError(Exception):
    """Base of all errors a user may read. `hint` says what to do next; it may be empty. `control` is the name of the
    control that it is about, where one is.
    """

    control = ""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class InputError(StudioError):
    """The user can fix it."""


class KnobError(InputError):
    """A control holds a value it cannot hold."""


class TextError(InputError):
    """A prompt or lyrics that cannot be used."""


class AudioError(InputError):
    """A recording that cannot be used."""


class LoraError(InputError):
    """A LoRA that cannot be used."""


class WaitError(StudioError):
    """The user can wait."""


class QuotaError(WaitError):
    """No GPU time left, or more asked for than allowed."""


class GpuBusy(WaitError):
    """No GPU came free in time, or the queue is full."""


class GpuAborted(WaitError):
    """The GPU worker died under the song."""


class EngineError(StudioError):
    """Ours."""


class EngineMissing(EngineError):
    """The weights cannot be had."""


class OutOfMemory(EngineError):
    """The song does not fit into memory."""


class BadOutput(EngineError):
    """The engine made no usable sound."""


class EngineRefused(EngineError):
    """A LoRA was taken and has no effect: the song would have been labelled with it all the same."""


class EngineFault(EngineError):
    """Anything unforeseen; the log holds the traceback under the incident code."""


class ExportError(StudioError):
    """Nothing could be written."""


class DiskFull(ExportError):
    """The disk is full."""


class Stopped(StudioError):
    """The user pressed Stop."""


def _tree(cls: type[StudioError]) -> list[type[StudioError]]:
    return [cls, *(leaf for sub in cls.__subclasses__() for leaf in _tree(sub))]


BY_NAME = {cls.__name__: cls for cls in _tree(StudioError)}


@dataclass(frozen=True)
class Failure:
    """A StudioError as a value that pickles: `kind` is the class name."""

    kind: str
    message: str
    hint: str = ""

    def error(self) -> StudioError:
        """The error this value stands for."""
        return BY_NAME[self.kind](self.message, self.hint)


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. torch has several classes and sentences for that, and is not imported here."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(words in str(error).lower() for words in ("out of memory", "can't allocate memory"))


def in_our_words(error: BaseException) -> StudioError:
    """Any exception as a StudioError. Unforeseen ones are logged under an 8-character incident code."""
    if isinstance(error, StudioError):
        return error
    if out_of_memory(error):
        return OutOfMemory("The song does not fit into this machine's memory.", "Try a shorter one.")
    incident = secrets.token_hex(4)
    log.error("incident %s", incident, exc_info=error)
    return EngineFault(f"Something went wrong in the studio (incident {incident}).", "Please try again.")


def as_failure(error: BaseException) -> Failure:
    """Any exception as a value for the process boundary."""
    known = in_our_words(error)
    return Failure(type(known).__name__, known.message, known.hint)
