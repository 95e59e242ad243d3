"""The planner, the 5 Hz language model of ACE-Step 1.5: it thinks a song through before the song model renders it.

First a thought (tempo, fuller caption, key, language), then a sketch of five semantic codes a second. `script.py` leads it
through the thought; what the user gave is never up for choice. Two more things it can do: write a draft from an idea, and
say what a recording sounds like from its codes. Nothing is kept from request to request.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drafts import Describe, Tidy, Write
from errors import EngineMissing, TextError
from fields import clean
from lm import BEAT, LM, CodesAsked, Sampling
from plans import CAPTION_LIMIT, CODE_RATE, METAS, Draft, Plan
from script import LYRIC_TOKENS, NO_INPUT, Pen, Script, chat, thought
from song import DURATION_RANGE, INSTRUMENTAL, LYRICS_LIMIT, LMOptions, SongRequest
from sound import Progress
from vocabulary import FIELDS, Vocabulary

CONTEXT = 8192  # tokens of prompt and codes together
THOUGHT_TOKENS = 512  # the longest thought: a caption of CAPTION_TOKENS and five short fields
COLDEST = 0.1  # codes that are always the likeliest ones hold a note for minutes
PLAIN = Sampling(temperature=0.3, top_p=1.0)  # describing, the planner should not invent
WINDOW, DISTINCT = 30 * CODE_RATE, 0.05  # a sketch of fewer different codes in 30 s is broken
SENTENCE_ENDS = (". ", "! ", "? ", "; ", ", ", " ")
THINKING, SKETCHING, WRITING = 0x711, 0xC0DE, 0x3713  # the purposes of the planner's chances
NAMES = {**{name: name for name in METAS}, "vocal_language": "language"}  # what the planner calls them

Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Planned:
    """A plan with what was chosen in it (of `caption` and METAS; "codes"), what had to be said, and seconds by phase."""

    plan: Plan
    chosen: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Planner:
    """A language model with its vocabulary; `name` says which, for recipes."""

    lm: LM
    vocabulary: Vocabulary
    name: str = ""

    def plan(self, request: SongRequest, sketches: bool = True, report: Report = lambda _: None) -> Planned:
        """The plan of a request: the one it brings, or a new one; with codes if it wants them and the song model `sketches`.

        Raises TextError when the song is too long for the planner, BadOutput when its numbers are not finite.
        """
        begun = time.perf_counter()
        report(Progress("Planning"))
        plan, chosen = request.plan or Plan(), []
        values = _given(request) | (_said(request.planned(plan)) if request.plan else {})
        if request.open:
            wanted = {NAMES.get(name, name) for name in request.open}
            pen = self._pen(chat("generate", _song(request.prompt, request.sung)), THOUGHT_TOKENS)
            script = Script(pen, _sampling(request.lm), _chances(request.advanced.seed, THINKING), _heeding(report))
            values = script.think(values, wanted)
            plan, chosen = _plan(values, request.open), sorted(request.open)
            if "caption" in values:  # as it is shown: without what would read as a special token
                values["caption"] = plan.caption
        timings, warnings = {"thought_s": round(time.perf_counter() - begun, 4)}, ()
        if request.code_count and sketches:
            begun = time.perf_counter()
            codes, warnings = self._sketch(request, values, report)
            plan, chosen = plan.model_copy(update={"codes": codes}), [*chosen, "codes"]
            timings["sketch_s"] = round(time.perf_counter() - begun, 4)
        return Planned(plan, tuple(chosen), warnings, timings)

    def _sketch(self, request: SongRequest, values: dict[str, str], report: Report) -> tuple[tuple[int, ...], tuple]:
        """The codes of a song. A sketch that holds too few different ones is drawn once more."""
        prompt = chat("generate", _song(request.prompt, request.sung)) + thought(values)
        ids, count = self.vocabulary.encode(prompt), request.code_count
        if len(ids) + count > CONTEXT:
            raise TextError(
                f"{request.seconds:g} s of song and these lyrics are too long for the planner: together "
                f"{len(ids) + count:,} tokens, {CONTEXT:,} is the limit.",
                "Shorten one of them, or turn thinking off.",
            )
        negative = request.lm.lm_negative_prompt or NO_INPUT
        how = _sampling(request.lm)

        def on_step(done: int) -> None:
            left = (time.perf_counter() - begun) / done * (count - done)
            report(Progress("Sketching", done, count, left))

        for seed in (request.advanced.seed, request.advanced.seed + 1):
            begun = time.perf_counter()
            asked = CodesAsked(
                ids,
                self.vocabulary.encode(chat("generate", negative) + thought({})),
                self.vocabulary.first_code,
                self.vocabulary.codes,
                np.random.default_rng([seed, SKETCHING]).random(count, np.float32),
                Sampling(max(how.temperature, COLDEST), how.top_p, how.top_k),
                request.lm.lm_cfg_scale,
            )
            codes = tuple(self.lm.codes(asked, on_step))
            if not degenerate(codes):
                return codes, ()
        return codes, ("The planner's sketch hardly changes. Try another seed or turn thinking off.",)

    def write(self, request: Write, report: Report = lambda _: None) -> Draft:
        """A draft from an idea."""
        given = {} if request.advanced.vocal_language == "unknown" else {"language": request.advanced.vocal_language}
        user = f"{request.query}\n\ninstrumental: {str(request.instrumental).lower()}"
        return self._draft(chat("inspire", user), given, request, report)

    def tidy(self, request: Tidy, report: Report = lambda _: None) -> Draft:
        """The user's words in better form. What comes back empty stays as it was."""
        given = _facts(request)
        if request.duration_s:
            given["duration"] = _whole(request.duration_s)
        user = f"# Caption\n{request.prompt or NO_INPUT}\n\n# Lyric\n{request.sung}"
        draft = self._draft(chat("format", user), given, request, report)
        kept = {"prompt": draft.prompt or request.prompt, "lyrics": draft.lyrics or request.lyrics}
        instrumental = request.instrumental or (draft.instrumental and not request.lyrics)
        return draft.model_copy(update={**kept, "instrumental": instrumental})

    def describe(self, request: Describe, codes: Sequence[int], report: Report = lambda _: None) -> Draft:
        """What a recording of these codes sounds like. Raises EngineMissing for codes that the planner does not know."""
        if max(codes) >= self.vocabulary.codes:  # a GPU would end the whole process
            raise EngineMissing("This planner does not know the codes of this song model.")
        before, after = chat("understand", "\0").split("\0")
        first, encode = self.vocabulary.first_code, self.vocabulary.encode
        ids = [*encode(before), *(first + code for code in codes), *encode(after)]
        return self._draft(ids, {}, request, report)

    def _draft(self, prompt: str | list[int], given: dict[str, str], request: Any, report: Report) -> Draft:
        """A thought with all fields, and lyrics."""
        report(Progress("Writing"))
        how = PLAIN if isinstance(request, Describe) else _sampling(request.lm)
        seed, instrumental = request.advanced.seed, getattr(request, "instrumental", False)
        pen = self._pen(prompt, THOUGHT_TOKENS + LYRIC_TOKENS)
        script = Script(pen, how, _chances(seed, WRITING), _heeding(report, "Writing"))
        values = script.think(given, FIELDS)
        lyrics, circles = ("", False) if instrumental else script.lyrics()
        plan, seconds = _plan(values, frozenset((*METAS, "caption"))), int(values["duration"])
        return Draft(
            prompt=plan.caption,
            lyrics="" if lyrics.strip().lower() == INSTRUMENTAL.lower() else fitting(lyrics),
            instrumental=instrumental or lyrics.strip().lower() == INSTRUMENTAL.lower(),
            duration_s=request.duration_s if getattr(request, "duration_s", None) else seconds,
            **{name: getattr(plan, name) for name in METAS},
            seed=seed,
            warnings=("The planner went in circles; its lyrics were cut.",) if circles else (),
        )

    def _pen(self, prompt: str | list[int], room: int) -> Pen:
        ids = self.vocabulary.encode(prompt) if isinstance(prompt, str) else prompt
        return Pen(self.lm, self.vocabulary, ids, room)


def _song(prompt: str, lyrics: str) -> str:
    return f"# Caption\n{prompt}\n\n# Lyric\n{lyrics}\n"


def _sampling(lm: LMOptions) -> Sampling:
    return Sampling(lm.lm_temperature, lm.lm_top_p, lm.lm_top_k)


def _chances(seed: int, purpose: int) -> Iterator[float]:
    """Numbers in [0, 1), the same for a seed and a purpose on every machine."""
    return iter(np.random.default_rng([seed, purpose]).random, None)


def _heeding(report: Report, phase: str = "Planning") -> Callable[[], None]:
    """Says before every BEAT tokens that the planner is at work, and lets the listener stop it."""
    tokens = itertools.count()
    return lambda: None if next(tokens) % BEAT else report(Progress(phase))


def _whole(seconds: float) -> str:
    return str(min(max(math.ceil(seconds), DURATION_RANGE[0]), DURATION_RANGE[1]))


def _facts(request: Any) -> dict[str, str]:
    """What the user says of a song, by the planner's names."""
    own = request.advanced
    known = {NAMES[name]: str(getattr(own, name) or "") for name in METAS}
    return {name: value for name, value in known.items() if value not in ("", "unknown")}


def _given(request: SongRequest) -> dict[str, str]:
    return {**_facts(request), "duration": _whole(request.seconds)}


def _said(request: SongRequest) -> dict[str, str]:
    """What a request says whose plan was made before, its caption included."""
    caption = request.plan.caption if request.rewritten else ""
    return _facts(request) | ({"caption": caption} if caption else {})


def _plan(values: dict[str, str], chosen: frozenset[str]) -> Plan:
    """The chosen ones of the planner's values, in the form of the controls."""
    found = {name: values[NAMES[name]] for name in METAS if name in chosen}
    if "caption" in chosen:
        found["caption"] = shortened(clean(values["caption"]), CAPTION_LIMIT)
    return Plan(**found)


def shortened(text: str, limit: int) -> str:
    """A text of `limit` characters at most, cut at a sentence's end in its second half, or else at a word's."""
    if len(text) <= limit:
        return text
    cuts = (text.rfind(end, limit // 2, limit) + 1 for end in SENTENCE_ENDS)
    return text[: next(filter(None, cuts), limit)].rstrip(" ,;")


def fitting(lyrics: str) -> str:
    """Lyrics as the lyrics control takes them: whole lines, no more than it holds."""
    lyrics = clean(lyrics)
    return (
        lyrics
        if len(lyrics) <= LYRICS_LIMIT
        else lyrics[: lyrics.rfind("\n", 0, LYRICS_LIMIT) + 1 or LYRICS_LIMIT].strip()
    )


def degenerate(codes: Sequence[int]) -> bool:
    """Whether some 30 s of a sketch hold fewer than 5 % different codes."""
    last = max(len(codes) - WINDOW, 0)
    windows = [codes[i : i + WINDOW] for i in (*range(0, last, WINDOW), last)]
    return any(len(set(w)) < DISTINCT * len(w) for w in windows)
