"""What a song is asked for with: the 21 knobs, declared once, and the request of each mode.

Everything that draws, checks, names or documents a control reads it from `controls(request)`. A request is frozen and
cannot be wrong: `parse` is the only door.
"""

from __future__ import annotations

import difflib
import math
import secrets
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, ValidationError, model_validator

from errors import KnobError, LoraError, TextError
from fields import (
    SEED_MAX,
    Frozen,
    Key,
    Knob,
    Language,
    Loras,
    Meter,
    Real,
    Retakes,
    Text,
    Whole,
    blank,
    fields_of,
    knob,
)
from plans import CODE_RATE, METAS, Plan, unwrapped
from refusals import refusal
from settings import SKETCH
from sound import SAMPLE_RATE

PROMPT_LIMIT = 512  # characters, the model's own documented limit
LYRICS_LIMIT = 4096  # characters, likewise
DURATION_RANGE = (10, 600)  # seconds
AT_ONCE = 4  # takes of one request
INSTRUMENTAL = "[Instrumental]"  # what the model reads in place of lyrics
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


def controls(request: type[Asked]) -> dict[str, Knob]:
    """Every control of a request in the order of its public endpoint: its own, its knobs, what stands last."""
    own = fields_of(request)
    first, last = ({n: k for n, k in own.items() if k.last == behind} for behind in (False, True))
    return first | {n: k for n, k in KNOBS.items() if n in request.knobs} | last


class Asked(Frozen):
    """What the studio is asked with: a request's own fields and some of the 21 knobs. Build one with `parse`."""

    mode: ClassVar[str]
    knobs: ClassVar[frozenset[str]]
    given: ClassVar[Mapping[str, Any]] = {}  # defaults of knobs, where they are not the table's

    advanced: Advanced = Advanced()
    lm: LMOptions = LMOptions()

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
        given = {**cls.given, **(defaults or {}), **values}
        try:
            advanced = Advanced.model_validate({n: v for n, v in given.items() if n in Advanced.model_fields})
            lm = LMOptions.model_validate({n: v for n, v in given.items() if n in LMOptions.model_fields})
            own = {n: v for n, v in given.items() if n not in KNOBS}
            return cls.model_validate({**own, "advanced": advanced, "lm": lm})._settled()
        except ValidationError as error:
            raise refusal(error, known) from None

    def _settled(self) -> Self:
        """With the seed drawn if it is -1."""
        return self._with(seed=_drawn(self.advanced.seed))

    def _with(self, **knobs: Any) -> Self:
        """With other values of some of the diffusion model's knobs."""
        return self.model_copy(update={"advanced": self.advanced.model_copy(update=knobs)})


class SongRequest(Asked):
    """What every song is asked with.

    Besides its controls a request tells the engine what to make of them: `task`, `sung`,
    `seconds`, `passes` and so on.
    """

    knobs: ClassVar[frozenset[str]] = frozenset(KNOBS)

    retakes: Retakes = knob((), "Retakes", last=True)
    plan: Annotated[Plan | None, BeforeValidator(unwrapped)] = knob(None, "Plan", empty="the planner's own", last=True)
    loras: Loras = knob((), "LoRAs", last=True)
    takes: Whole = knob(1, "Takes", ge=1, le=AT_ONCE, last=True)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        names: dict[str, str] = {}
        for stacked in self.loras:
            lora = stacked.lora
            if lora.sha256 in names:
                other = names[lora.sha256]
                twice = "twice" if other == lora.name else f"already, as {other}"
                raise LoraError(f"{lora.name} is in the stack {twice}.", "Raise its strength instead.")
            names[lora.sha256] = lora.name
        return self

    def _settled(self) -> Self:
        """With every -1 drawn, and with retakes that change nothing (0) or everything (1) resolved into the seed."""
        seed, turns = self.advanced.seed, []
        for other, variance in ((self.advanced.seed, 1.0), *self.retakes):
            other = _drawn(other)
            if variance == 1:
                seed, turns = other, []
            elif variance > 0:
                turns.append((other, variance))
        return self._with(seed=seed).model_copy(update={"retakes": tuple(turns)})

    def singles(self) -> tuple[Self, ...]:
        """A request for each of its takes: the same but for the seed, one higher from take to take; after the last comes 0."""
        seeds = ((self.advanced.seed + n) % (SEED_MAX + 1) for n in range(self.takes))
        return tuple(self._with(seed=seed).model_copy(update={"takes": 1}) for seed in seeds)

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
    def codes(self) -> tuple[int, ...]:
        """The sketch that the song is rendered from, 5 codes a second; empty for none."""
        return ()

    @property
    def code_count(self) -> int:
        """How many codes the planner has to write."""
        return 0

    @property
    def open(self) -> frozenset[str]:
        """What is left to the planner: of `caption` and METAS. What the user gave is never up for choice."""
        return frozenset() if self.plan else self._unsaid | ({"caption"} if self.rewritten else set())

    @property
    def _unsaid(self) -> frozenset[str]:
        """The facts that the user left open and lets the planner fill in."""
        lm = self.lm
        wanted = [*(METAS[:3] if lm.use_cot_metas else ()), *(METAS[3:] if lm.use_cot_language else ())]
        return frozenset(name for name in wanted if _blank(getattr(self.advanced, name)))

    @property
    def rewritten(self) -> bool:
        """Whether the planner may rewrite the style prompt."""
        return self.lm.use_cot_caption

    @property
    def idle(self) -> dict[str, str]:
        """Controls that cannot act as the others are set, each with the reason."""
        return _planner_idle(self)

    def planned(self, plan: Plan) -> Self:
        """With what a plan fills in, where the knobs let it; what the user gave stays, and its `plan` says so, too."""
        filled = self._with(**{name: getattr(plan, name) for name in self._unsaid})
        facts = {name: getattr(filled.advanced, name) for name in METAS}
        settled = plan.model_copy(update={**facts, "caption": plan.caption if self.rewritten else ""})
        return filled.model_copy(update={"plan": settled, "prompt": settled.caption or self.prompt})

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
        count = len(self.plan.codes) if self.plan else 0
        if count and self.lm.thinking and count != codes_for(self.duration_s):
            raise KnobError(
                f"Plan holds {count:,} codes, {count / CODE_RATE:g} s of song; a duration of {self.duration_s:g} s "
                f"takes {codes_for(self.duration_s):,}."
            )
        return self

    @property
    def task(self) -> str:
        """What the model is told to do: a sketch is covered."""
        return "cover" if self.codes else "text2music"

    @property
    def sung(self) -> str:
        """The lyrics as the model reads them."""
        return INSTRUMENTAL if self.instrumental else self.lyrics

    @property
    def seconds(self) -> float:
        """The length asked for."""
        return self.duration_s

    @property
    def codes(self) -> tuple[int, ...]:
        """The plan's, while thinking is on."""
        return self.plan.codes if self.plan and self.lm.thinking else ()

    @property
    def code_count(self) -> int:
        """As many as the song takes, while thinking is on."""
        return codes_for(self.duration_s) if self.lm.thinking and not self.codes else 0


def codes_for(seconds: float) -> int:
    """How many codes plan a song: whole seconds, and an even number, because the song model reads two frames at once."""
    count = CODE_RATE * math.ceil(seconds)
    return count + count % 2


def _drawn(seed: int) -> int:
    return secrets.randbelow(SEED_MAX + 1) if seed == -1 else seed


def _planner_idle(request: SongRequest) -> dict[str, str]:
    """The planner's knobs that cannot act on a request, each with the reason."""
    lm, own, plan, idle = request.lm, request.advanced, request.plan, {}
    if not request.code_count:
        reason = "the plan has its codes" if request.codes else "for thinking alone"
        idle |= dict.fromkeys(SKETCH[1:], reason)
    elif lm.lm_cfg_scale == 1:
        idle["lm_negative_prompt"] = "a CFG scale of 1 asks no negative prompt"
    for name, facts in (("use_cot_metas", METAS[:3]), ("use_cot_language", METAS[3:])):
        if not any(_blank(getattr(own, n)) and not (plan and _blank(getattr(plan, n))) for n in facts):
            idle[name] = "the plan does not say" if plan else "you say it yourself"
    drawing = ("lm_temperature", "lm_top_p", "lm_top_k")
    if not request.code_count and not request.open - {"vocal_language"}:  # a language is never drawn
        idle |= dict.fromkeys(drawing, "the planner has nothing to draw")
    elif not request.code_count and lm.lm_temperature == 0:
        idle |= dict.fromkeys(drawing[1:], "a temperature of 0 takes the likeliest")
    return idle


def _blank(fact: Any) -> bool:
    return fact in (None, "", "unknown")


def recipe(request: SongRequest) -> dict[str, Any]:
    """All that was asked, as JSON values: mode, seed, the mode's own fields, `advanced` and `lm`."""
    return {"mode": request.mode, "seed": request.advanced.seed, **request.model_dump(mode="json")}
