"""What a song is asked for with: the 21 knobs, declared once, and the request of each mode.

Everything that draws, checks, names or documents a control reads it from `controls(request)`. A request is frozen and
cannot be wrong: `parse` is the only door.
"""

from __future__ import annotations

import difflib
import secrets
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, ValidationError, model_validator

from errors import AudioError, InputError, KnobError, TextError
from fields import SEED_MAX, Frozen, Key, Knob, Language, Meter, Real, Retakes, Text, Whole, blank, fields_of, knob
from sound import SAMPLE_RATE

PROMPT_LIMIT = 512  # characters, the model's own documented limit
LYRICS_LIMIT = 4096  # characters, likewise
DURATION_RANGE = (10, 600)  # seconds
INSTRUMENTAL = "[Instrumental]"  # what the model reads in place of lyrics
PAIRS = {  # what pairs are of
    "regions": "start and end in seconds, such as [[12.5, 20]]",
    "retakes": "a seed and a variance from 0 to 1, such as [[-1, 0.3]]",
}
GROUPS = ("Diffusion", "CFG schedule", "5Hz LM", "Music metadata")


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

    bpm: Annotated[Whole | None, BeforeValidator(blank)] = knob(
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


KNOBS: dict[str, Knob] = {
    k.name: k for g in GROUPS for model in (Advanced, LMOptions) for k in fields_of(model).values() if k.group == g
}


def controls(request: type[SongRequest]) -> dict[str, Knob]:
    """Every control of a mode in the order of its public endpoint: the mode's own, the 21 knobs, what stands last."""
    own = fields_of(request)
    return {n: k for n, k in own.items() if not k.last} | KNOBS | {n: k for n, k in own.items() if k.last}


class SongRequest(Frozen):
    """What every mode is asked with. Build one with `parse`.

    Besides its controls a request tells the engine what to make of them: `task`, `sung`,
    `seconds`, `passes` and so on.
    """

    mode: ClassVar[str]

    advanced: Advanced = Advanced()
    lm: LMOptions = LMOptions()
    retakes: Retakes = knob((), "Retakes", last=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Self:
        """A request from flat values, as a page or an API sends them, recordings as AudioClip, random seeds resolved.

        `defaults` are the loaded checkpoint's own knob defaults. Raises KnobError, TextError or AudioError with one
        sentence that names the control and its limit.
        """
        known = controls(cls)
        for name in values.keys() - known.keys():
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"Did you mean {near[0]}?" if near else ""
            raise KnobError(f"{str(name)[:40]!r} is not a control of {cls.__name__}.", hint)
        given = {**(defaults or {}), **values}
        try:
            advanced = Advanced.model_validate({n: v for n, v in given.items() if n in Advanced.model_fields})
            lm = LMOptions.model_validate({n: v for n, v in given.items() if n in LMOptions.model_fields})
            own = {n: v for n, v in given.items() if n not in KNOBS}
            return cls.model_validate({**own, "advanced": advanced, "lm": lm})._settled()
        except ValidationError as error:
            raise _sentence(error, known) from None

    def _settled(self) -> Self:
        """With every -1 drawn, and with retakes that change nothing (0) or everything (1) resolved into the seed."""
        draw = SEED_MAX + 1
        seed, turns = self.advanced.seed, []
        for other, variance in ((self.advanced.seed, 1.0), *self.retakes):
            other = secrets.randbelow(draw) if other == -1 else other
            if variance == 1:
                seed, turns = other, []
            elif variance > 0:
                turns.append((other, variance))
        advanced = self.advanced.model_copy(update={"seed": seed})
        return self.model_copy(update={"advanced": advanced, "retakes": tuple(turns)})

    @property
    def task(self) -> str:
        """What the model is told to do, by diffusers' name."""
        return "text2music"

    @property
    def sung(self) -> str:
        """The lyrics as the model reads them."""
        raise NotImplementedError

    @property
    def seconds(self) -> float:
        """The length of what the engine makes."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """The same in samples."""
        return round(self.seconds * SAMPLE_RATE)

    @property
    def lead(self) -> int:
        """How many samples before the song's first one the engine makes."""
        return 0

    @property
    def passes(self) -> float:
        """Forwards in a step, on average over the steps; guidance doubles them all."""
        return 1.0

    @property
    def idle(self) -> dict[str, str]:
        """Controls that cannot act as the others are set, each with the reason."""
        return {}

    def heard(self) -> tuple[Self, int]:
        """This request with no more of the source than the engine has to hear, and the sample where that begins."""
        return self, 0


class Generate(SongRequest):
    """A song from words."""

    mode: ClassVar[str] = "generate"

    prompt: Text = knob("", "Style prompt", max_length=PROMPT_LIMIT)
    lyrics: Text = knob("", "Lyrics", max_length=LYRICS_LIMIT)
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

    @property
    def seconds(self) -> float:
        """The length asked for."""
        return self.duration_s


def _sentence(error: ValidationError, known: Mapping[str, Knob]) -> InputError:
    """The first complaint of pydantic in our words."""
    first = error.errors()[0]
    control, got = known[first["loc"][0]], first["input"]
    if control.kind == "audio":
        return AudioError(f"{control.label} must be a recording.")
    if control.kind == "pairs":
        return KnobError(f"{control.label} must be {control.range} of {PAIRS[control.name]}.")
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


def recipe(request: SongRequest) -> dict[str, Any]:
    """All that was asked, as JSON values: mode, seed, the mode's own fields, `advanced` and `lm`."""
    return {"mode": request.mode, "seed": request.advanced.seed, **request.model_dump(mode="json")}
