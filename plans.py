"""What the planner writes: a plan for a song, and a draft of the words for one. Both may be saved and brought back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer
from pydantic_core import PydanticCustomError

from fields import Frozen, Key, Language, Meter, Real, Text, Whole

CAPTION_LIMIT = 512  # characters: as much as the style prompt may hold, so that a plan's caption may become one
CODE_RATE = 5  # codes per second
CODE_COUNT = 64_000  # what the audio tokenizer's codebook holds
METAS = ("bpm", "keyscale", "timesignature", "vocal_language")


def _codes(value: Any) -> Any:
    """Codes as a recipe shows them: one text of numbers."""
    if isinstance(value, str):
        words = value.split()
        return tuple(int(w) if w.isascii() and w.isdigit() and len(w) < 6 else w for w in words)
    return value


def unwrapped(value: Any) -> Any:
    """The plan within what was saved: a plan, the planner's part of a recipe, a whole recipe, or the JSON text of one.

    Raises PydanticCustomError for text that is no JSON and for a recipe without a plan.
    """
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise PydanticCustomError("json", "a saved plan") from None
    if isinstance(value, Mapping) and "planner" in value:
        value = value["planner"]
        if not isinstance(value, Mapping) or "plan" not in value:
            raise PydanticCustomError("json", "a saved plan")  # a recipe of a song without one
    return value["plan"] if isinstance(value, Mapping) and "plan" in value else value


Code = Annotated[Whole, Field(ge=0, lt=CODE_COUNT)]
Codes = Annotated[
    tuple[Code, ...],
    BeforeValidator(_codes),
    PlainSerializer(lambda codes: " ".join(map(str, codes))),
    Field(max_length=600 * CODE_RATE),
]


class Plan(Frozen):
    """A plan for a song: what fills the gaps of a request, and five semantic codes a second; everything may be empty.

    `codes` are read from a list or from a text of numbers, and shown as that text.
    """

    caption: Annotated[Text, Field(max_length=CAPTION_LIMIT)] = ""
    bpm: Annotated[Whole | None, Field(ge=30, le=300)] = None
    keyscale: Key = ""
    timesignature: Meter = ""
    vocal_language: Language = "unknown"
    codes: Codes = ()


class Draft(Frozen):
    """Words and facts for a song, as the planner wrote or heard them, named like the controls they are for."""

    prompt: str = ""
    lyrics: str = ""
    instrumental: bool = False
    duration_s: Real | None = None
    bpm: Whole | None = None
    keyscale: Key = ""
    timesignature: Meter = ""
    vocal_language: Language = "unknown"
    seed: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def plan(self) -> Plan:
        """The plan that a song from this draft begins with: its caption is written already."""
        return Plan(caption=self.prompt, **{name: getattr(self, name) for name in METAS})
