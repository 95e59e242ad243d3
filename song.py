"""What a song is asked for with: the 21 knobs, declared once, and the requests that carry them.

Everything that draws, checks, names or documents a knob reads it from `KNOBS`, which is read from the two models
`Advanced` and `LMOptions`. A request is frozen and cannot be wrong: `parse` is the only door.
"""

from __future__ import annotations

import difflib
import re
import secrets
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Self, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from errors import KnobError, TextError

SAMPLE_RATE = 48_000  # Hz, everywhere inside the studio
LATENT_RATE = 25  # latent frames per second: 48,000 Hz / hop 1,920
PROMPT_LIMIT = 512  # characters, the model's own documented limit
LYRICS_LIMIT = 4096  # characters, likewise
DURATION_RANGE = (10, 600)  # seconds
SEED_MAX = 2**32 - 1
INSTRUMENTAL = "[Instrumental]"  # what the model reads in place of lyrics

GROUPS = ("Diffusion", "CFG schedule", "5Hz LM", "Music metadata")
LANGUAGES = (
    "unknown en zh ja ko es fr de it pt ru "
    "ar az bg bn ca cs da el fa fi he hi hr ht hu id is la lt ms ne nl no "
    "pa pl ro sa sk sr sv sw ta te th tl tr uk ur vi yue"
).split()
TIME_SIGNATURES = {"": "auto", "2": "2/4", "3": "3/4", "4": "4/4", "6": "6/8"}

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_SPECIAL = re.compile(r"<\|[^<>]{0,40}?\|>")  # <|endoftext|> in a caption would end it for the text encoder
# Bidirectional overrides, isolates and marks, zero-width space, word joiner, byte order mark. The zero-width joiners
# stay: Persian and Indic scripts and emoji need them.
_INVISIBLE = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200B, 0x200E, 0x200F, 0x2060, 0xFEFF])
_KEY = re.compile(r"([A-Ga-g])\s*(#|♯|sharp|b|♭|flat)?\s*((?i:major|minor|maj|min)|M|m)?", re.ASCII)


def clean(text: Any) -> Any:
    """Text as it may travel: NFC, line ends as \\n, no control, surrogate, bidirectional or special-token text.

    Anything that is not a string is returned as it came, for pydantic to refuse.
    """
    if not isinstance(text, str):
        return text
    text = _ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n").translate(_INVISIBLE)
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs"))
    text = _SPECIAL.sub("", text).replace("<|", "< |")  # removing a token may join another: that one is broken instead
    return unicodedata.normalize("NFC", text).strip()


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


def _blank(value: Any) -> Any:
    """None for an empty box."""
    return None if isinstance(value, str) and not value.strip() else value


def knob(default: Any, label: str, group: str = "", *, step: float = 0, empty: str = "", **limits: Any) -> Any:
    """One control; the 21 knobs have a group, a mode's own have none.

    `step` makes it a slider, `empty` says what an empty box means, `limits` go to pydantic.
    """
    return Field(default, title=label, json_schema_extra={"group": group, "step": step, "empty": empty}, **limits)


Whole = Annotated[int, BeforeValidator(_plain)]
Real = Annotated[float, BeforeValidator(_plain)]
Text = Annotated[str, Strict(), BeforeValidator(clean)]
Key = Annotated[str, BeforeValidator(_key)]
Meter = Annotated[Literal[tuple(TIME_SIGNATURES)], BeforeValidator(_meter)]
Language = Literal[tuple(LANGUAGES)]


class Frozen(BaseModel):
    """Frozen, closed to unknown names, closed to NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Advanced(Frozen):
    """The 12 knobs of the diffusion model."""

    inference_steps: Whole = knob(27, "Inference steps", "Diffusion", ge=8, le=80, step=1)
    guidance_scale: Real = knob(7.0, "Guidance scale (CFG)", "Diffusion", ge=1, le=15, step=0.5)
    infer_method: Literal["ode", "sde"] = knob("ode", "Inference method", "Diffusion")
    seed: Whole = knob(-1, "Seed", "Diffusion", ge=-1, le=SEED_MAX)

    cfg_interval_start: Real = knob(0.0, "CFG interval start", "CFG schedule", ge=0, le=1, step=0.05)
    cfg_interval_end: Real = knob(1.0, "CFG interval end", "CFG schedule", ge=0, le=1, step=0.05)
    shift: Real = knob(1.0, "Shift", "CFG schedule", ge=0.5, le=3, step=0.1)
    use_adg: bool = knob(False, "Use ADG", "CFG schedule")

    bpm: Annotated[Whole | None, BeforeValidator(_blank)] = knob(
        None, "BPM", "Music metadata", ge=30, le=300, empty="auto"
    )
    keyscale: Key = knob("", "Key / scale", "Music metadata", empty="auto")
    timesignature: Meter = knob("", "Time signature", "Music metadata")
    vocal_language: Language = knob("unknown", "Vocal language", "Music metadata")

    @model_validator(mode="after")
    def _interval(self) -> Self:
        if self.cfg_interval_start > self.cfg_interval_end:
            start, end = self.cfg_interval_start, self.cfg_interval_end
            raise KnobError(f"CFG interval start ({start:g}) must not be above CFG interval end ({end:g}).")
        return self


class LMOptions(Frozen):
    """The 9 knobs of the planner, the 5 Hz language model."""

    thinking: bool = knob(True, "Enable thinking", "5Hz LM")
    use_cot_caption: bool = knob(True, "Let the LM rewrite the caption", "5Hz LM")
    use_cot_metas: bool = knob(True, "Let the LM infer metadata", "5Hz LM")
    use_cot_language: bool = knob(True, "Let the LM detect the vocal language", "5Hz LM")
    lm_temperature: Real = knob(0.85, "LM temperature", "5Hz LM", ge=0, le=2, step=0.05)
    lm_top_p: Real = knob(0.9, "LM top-p", "5Hz LM", ge=0, le=1, step=0.05)
    lm_top_k: Whole = knob(0, "LM top-k", "5Hz LM", ge=0, le=1000)
    lm_cfg_scale: Real = knob(2.0, "LM CFG scale", "5Hz LM", ge=1, le=10, step=0.5)
    lm_negative_prompt: Text = knob("NO USER INPUT", "LM negative prompt", "5Hz LM", max_length=PROMPT_LIMIT)


@dataclass(frozen=True)
class Knob:
    """What a page, a document or an error needs to know of one field. `kind` is int, float, bool, text or choice."""

    name: str
    label: str
    group: str
    kind: str
    default: Any
    type: Any
    low: float | None = None
    high: float | None = None
    step: float = 0
    choices: tuple[str, ...] = ()
    empty: str = ""

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
        elif self.kind in ("int", "float"):
            words = f"{self.low:g} to {self.high:.10g}"
        return ", ".join(filter(None, (words, f"empty = {self.empty}" if self.empty else "")))


def _knob_of(name: str, info: Any) -> Knob:
    is_choice = get_origin(info.annotation) is Literal
    parts = [info.annotation] if is_choice else list(get_args(info.annotation) or [info.annotation])
    base = get_args(parts[0])[0] if get_origin(parts[0]) is Annotated else parts[0]
    limits = {k: getattr(m, k) for m in info.metadata for k in ("ge", "le", "max_length") if hasattr(m, k)}
    extra = info.json_schema_extra
    return Knob(
        name=name,
        label=info.title,
        group=extra["group"],
        kind="choice" if is_choice else {int: "int", float: "float", bool: "bool", str: "text"}[base],
        default=info.get_default(),
        type=base | None if type(None) in parts else base,
        low=limits.get("ge"),
        high=limits.get("le", limits.get("max_length")),
        step=extra["step"],
        choices=get_args(info.annotation) if is_choice else (),
        empty=extra["empty"],
    )


def fields_of(model: type[BaseModel]) -> dict[str, Knob]:
    """The titled fields of a model, in order."""
    return {name: _knob_of(name, info) for name, info in model.model_fields.items() if info.title}


KNOBS: dict[str, Knob] = {
    k.name: k for g in GROUPS for model in (Advanced, LMOptions) for k in fields_of(model).values() if k.group == g
}


def controls(request: type[SongRequest]) -> dict[str, Knob]:
    """Every control of a mode in the order of its public endpoint: the mode's own, then the 21 knobs."""
    return fields_of(request) | KNOBS


class SongRequest(Frozen):
    """What every mode is asked with. Build one with `parse`."""

    mode: ClassVar[str]

    prompt: Text = knob("", "Style prompt", max_length=PROMPT_LIMIT)
    lyrics: Text = knob("", "Lyrics", max_length=LYRICS_LIMIT)
    advanced: Advanced = Advanced()
    lm: LMOptions = LMOptions()

    @classmethod
    def parse(cls, values: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Self:
        """A request from flat values, as a page or an API sends them, with a random seed resolved.

        `defaults` are the loaded checkpoint's own knob defaults. Raises KnobError or TextError with one sentence that
        names the control and its limit.
        """
        known = controls(cls)
        for name in values.keys() - known.keys():
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"Did you mean {near[0]}?" if near else ""
            raise KnobError(f"{str(name)[:40]!r} is not a control of {cls.__name__}.", hint)
        given = {**(defaults or {}), **values}
        try:
            advanced = Advanced.model_validate({n: v for n, v in given.items() if n in Advanced.model_fields})
            if advanced.seed == -1:
                advanced = advanced.model_copy(update={"seed": secrets.randbelow(SEED_MAX + 1)})
            lm = LMOptions.model_validate({n: v for n, v in given.items() if n in LMOptions.model_fields})
            own = {n: v for n, v in given.items() if n not in KNOBS}
            return cls.model_validate({**own, "advanced": advanced, "lm": lm})
        except ValidationError as error:
            raise _sentence(error, known) from None


class Generate(SongRequest):
    """A song from words."""

    mode: ClassVar[str] = "generate"

    duration_s: Real = knob(30, "Duration (s)", step=1, ge=DURATION_RANGE[0], le=DURATION_RANGE[1])
    instrumental: bool = knob(False, "Instrumental")

    @model_validator(mode="after")
    def _words(self) -> Self:
        if not self.prompt and not self.lyrics:
            raise TextError("Write a style prompt or some lyrics: the studio needs one of the two.")
        if self.instrumental and not self.prompt:
            raise TextError("Write a style prompt: an instrumental leaves the lyrics out.")
        return self

    @property
    def sung(self) -> str:
        """The lyrics as the model reads them."""
        return INSTRUMENTAL if self.instrumental else self.lyrics


def _sentence(error: ValidationError, known: Mapping[str, Knob]) -> KnobError | TextError:
    """The first complaint of pydantic in our words."""
    first = error.errors()[0]
    control, got = known[first["loc"][0]], first["input"]
    if first["type"] == "string_too_long":
        return TextError(f"{control.label} may hold {control.high:,.0f} characters; yours has {len(got):,}.")
    if first["type"] == "key":
        wanted = first["msg"]
    elif control.kind == "choice":
        wanted = f"one of {control.range}" if len(control.choices) < 9 else control.range
    else:
        words = {"int": "a whole number from ", "float": "a number from ", "bool": "", "text": "text "}
        wanted = (words[control.kind] + control.range).strip()
    try:
        shown = "empty" if got is None else repr(got)
    except ValueError:  # Python prints no number of more than 4,300 digits
        shown = "far too long"
    return KnobError(f"{control.label} must be {wanted}; it is {shown if len(shown) <= 40 else shown[:40] + '…'}.")


@dataclass(frozen=True)
class Progress:
    """Where a song stands. `of` is 0 in phases without steps; `left_s` is None while unknown."""

    phase: str
    step: int = 0
    of: int = 0
    left_s: float | None = None


@dataclass(frozen=True)
class Sound:
    """What an engine returns: `samples` is a float32 array [2, n] at `sample_rate`."""

    samples: Any
    sample_rate: int
    timings: Mapping[str, float]
    model: Mapping[str, Any]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Take:
    """A finished song: the file and the recipe that makes it again."""

    path: str
    metadata: Mapping[str, Any] = field(hash=False)


def recipe(request: SongRequest) -> dict[str, Any]:
    """All that was asked, as JSON values: mode, seed, the mode's own fields, `advanced` and `lm`."""
    return {"mode": request.mode, "seed": request.advanced.seed, **request.model_dump(mode="json")}
