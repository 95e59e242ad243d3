"""What the planner writes, token by token: a script of what is certain, what is to be chosen, and what is free.

The names of the fields, the ends of lines and every value that the user gave are known and are read in one go; the model
is asked only where there is something to decide.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import zip_longest

from lm import LM, Sampling
from vocabulary import FIELDS, STOP, THINK, THOUGHT, Vocabulary, line, scalar

CAPTION_TOKENS = 160  # beyond, tempo, key and duration would fall out of what the song model reads
LYRIC_TOKENS = 2048
GREEDY = Sampling(temperature=0)
LINE_REPEATS, BLOCK_REPEATS, BLOCK_LINES = 8, 3, 4  # a song may repeat itself, but not like this

SYSTEM = {
    "generate": "Generate audio semantic tokens based on the given conditions:",
    "understand": "Understand the given musical conditions and describe the audio semantics accordingly:",
    "inspire": "Expand the user's input into a more detailed and specific musical description:",
    "format": "Format the user's input into a more detailed and specific musical description:",
}
NO_INPUT = "NO USER INPUT"


def chat(system: str, user: str) -> str:
    """A prompt in Qwen's ChatML, the assistant's turn open; `system` is a key of SYSTEM."""
    return (
        f"<|im_start|>system\n# Instruction\n{SYSTEM[system]}\n\n<|im_end|>\n"
        f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"
    )


def thought(values: Mapping[str, str]) -> str:
    """What was decided, as the model reads it before the codes: fields in alphabetical order, empty ones left out."""
    lines = "".join(line(key, values[key]) for key in FIELDS if values.get(key))
    return f"{THINK}\n{lines.strip()}\n{THOUGHT}\n\n"


class Pen:
    """One text of a language model that is being written. What is certain is read when the next choice is due."""

    def __init__(self, lm: LM, vocabulary: Vocabulary, prompt: Sequence[int], room: int) -> None:
        self.vocabulary = vocabulary
        self.text = lm.text(prompt, room)
        self.written: list[int] = []
        self._certain: list[int] = []

    def force(self, ids: Sequence[int]) -> None:
        """Write what is certain."""
        self.written += ids
        self._certain += ids

    def choose(self, among: Sequence[int] | str, how: Sampling, chance: float) -> int:
        """Let the model write one token of these ids, or of the mask of that name."""
        if self._certain:
            self.text.feed(self._certain)
            self._certain = []
        chosen = self.text.pick(among, how, chance)
        self.force([chosen])
        return chosen


class Script:
    """A pen, the chances that it draws with, and how; `heed` is called for each token and may raise to stop."""

    def __init__(self, pen: Pen, how: Sampling, chances: Iterator[float], heed: Callable[[], None]) -> None:
        self.pen, self.how, self.chances, self.heed = pen, how, chances, heed
        self.vocabulary = pen.vocabulary

    def _choose(self, among: Sequence[int] | str, how: Sampling | None = None) -> int:
        self.heed()
        return self.pen.choose(among, how or self.how, next(self.chances))

    def think(self, given: Mapping[str, str], wanted: Collection[str]) -> dict[str, str]:
        """The thought: the values of all fields that are `given` or `wanted`; what is given comes back as it is."""
        keys = [key for key in FIELDS if key in given or key in wanted]
        encode = self.vocabulary.encode
        self.pen.force(encode(f"{THINK}\n"))
        values, begun = {}, False  # whether the name of the next field was written already
        for key, then in zip_longest(keys, keys[1:]):
            after = self.vocabulary.name(then) if then else encode(THOUGHT)
            name = [] if begun else self.vocabulary.name(key)
            begun = False
            if key in given:
                values[key] = given[key]
                self.pen.force(encode(line(key, given[key]))[len(self.vocabulary.name(key)) - len(name) :])
                continue
            self.pen.force(name)
            if key == "caption":
                values[key] = self._caption(after[0])
                self.pen.force(after[1:])
                begun = True
            else:
                values[key] = self._value(key)
        if not begun:
            self.pen.force(encode(THOUGHT))
        return values

    def _value(self, key: str) -> str:
        """One of a field's values. A language is the likeliest one: it is heard, not invented."""
        node, how, start = self.vocabulary.trees[key], GREEDY if key == "language" else self.how, len(self.pen.written)
        while node:
            if len(node) == 1:
                (token,) = node
                self.pen.force([token])
            else:
                token = self._choose(list(node), how)
            node = node[token]
        return scalar(self.vocabulary.decode(self.pen.written[start:]))

    def _caption(self, after: int) -> str:
        """Free text up to the line where the token `after` begins; it is written, too."""
        newlines, start = self.vocabulary.newlines, len(self.pen.written)
        while True:
            count = len(self.pen.written) - start
            if count >= CAPTION_TOKENS:
                self.pen.force(self.vocabulary.encode("\n"))
                break
            lines = newlines.get(self._choose("caption" if count else "lead"), 0)
            if lines > 1:
                break
            # After a line's end the caption is folded, or over.
            if lines and self._choose([*self.vocabulary.indents, after]) == after:
                return self._text(start, len(self.pen.written) - 1)
        text = self._text(start, len(self.pen.written))
        self.pen.force([after])
        return text

    def _text(self, start: int, stop: int) -> str:
        return scalar(self.vocabulary.decode(self.pen.written[start:stop]))

    def lyrics(self) -> tuple[str, bool]:
        """Free text to the model's own end, without its heading, and whether it was cut because it went in circles."""
        start, newlines, end = len(self.pen.written), self.vocabulary.newlines, self.vocabulary.special[STOP]
        for _ in range(LYRIC_TOKENS):
            token = self._choose("lyrics")
            if token == end:
                self.pen.written.pop()
                break
            if token in newlines and (cut := circle(self._plain(start))):
                return heading_off(self._plain(start)[:cut]), True
        return heading_off(self._plain(start)), False

    def _plain(self, start: int) -> str:
        return self.vocabulary.decode(self.pen.written[start:])


def heading_off(text: str) -> str:
    """Lyrics without the line that says so."""
    first, _, rest = text.strip().partition("\n")
    return rest.strip() if first.strip().rstrip(":").lower() in ("# lyric", "# lyrics") else text.strip()


def circle(text: str) -> int:
    """Where a text goes in circles, as the number of characters before the second round; 0 when it does not.

    One line over LINE_REPEATS times in a row, or the last BLOCK_REPEATS blocks of BLOCK_LINES lines or more alike.
    """
    lines = text.rstrip("\n").split("\n")
    if len(lines) > LINE_REPEATS and lines[-1].strip() and len(set(lines[-LINE_REPEATS - 1 :])) == 1:
        return len("\n".join(lines[:-LINE_REPEATS]))
    text = text.rstrip("\n")
    blocks = [block.strip("\n") for block in text.split("\n\n") if block.strip("\n")]
    last = blocks[-BLOCK_REPEATS:]
    if len(last) < BLOCK_REPEATS or len(set(last)) > 1 or last[0].count("\n") + 1 < BLOCK_LINES:
        return 0
    for block in last[1:]:
        text = text.removesuffix(block).rstrip("\n")
    return len(text)
