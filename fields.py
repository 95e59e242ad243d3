"""The kinds of control: how what comes from outside is read, what a control may hold, and how it is described.

`song.py` declares the controls with these; pages, errors and documents read them as `Knob`s. Nothing here knows a song.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PlainSerializer,
    Strict,
    model_serializer,
)
from pydantic_core import PydanticCustomError

from sound import AudioClip, Lora

# Seconds of a recording: below, the model has a dozen latent frames to listen to; above, it makes no songs either.
AUDIO_RANGE_S = (0.5, 600)
SEED_MAX = 2**32 - 1
PAIRS_MAX = 16  # regions of one edit, retakes of one take
LORAS_MAX = 8  # in one stack

LANGUAGES = (
    "unknown en zh ja ko es fr de it pt ru "
    "ar az bg bn ca cs da el fa fi he hi hr ht hu id is la lt ms ne nl no "
    "pa pl ro sa sk sr sv sw ta te th tl tr uk ur vi yue"
).split()
TIME_SIGNATURES = {"": "auto", "2": "2/4", "3": "3/4", "4": "4/4", "6": "6/8"}

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
# <|endoftext|> in a caption would end it for the text encoder, <think> begin a thought of the planner's
_SPECIAL = re.compile(r"<\|[^<>]{0,40}?\|>|</?think>")
_JOINED = re.compile(r"<(?=\||/?think>)")  # removing a token may join another: that one is broken instead
# Bidirectional overrides, isolates and marks, zero-width space, word joiner, byte order mark. The zero-width joiners
# stay: Persian and Indic scripts and emoji need them.
_INVISIBLE = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200B, 0x200E, 0x200F, 0x2060, 0xFEFF])
_KEY = re.compile(r"([A-Ga-g])\s*(#|♯|sharp|b|♭|flat)?\s*((?i:major|minor|maj|min)|M|m)?", re.ASCII)


def clean(text: Any, strip: bool = True) -> Any:
    """Text as it may travel: NFC, line ends as \\n, no control, surrogate, bidirectional or special-token text.

    `strip` takes the blanks off its ends. Anything that is not a string is returned as it came, for pydantic to refuse.
    """
    if not isinstance(text, str):
        return text
    text = _ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n").translate(_INVISIBLE)
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs"))
    text = _JOINED.sub("< ", _SPECIAL.sub("", text))
    text = unicodedata.normalize("NFC", text)
    return text.strip() if strip else text


def _key(text: Any) -> Any:
    """A key as the model was taught it: "F#m" → "F# minor"."""
    text = clean(text)
    if text == "":
        return text
    if not isinstance(text, str) or not (match := _KEY.fullmatch(text)):
        raise PydanticCustomError("key", "a key such as C major, F# minor or Am")
    note, accidental, mode = match.groups()
    accidental = {None: "", "♯": "#", "sharp": "#", "♭": "b", "flat": "b"}.get(accidental, accidental)
    minor = mode == "m" or (mode or "").lower().startswith("min")
    return f"{note.upper()}{accidental} {'minor' if minor else 'major'}"


def _meter(value: Any) -> Any:
    """A time signature as the model was taught it: 4, "4/4" → "4"."""
    text = str(value).strip() if isinstance(value, (str, int)) else value
    return next((code for code, name in TIME_SIGNATURES.items() if code and text == name), text)


def _plain(value: Any) -> Any:
    """Numbers only from numbers and their text: pydantic would read True as 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "a number")
    return value


def blank(value: Any) -> Any:
    """None for an empty box."""
    return None if isinstance(value, str) and not value.strip() else value


def _pairs(value: Any) -> Any:
    """Pairs of numbers, of their text too; nothing for an empty value."""
    if value is None or value == "":
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(p, list | tuple) and len(p) == 2 for p in value):
        raise PydanticCustomError("pairs", "pairs")
    return tuple(tuple(p) for p in value)


def knob(
    default: Any, label: str, group: str = "", *, step: float = 0, empty: str = "", last: bool = False, **limits: Any
) -> Any:
    """One control; the 21 knobs have a group, a mode's own have none.

    `step` makes it a slider, `empty` says what an empty box means, `last` puts a mode's own control behind the knobs,
    `limits` go to pydantic.
    """
    extra = {"group": group, "step": step, "empty": empty, "last": last}
    return Field(default, title=label, json_schema_extra=extra, **limits)


Whole = Annotated[int, BeforeValidator(_plain)]
Real = Annotated[float, BeforeValidator(_plain)]
Text = Annotated[str, Strict(), BeforeValidator(clean)]
Key = Annotated[str, BeforeValidator(_key)]
Meter = Annotated[Literal[tuple(TIME_SIGNATURES)], BeforeValidator(_meter)]
Language = Literal[tuple(LANGUAGES)]
Audio = Annotated[InstanceOf[AudioClip], PlainSerializer(lambda clip: clip.facts)]
Seed = Annotated[Whole, Field(ge=-1, le=SEED_MAX)]
Share = Annotated[Real, Field(ge=0, le=1)]
Regions = Annotated[tuple[tuple[Real, Real], ...], BeforeValidator(_pairs), Field(max_length=PAIRS_MAX)]
Retakes = Annotated[tuple[tuple[Seed, Share], ...], BeforeValidator(_pairs), Field(max_length=PAIRS_MAX)]


class Frozen(BaseModel):
    """Frozen, closed to unknown names, closed to NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Stacked(Frozen):
    """A LoRA in a stack."""

    lora: InstanceOf[Lora]
    strength: Real = knob(0.95, "Strength", ge=0, le=1.5, step=0.05)

    @model_serializer
    def _facts(self) -> dict[str, Any]:
        return {**self.lora.facts, "strength": self.strength}


Loras = Annotated[tuple[Stacked, ...], BeforeValidator(lambda value: value or ()), Field(max_length=LORAS_MAX)]

KINDS = {int: "int", float: "float", bool: "bool", str: "text", tuple: "pairs", Literal: "choice"}
KINDS |= {AudioClip: "audio", Stacked: "loras"}
OBJECT = "object"  # the kind of a control that holds what the studio itself wrote: a saved plan


@dataclass(frozen=True)
class Knob:
    """What a page, a document or an error needs to know of one field. `kind` is a value of KINDS, or OBJECT."""

    name: str
    label: str
    group: str
    kind: str
    default: Any
    optional: bool = False
    low: float | None = None
    high: float | None = None
    step: float = 0
    choices: tuple[str, ...] = ()
    empty: str = ""
    last: bool = False

    @property
    def range(self) -> str:
        """The range in words, for tooltips, errors and documents: "30 to 300, empty = auto"."""
        words = ""
        if self.choices:
            words = ", ".join(c or "empty" for c in self.choices) if len(self.choices) < 9 else "one of the list"
        elif self.kind == "bool":
            words = "on or off"
        elif self.kind == "text" and self.high:
            words = f"up to {self.high:,.0f} characters"
        elif self.kind == "pairs":
            words = f"up to {self.high} pairs"
        elif self.kind == "loras":
            words = f"up to {self.high} .safetensors files"
        elif self.kind == "audio":
            words = "WAV, FLAC, OGG, MP3 or AIFF, {:g} to {:g} s".format(*AUDIO_RANGE_S)
        elif self.kind in ("int", "float"):
            words = f"{self.low:g} to {self.high:.10g}"
        return ", ".join(filter(None, (words, f"empty = {self.empty}" if self.empty else "")))


def _base(annotation: Any) -> Any:
    """The plain type below Annotated and Optional; Literal and a tuple of tuples as such, of other tuples what they hold."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin in (None, Literal) or (origin is tuple and get_origin(inside[0]) is tuple):
        return origin or annotation
    return _base(inside[0])


def _knob_of(name: str, info: Any) -> Knob:
    limits = {k: getattr(m, k) for m in info.metadata for k in ("ge", "le", "max_length") if hasattr(m, k)}
    kind = KINDS.get(_base(info.annotation), OBJECT)
    return Knob(
        name=name,
        label=info.title,
        kind=kind,
        default=info.get_default(),
        optional=type(None) in get_args(info.annotation),
        low=limits.get("ge"),
        high=limits.get("le", limits.get("max_length")),
        choices=get_args(info.annotation) if kind == "choice" else (),
        **info.json_schema_extra,
    )


def fields_of(model: type[BaseModel]) -> dict[str, Knob]:
    """The titled fields of a model, in order."""
    return {name: _knob_of(name, info) for name, info in model.model_fields.items() if info.title}
