"""The requests for words: what the planner is asked for before there is a song. `song.py` has what all requests share."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import BeforeValidator, model_validator

from errors import AudioError, TextError
from fields import Audio, Real, Text, blank, knob
from song import DURATION_RANGE, INSTRUMENTAL, LYRICS_LIMIT, PROMPT_LIMIT, Asked

DRAWN = frozenset(("seed", "lm_temperature", "lm_top_p", "lm_top_k"))
FACTS = frozenset(("bpm", "keyscale", "timesignature", "vocal_language"))


class Write(Asked):
    """A whole song's words, style and facts from one line."""

    mode: ClassVar[str] = "write"
    knobs: ClassVar[frozenset[str]] = DRAWN | {"vocal_language"}

    query: Text = knob("", "Your idea", max_length=PROMPT_LIMIT)
    instrumental: bool = knob(False, "Instrumental")

    @model_validator(mode="after")
    def _said(self) -> Self:
        if not self.query:
            raise TextError("Your idea is empty: write one line, such as a sad song about rain.")
        return self


class Tidy(Asked):
    """A prompt and lyrics in the form that the song model knows best; what is given of facts stays."""

    mode: ClassVar[str] = "tidy"
    knobs: ClassVar[frozenset[str]] = DRAWN | FACTS

    prompt: Text = knob("", "Style prompt", max_length=PROMPT_LIMIT)
    lyrics: Text = knob("", "Lyrics", max_length=LYRICS_LIMIT)
    duration_s: Annotated[Real | None, BeforeValidator(blank)] = knob(
        None, "Duration (s)", ge=DURATION_RANGE[0], le=DURATION_RANGE[1], empty="the planner's choice"
    )
    instrumental: bool = knob(False, "Instrumental")

    @model_validator(mode="after")
    def _words(self) -> Self:
        if not self.prompt and not self.lyrics:
            raise TextError("There is nothing to tidy: write a style prompt or some lyrics first.")
        return self

    @property
    def sung(self) -> str:
        """The lyrics as the model reads them."""
        return INSTRUMENTAL if self.instrumental else self.lyrics or INSTRUMENTAL


class Describe(Asked):
    """What a recording sounds like: a style prompt, its tempo, key and language, the words that are heard."""

    mode: ClassVar[str] = "describe"
    knobs: ClassVar[frozenset[str]] = frozenset(("seed",))

    source_audio: Audio | None = knob(None, "Song to describe")

    @model_validator(mode="after")
    def _given(self) -> Self:
        if self.source_audio is None:
            raise AudioError("Song to describe is missing: add a recording first.")
        return self


DRAFTS = (Write, Tidy, Describe)
