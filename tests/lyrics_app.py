"""The studio with the tiny lyrics model, each of whose tokens takes a moment, so that a text can be watched and stopped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import lyrics_lm
from lm import Sampling, Speaker, Text

TOKEN_S = 0.004
really = lyrics_lm.load


class Unhurried:
    """A language model that waits before it reads a token of its own."""

    def __init__(self, lm: Speaker) -> None:
        self.lm = lm

    def text(self, prompt: Sequence[int], room: int) -> UnhurriedText:
        """A prompt read."""
        return UnhurriedText(self.lm.text(prompt, room))


class UnhurriedText:
    """A text of such a model."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self.mark, self.back = text.mark, text.back

    def feed(self, ids: Sequence[int]) -> None:
        """Read these tokens, in a moment."""
        time.sleep(TOKEN_S)
        self.text.feed(ids)

    def pick(self, among: Sequence[int] | str, how: Sampling, chance: float, barred: Sequence[int] = ()) -> int:
        """The next token."""
        return self.text.pick(among, how, chance, barred)


def load(*values: Any) -> lyrics_lm.Lyricist:
    """In place of `lyrics_lm.load`."""
    found = really(*values)
    return replace(found, lm=Unhurried(found.lm))


if __name__ == "__main__":
    import app

    lyrics_lm.load = load
    app.main()
