"""The requests for lyrics: a draft from a brief, a draft refined, a draft gone on with. `steering.py` holds models to them."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Strict, model_validator

from errors import KnobError, TextError
from fields import Real, Text, Whole, clean, knob
from sections import (
    COUNTED,
    FIXED,
    LINE_TOKENS,
    REFRAINS,
    TAG,
    Again,
    Line,
    Part,
    Piece,
    Said,
    Section,
    kind_of,
    parts,
    pieces,
    structure,
)
from song import LYRICS_LIMIT, Asked

BRIEF_LIMIT, STRUCTURE_LIMIT, TONE_LIMIT = 2000, 600, 200  # characters
LANGUAGES = {
    "en": "English",
    "zh": "Chinese",
    "ja": "Japanese",
    "ko": "Korean",
    "es": "Spanish",
    "fr": "French",
    "de": "German",
}
STRUCTURE = "intro, verse, chorus, verse, chorus, bridge, chorus, outro"
SHORTER, CHORUS = "shorter lines", "stronger chorus"
CHANGES = {  # what a draft may be refined to, and what the model is told of it
    SHORTER: "Make every line clearly shorter; keep what it says.",
    "more concrete": "Replace what is abstract by things one can see, hear and touch.",
    "less rhyme": "Let the lines stop rhyming; keep what they say.",
    CHORUS: "Write the chorus anew: a hook that is simple, bold and easy to remember.",
    "more cryptic": "Say it in images and riddles instead of plainly.",
}
SHORTER_BY = 0.7  # of a line's length
SHORTEST = 16  # characters: what is as short already stays about as long

Verbatim = Annotated[str, Strict(), BeforeValidator(partial(clean, strip=False))]


class Lyrics(Asked):
    """Lyrics from a brief, in the sections that the structure names."""

    mode: ClassVar[str] = "lyrics"
    knobs: ClassVar[frozenset[str]] = frozenset(("seed",))
    given: ClassVar[dict[str, Any]] = {"seed": 42}

    brief: Text = knob("", "Brief", max_length=BRIEF_LIMIT)
    structure: Text = knob(STRUCTURE, "Structure", max_length=STRUCTURE_LIMIT)
    language: Literal[tuple(LANGUAGES)] = knob("en", "Language")
    tone: Text = knob("", "Tone / mood", max_length=TONE_LIMIT)
    verse_lines: Whole = knob(6, "Verse lines", ge=2, le=10, step=1)
    chorus_lines: Whole = knob(4, "Chorus lines", ge=2, le=8, step=1)
    bridge_lines: Whole = knob(2, "Bridge lines", ge=1, le=6, step=1)
    rhyme: Literal["strict", "loose", "none"] = knob("loose", "Rhyme")
    temperature: Real = knob(0.85, "Temperature", ge=0, le=2, step=0.05)
    top_p: Real = knob(0.9, "Top-p", ge=0, le=1, step=0.05)
    top_k: Whole = knob(40, "Top-k", ge=0, le=200, step=1)
    max_new_tokens: Whole = knob(600, "Max new tokens", ge=100, le=2000, step=50)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        self._said()
        lines, least = sum(isinstance(piece, Line) for piece in self.pieces), LINE_TOKENS[0]
        if lines * least > self.max_new_tokens:
            raise KnobError(
                f"Max new tokens ({self.max_new_tokens:,}) is too few for {lines} lines: they take {lines * least:,} at least.",
                "Raise it, or ask for fewer lines.",
            )
        return self

    def _said(self) -> None:
        if not self.brief:
            raise TextError("Brief is empty: say what the song is about.")

    @property
    def sections(self) -> tuple[Section, ...]:
        """The sections of the finished lyrics. Raises KnobError for a structure that names none, or unknown ones."""
        return structure(self.structure, {name: getattr(self, name) for name in set(COUNTED.values())})

    @property
    def pieces(self) -> list[Piece]:
        """What has to be written, and what stands already."""
        return pieces(self.sections)

    @property
    def idle(self) -> dict[str, str]:
        """Controls that cannot act as the others are set, each with the reason."""
        return (
            dict.fromkeys(("top_p", "top_k", "seed"), "a temperature of 0 takes the likeliest")
            if self.temperature == 0
            else {}
        )


class Refine(Lyrics):
    """A draft written anew with one change, section by section and line by line; what need not change stays as it is."""

    mode: ClassVar[str] = "refine"

    draft: Text = knob("", "Draft", max_length=LYRICS_LIMIT)
    change: Literal[tuple(CHANGES)] = knob(SHORTER, "Change")

    def _said(self) -> None:
        if not any(part.lines for part in self.parts):
            raise TextError("There is no draft to refine: draft some lyrics first.")
        if not any(map(self._changes, self.parts)):
            raise TextError("This draft has no [chorus] to make stronger.")

    @property
    def parts(self) -> list[Part]:
        """The draft, section by section."""
        return parts(self.draft)

    def _changes(self, part: Part) -> bool:
        return bool(part.lines) and (self.change != CHORUS or kind_of(part.tag) in REFRAINS)

    @property
    def sections(self) -> tuple[Section, ...]:
        """Those of the draft."""
        return tuple(Section(part.tag, len(part.lines)) for part in self.parts if part.tag or part.lines)

    @property
    def pieces(self) -> list[Piece]:
        """The draft with lines to write where it changes; what is the same twice in it stays so."""
        made: list[Piece] = []
        first: dict[tuple[str, ...], int] = {}
        count = 0
        for part in self.parts:
            lines = part.lines
            if not self._changes(part):
                made.append(Said(part.raw))
            else:
                head, tail = part.edges
                anew = [Line(self._longest(line)) for line in lines]
                made += [Said(head), *([Again(first[lines], len(lines))] if lines in first else anew), Said(tail)]
                first.setdefault(lines, count)
            count += len(lines)
        return made

    def _longest(self, line: str) -> int:
        return max(int(len(line) * SHORTER_BY), SHORTEST) if self.change == SHORTER else 0


class Continue(Lyrics):
    """A draft gone on with: all of it stays to the last character, and the rest of the structure is written after it."""

    mode: ClassVar[str] = "continue"

    draft: Verbatim = knob("", "Draft", max_length=LYRICS_LIMIT)

    def _said(self) -> None:
        if not self._kept:
            raise TextError("There are no words before the cursor: put it where the song shall go on.")
        if not any(isinstance(piece, Line) for piece in self.pieces):
            raise TextError("Nothing of the structure is left after these words: put the cursor earlier.")

    @property
    def _kept(self) -> list[Part]:
        return [part for part in parts(self.draft) if part.tag or part.lines]

    @property
    def _begun(self) -> str:
        """What stands on the draft's last line; empty when that is empty or a tag."""
        last = self.draft.rpartition("\n")[2]
        return "" if TAG.fullmatch(last) else last.strip()

    @property
    def _last(self) -> Section:
        """The last section of the draft, with as many lines as it shall have."""
        part, kind = self._kept[-1], kind_of(self._kept[-1].tag)
        wanted = getattr(self, COUNTED.get(kind, "verse_lines")) if kind not in FIXED else FIXED[kind]
        return Section(part.tag, max(wanted, len(part.lines)))

    @property
    def sections(self) -> tuple[Section, ...]:
        """Those of the draft, then those of the structure that it does not have yet."""
        kept = self._kept
        whole = tuple(Section(part.tag, len(part.lines)) for part in kept[:-1])
        return (*whole, self._last, *super().sections[len(kept) :])

    @property
    def pieces(self) -> list[Piece]:
        """The draft, what is missing of its last section, and the sections after it."""
        kept, sections = self._kept, self.sections
        stands = self.draft if self.draft.endswith("\n") or self._begun else f"{self.draft}\n"
        missing = self._last.lines - len(kept[-1].lines)
        begun = [Line(begun=self.draft.rpartition("\n")[2])] if self._begun else []
        return [Said(stands), *begun, *[Line()] * missing, *pieces(sections[len(kept) :], sections[: len(kept)])]


LYRICS = (Lyrics, Refine, Continue)
